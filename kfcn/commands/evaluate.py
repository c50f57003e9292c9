"""kfcn-evaluate: the four metrics and the per-class table of a model on a split."""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from kfcn.commands._cli import OVERWRITE_HELP, Parser, add_source, number, run, source_of


def parser() -> argparse.ArgumentParser:
    cli = Parser(
        prog="kfcn-evaluate",
        description="Measure a model on a split, every image at its full resolution.",
    )
    cli.add_argument("model", metavar="MODEL", help="a .keras file or a run folder")
    add_source(cli, default="scenes")
    cli.add_argument("--split", metavar="NAME", default="val", help="default: val")
    cli.add_argument("--crf", action="store_true", help="put a dense CRF on top (kfcn-tune-crf)")
    cli.add_argument(
        "--flip", action="store_true", help="average with the mirror image (another protocol)"
    )
    cli.add_argument(
        "--scales",
        type=number(float, above=0),
        nargs="+",
        default=[1.0],
        metavar="S",
        help="average over the image at these scales, such as 0.75 1 1.25 (another protocol)",
    )
    cli.add_argument("--json", metavar="FILE", help="write the figures there as well")
    cli.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)
    return cli


def work(args: argparse.Namespace) -> None:
    from kfcn.inference.evaluate import evaluate
    from kfcn.inference.protocol import Protocol
    from kfcn.outputs import one_file
    from kfcn.saved import files_of, read_card

    protocol = Protocol(tuple(args.scales), args.flip)
    claim = contextlib.nullcontext()
    if args.json:
        claim = one_file(args.json, files_of(args.model), args.overwrite, "--json")
    with claim as outputs:
        result = evaluate(
            args.model,
            source_of(args, read_card(args.model)),
            args.split,
            progress=True,
            crf=args.crf,
            protocol=protocol,
        )
        print(f"{args.model} on {result.data}, {result.images} images, {result.protocol}")
        print(result.table())
        if outputs is not None:
            outputs.write_json(Path(args.json), {"model": args.model, **result.as_dict()})


def main(argv: Sequence[str] | None = None) -> int:
    return run(parser(), work, argv)
