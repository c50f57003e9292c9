"""kfcn-convert: a trained model becomes a bundle of `.tflite` files with golden images."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from kfcn_mobile.gates import MODES

from kfcn.commands._cli import MODEL_HELP, Parser, add_source, number, run, source_of_run
from kfcn_tools.convert.options import RANGES, Int8Options


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    cli = Parser(
        prog="kfcn-convert",
        description="Convert a trained model to TFLite, with the proof that it gives the same "
        "labels.",
        epilog="modes: " + "; ".join(f"{name}: {mode.help}" for name, mode in MODES.items()),
    )
    cli.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    whole = number(int)  # how large each must be, `convert` checks
    cli.add_argument(
        "--size",
        type=whole,
        nargs=2,
        metavar=("H", "W"),
        required=True,
        help="height and width of the images",
    )
    cli.add_argument(
        "--quantize",
        nargs="+",
        choices=(*MODES, "all"),
        default=["all"],
        metavar="MODE",
        help=f"{', '.join(MODES)} or all (default)",
    )
    add_source(cli, required=False, purpose="default: that of the run or the card; ")
    cli.add_argument(
        "--calibration", type=whole, default=100, metavar="N", help="training images for int8 (100)"
    )
    cli.add_argument(
        "--golden", type=whole, default=16, metavar="N", help="validation images in the bundle (16)"
    )
    cli.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to create")
    quantising = cli.add_argument_group("int8 and mixed")
    usual = Int8Options()
    # Without a default: what is not given is `Int8Options`' own.
    quantising.add_argument(
        "--min-agreement",
        type=number(float),
        default=argparse.SUPPRESS,
        metavar="0..1",
        help=f"target agreement of the layer search ({usual.min_agreement})",
    )
    quantising.add_argument(
        "--calibrate",
        dest="ranges",
        choices=RANGES,
        default=argparse.SUPPRESS,
        help=f"how ranges are found ({usual.ranges})",
    )
    quantising.add_argument(
        "--equalize",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help=f"equalise ranges across layers ({_on(usual.equalize)})",
    )
    quantising.add_argument(
        "--correct-rounding",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help=f"round weights so that their errors cancel ({_on(usual.correct_rounding)})",
    )
    quantising.add_argument(
        "--qat-epochs",
        type=whole,
        default=argparse.SUPPRESS,
        metavar="N",
        help=f"quantisation-aware fine-tuning on the training split ({usual.qat_epochs})",
    )
    return cli


def _on(switch: bool) -> str:
    return "on" if switch else "off"


def work(args: argparse.Namespace) -> int:
    """Converts, and prints what came of it."""
    from kfcn.cards import read_card
    from kfcn_tools.convert.conversion import convert

    given = {field.name for field in dataclasses.fields(Int8Options)} & vars(args).keys()
    data, splits = source_of_run(args, args.model, read_card(args.model))
    out = convert(
        args.model,
        args.out,
        tuple(args.size),
        data=data,
        splits=splits,
        modes=None if "all" in args.quantize else args.quantize,
        calibration=args.calibration,
        golden=args.golden,
        int8=Int8Options(**{name: getattr(args, name) for name in given}),
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    _print_files(out)
    print(f"wrote {out}; prove it with: kfcn-validate {out}")
    return 0


def _print_files(bundle: Path) -> None:
    described = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    models = described["models"]
    for model in models:
        print(f"{model['mode']:15} {(bundle / model['file']).stat().st_size / 1024:8.0f} KiB")
    for model in described["scores"]:
        size = (bundle / model["file"]).stat().st_size
        print(f"scores, {model['mode']:7} {size / 1024:8.0f} KiB")
    for search in [model["search"] for model in models if model["mode"] == "mixed"]:
        reached = "reached" if search["agreement"] >= search["target"] else "NOT reached"
        print(
            f"  mixed on held-back training images: {search['base_agreement']:.3%} in int8,"
            f" {search['agreement']:.3%} with the layers below; target {search['target']:.2%}"
            f" {reached}"
        )
        for kept in search["kept"]:
            print(
                f"  in float: {kept['layer']} (+{kept['gain']:.3%} agreement,"
                f" {kept['bytes']:+d} bytes, {kept['milliseconds']:+.2f} ms)"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """The command `kfcn-convert`."""
    return run(parser(), work, argv)
