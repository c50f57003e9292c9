"""kfcn-export: a trained model as the file of another runtime."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from kfcn.commands._cli import MODEL_HELP, Parser, add_source, number, run, source_of_run
from kfcn_tools.export import FORMATS

CALIBRATION = 100


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    cli = Parser(
        prog="kfcn-export",
        description="Write a trained model for other runtimes: uint8 image (N, H, W, 3) in, uint8 "
        "labels (N, H, W) out, of any batch and size, checked against Keras first. For phones "
        "there is kfcn-convert.",
        epilog="formats: " + "; ".join(f"{name}: {kind.help}" for name, kind in FORMATS.items()),
    )
    cli.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    whole = number(int)  # how large each must be, `export` checks
    one_size = " and ".join(
        f"{name} in 8 bits" if kind.fixed_int8 else name
        for name, kind in FORMATS.items()
        if kind.fixed_size or kind.fixed_int8
    )
    cli.add_argument("--format", required=True, choices=FORMATS, help=", ".join(FORMATS))
    cli.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    cli.add_argument("--scores", action="store_true", help="class probabilities instead of labels")
    cli.add_argument(
        "--size",
        type=whole,
        nargs=2,
        metavar=("H", "W"),
        help=f"height and width of the images, for {one_size}",
    )
    able = " and ".join(name for name, kind in FORMATS.items() if kind.int8 is not None)
    cli.add_argument("--quantize", choices=("int8",), help=f"add a file in 8 bits ({able})")
    add_source(
        cli,
        required=False,
        purpose="to check and calibrate on; default: of the run with --quantize, else scenes; ",
    )
    cli.add_argument(
        "--calibration", type=whole, metavar="N", help=f"training images for int8 ({CALIBRATION})"
    )
    return cli


def work(args: argparse.Namespace) -> int:
    """Exports, and prints what came of it."""
    from kfcn.cards import read_card
    from kfcn.errors import UsageError
    from kfcn_tools.export.exporting import DESCRIPTION, export

    of_data = ("data", "data_dir", "classes", "ignore", "pages", "unlabelled", "seed")
    data, splits = None, ("train", "val")
    if args.quantize or any(getattr(args, name) is not None for name in of_data):
        data, splits = source_of_run(args, args.model, read_card(args.model))
    if args.quantize is None and args.calibration is not None:
        raise UsageError("--calibration requires --quantize int8")
    out = export(
        args.model,
        args.out,
        args.format,
        scores=args.scores,
        size=tuple(args.size) if args.size else None,
        quantize=args.quantize == "int8",
        data=data,
        splits=splits,
        calibration=CALIBRATION if args.calibration is None else args.calibration,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    described = json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))
    for model in described["models"]:
        found = described["checked"].get(model["mode"])
        if found is None:
            print(f"{model['mode']}: not run here: Core ML runs only on Apple's systems")
        for result in found or ():
            batch, height, width, _ = result["shape"]
            print(
                f"{model['mode']}: {result['differing']} of {result['pixels']} pixels differ from"
                f" Keras ({batch} of {height}x{width})"
            )
    print(f"wrote {out}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command `kfcn-export`."""
    return run(parser(), work, argv)
