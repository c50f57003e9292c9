"""kfcn-predict: label maps and overlays for pictures."""

import argparse
import sys

from kfcn.commands._cli import run


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="kfcn-predict",
        description="Segment pictures of any size: a palette label map and an overlay for each.",
    )
    cli.add_argument("model", metavar="MODEL", help="a .keras file or a run folder")
    cli.add_argument("images", metavar="IMAGE_OR_DIR", nargs="+", help="pictures or folders")
    cli.add_argument("--out", metavar="DIR", required=True, help="folder for the results")
    cli.add_argument("--crf", action="store_true", help="put a dense CRF on top (kfcn-tune-crf)")
    cli.add_argument(
        "--format",
        metavar="png|labelme",
        default="png",
        help="png: label map and overlay; labelme: polygons to be corrected in labelme",
    )
    return cli


def work(args: argparse.Namespace) -> int:
    from kfcn.prediction import predict

    result = predict(args.model, args.images, args.out, True, args.crf, args.format)
    for message in result.failed.values():
        print(f"kfcn-predict: not read: {message}", file=sys.stderr)
    print(f"{len(result.written)} pictures segmented into {args.out}")
    return 1 if result.failed else 0


def main(argv=None) -> int:
    return run(parser(), work, argv)
