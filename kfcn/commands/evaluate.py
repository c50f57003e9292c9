"""kfcn-evaluate: the four metrics and the per-class table of a model on a split."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from kfcn.commands._cli import (
    MODEL_HELP,
    OF_THE_RUN,
    OVERWRITE_HELP,
    Parser,
    add_source,
    number,
    run,
    source_of,
)
from kfcn.errors import counted
from kfcn.inference.scales import SCALES


def parser() -> argparse.ArgumentParser:
    cli = Parser(
        prog="kfcn-evaluate",
        description="Measure a model on a split, every image at its full resolution.",
    )
    cli.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_source(cli, required=False, purpose=OF_THE_RUN)
    cli.add_argument(
        "--split", metavar="NAME", help="default: val, or the run's own validation split"
    )
    cli.add_argument("--crf", action="store_true", help="put a dense CRF on top (kfcn-tune-crf)")
    cli.add_argument(
        "--flip", action="store_true", help="average with the mirror image (another protocol)"
    )
    cli.add_argument(
        "--scales",
        type=number(float, SCALES),
        nargs="+",
        default=[1.0],
        metavar="S",
        help="average over the image at these scales, such as 0.75 1 1.25 (another protocol)",
    )
    cli.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    cli.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)
    return cli


def work(args: argparse.Namespace) -> None:
    from kfcn.cards import data_to_measure, read_card
    from kfcn.files import sha256
    from kfcn.inference.protocol import Protocol
    from kfcn.outputs import one_file
    from kfcn.saved import files_of, model_path

    given = {name: getattr(args, name) for name in ("data_dir", "seed", "classes", "split")}
    chosen = data_to_measure(args.model, args.data, **given)
    vars(args).update(chosen._asdict())
    protocol = Protocol(tuple(args.scales), args.flip)
    claim = contextlib.nullcontext()
    if args.json:
        # What lies in the folder of the data set is read, but for figures of before.
        inside = _is_inside(args.json, args.data_dir)
        overwrite = args.overwrite and not inside
        claim = one_file(args.json, files_of(args.model), overwrite, "--json")
    with claim as outputs:
        card = read_card(args.model)
        dataset = source_of(args, card).open_for(card, args.split)
        if note := chosen.other_files(dataset):
            print(f"kfcn-evaluate: {note}", file=sys.stderr)
        from kfcn.inference.evaluate import evaluate  # brings TensorFlow: the rest is told before

        result = evaluate(
            args.model,
            dataset,
            progress=True,
            crf=args.crf,
            protocol=protocol,
        )
        images = counted(result.images, "image")
        print(f"{args.model} on {result.data}, {images}, {result.protocol}")
        print(result.table())
        if outputs is not None:
            # Which model it was: runs move, and nets are trained on.
            about = {"model": args.model, "model_sha256": sha256(model_path(args.model))}
            outputs.write_json(Path(args.json), {**about, **result.as_dict()})


def _is_inside(file: str, folder: str | None) -> bool:
    return folder is not None and Path(file).resolve().is_relative_to(Path(folder).resolve())


def main(argv: Sequence[str] | None = None) -> int:
    return run(parser(), work, argv)
