"""kfcn-predict: label maps and overlays for pictures."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from kfcn.commands._cli import BEAM_HELP, MODEL_HELP, OVERWRITE_HELP, Parser, beam_flags, run
from kfcn.errors import UsageError, counted, one_line, shortlist


def parser() -> argparse.ArgumentParser:
    cli = Parser(
        prog="kfcn-predict",
        description="Segment pictures of any size: a palette label map and an overlay for each.",
    )
    cli.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    cli.add_argument(
        "images",
        metavar="IMAGE_OR_DIR",
        nargs="+",
        help="pictures, folders, patterns or .txt lists",
    )
    cli.add_argument("--out", metavar="DIR", required=True, help="folder for the results")
    cli.add_argument("--crf", action="store_true", help="put a dense CRF on top (kfcn-tune-crf)")
    cli.add_argument(
        "--format",
        metavar="png|labelme|voc|coco",
        default="png",
        help="png: label map and overlay; labelme: polygons to be corrected in labelme; voc: the "
        "folders of PASCAL VOC; coco: an instances file with run-length masks",
    )
    cli.add_argument(
        "--list",
        action="store_true",
        help="print the classes in each picture with their share of it, and of all pictures "
        "together",
    )
    cli.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)
    cli.add_argument("--beam", metavar="FLAGS", nargs="?", const="", help=BEAM_HELP)
    return cli


def work(args: argparse.Namespace) -> int:
    from kfcn import pretrained
    from kfcn.inference.collect import left_out
    from kfcn.inference.predict import predict, shares

    if pretrained.is_name(args.model):
        print(pretrained.summary(args.model), flush=True)
    for note in left_out(args.images):
        print(f"kfcn-predict: {note}", file=sys.stderr)
    skipped = 0
    if args.beam is None:
        result = predict(
            args.model,
            args.images,
            args.out,
            True,
            args.crf,
            args.format,
            args.overwrite,
            _show if args.list else None,
        )
    else:
        from kfcn.inference.beam import predict_by_beam

        if args.list:
            raise UsageError(
                "--list prints as this process finishes pictures; use it without --beam"
            )
        flags = beam_flags(args.beam)
        result, skipped = predict_by_beam(
            args.model, args.images, args.out, args.crf, args.format, flags, args.overwrite
        )
    for message in result.failed.values():
        print(f"kfcn-predict: {message}", file=sys.stderr)
    parts = [f"{counted(len(result.written), 'picture')} segmented into {args.out}"]
    if skipped:
        parts.append(f"{skipped} existed already")
    if kept := result.kept:
        others = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
        parts.append(
            f"{len(kept)} kept, because kfcn did not write what is there now: {kept[0]}{others} "
            "(--overwrite replaces them)"
        )
    if args.list and len(result.pixels) > 1:
        total: Counter[str] = Counter()
        for counts in result.pixels.values():
            total.update(counts)
        print(f"all together: {shares(dict(total.most_common()))}")
    if (empty := result.background_only) and not args.list:
        parts.append(f"{len(empty)} of them background only: {shortlist(empty)}")
    print("; ".join(parts))
    return 1 if result.failed else 0


def _show(path: Path, counts: dict[str, int]) -> None:
    from tqdm import tqdm

    from kfcn.inference.predict import shares

    with tqdm.external_write_mode():  # the bar makes room
        print(one_line(f"{path}: {shares(counts)}"), flush=True)


def main(argv=None) -> int:
    return run(parser(), work, argv)
