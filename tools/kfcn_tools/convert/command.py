"""kfcn-convert: a trained model becomes a bundle of `.tflite` files with golden images."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kfcn import __version__
from kfcn.commands._cli import run
from kfcn.errors import KfcnError, UsageError

MODES = ("float32", "float16", "dynamic", "int8", "mixed")
CALIBRATIONS = ("min-max", "percentile", "least-squares")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    cli = argparse.ArgumentParser(
        prog="kfcn-convert",
        description="Convert a trained model to TFLite, with the proof that it labels alike.",
    )
    cli.add_argument("model", metavar="RUN_OR_MODEL", help="a run folder or a .keras file")
    cli.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), required=True, help="of the images"
    )
    cli.add_argument(
        "--quantize",
        nargs="+",
        choices=(*MODES, "all"),
        default=["all"],
        metavar="MODE",
        help=f"{', '.join(MODES)} or all (default)",
    )
    cli.add_argument("--data", metavar="NAME", required=True, help="data set: scenes, camvid, ...")
    cli.add_argument("--data-dir", metavar="DIR", help="folder of the data set")
    cli.add_argument("--seed", type=int, default=0, help="of the scenes that are drawn")
    cli.add_argument(
        "--calibration", type=int, default=100, metavar="N", help="training images for int8 (100)"
    )
    cli.add_argument(
        "--golden", type=int, default=16, metavar="N", help="validation images in the bundle (16)"
    )
    cli.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to make")
    cli.add_argument(
        "--logits", action="store_true", help="add float32_logits.tflite: scores, not labels"
    )
    quantising = cli.add_argument_group("int8 and mixed")
    quantising.add_argument(
        "--min-agreement", type=float, metavar="0..1", help="target of the layer search (0.993)"
    )
    quantising.add_argument(
        "--calibrate", choices=CALIBRATIONS, help="how ranges are found (percentile)"
    )
    quantising.add_argument(
        "--equalize", action=argparse.BooleanOptionalAction, help="ranges across layers (off)"
    )
    quantising.add_argument(
        "--correct-bias", action=argparse.BooleanOptionalAction, help="for rounded weights (on)"
    )
    quantising.add_argument(
        "--qat-epochs",
        type=int,
        default=0,
        metavar="N",
        help="quantisation-aware fine-tuning on the training split (0)",
    )
    cli.add_argument("--version", action="version", version=f"kfcn {__version__}")
    return cli


def work(args: argparse.Namespace) -> int:
    """Converts; returns the exit code."""
    import keras

    from kfcn import data as data_sets
    from kfcn.files import sha256
    from kfcn.saved import check_classes, load_model, model_path, read_card
    from kfcn_tools.convert import fix_size as export
    from kfcn_tools.convert import metadata, modes
    from kfcn_tools.convert import write_bundle as bundle

    _check(args)
    chosen = MODES if "all" in args.quantize else [m for m in MODES if m in args.quantize]
    card = read_card(args.model)
    if card is None:
        raise KfcnError(
            f"{args.model}: no model.json beside the model; it names the classes and their colours"
        )
    train, val = (
        data_sets.load(args.data, split, args.data_dir, args.seed) for split in ("train", "val")
    )
    check_classes(card, val)
    size = tuple(args.size)
    source = model_path(args.model)
    info = {
        "kfcn_version": __version__,
        "size": list(size),
        "classes": list(card["classes"]),
        "palette": [list(colour) for colour in card["palette"]],
        "source": {"name": f"{source.parent.name}/{source.name}", "sha256": sha256(source)},
    }
    options = {
        "min_agreement": args.min_agreement,
        "calibration": args.calibrate,
        "equalize": args.equalize,
        "correct_bias": args.correct_bias,
        "qat_epochs": args.qat_epochs,
    }
    options = modes.Int8Options(**{k: v for k, v in options.items() if v is not None})
    with bundle.new_folder(args.out) as folder:
        loaded = load_model(args.model)
        # A saved model's input may stand in a list; from here on it is one tensor.
        model = keras.Model(loaded.inputs[0], loaded.outputs[0], name=loaded.name)
        chosen = _without_int8(model, chosen, asked="all" not in args.quantize)
        pictures = _pictures(train, args.calibration, size)
        images = [picture.image for picture in pictures]
        wanted = len(train) if args.qat_epochs else 0
        training = [picture.image for picture in _pictures(train, wanted, size)]
        converted = modes.convert_modes(model, size, chosen, images, options, training, _say)
        entries = []
        for mode, (content, details) in converted.items():
            (folder / f"{mode}.tflite").write_bytes(metadata.embed(content, info | {"mode": mode}))
            entries.append({"file": f"{mode}.tflite", "mode": mode, **details})
        if args.logits:
            # A file of its own: as a second signature beside `segment` it adds a second graph
            # that the quantiser's calibration does not reach, and labels need no exact borders.
            fixed = export.fix_size(model, *size, exact_logits=True)
            content = export.export_tflite(fixed, output="logits")
            (folder / "float32_logits.tflite").write_bytes(metadata.embed(content, info))
        _say(f"golden: {args.golden} images")
        golden = bundle.write_golden(folder, model, _pictures(val, args.golden, size))
        data = {"name": args.data, "calibration_split": "train", "golden_split": "val"}
        bundle.write_description(folder, info | {"data": data}, entries, golden)
    for entry in entries:
        print(f"{entry['mode']:8} {(args.out / entry['file']).stat().st_size / 1024:8.0f} KiB")
    if search := entries[-1].get("search"):
        reached = "reached" if search["agreement"] >= search["target"] else "NOT reached"
        print(
            f"  mixed on held-back training images: {search['base_agreement']:.3%} in int8,"
            f" {search['agreement']:.3%} with the layers below; target {search['target']:.2%}"
            f" {reached}"
        )
    for kept in (search or {}).get("kept", []):
        print(
            f"  in float: {kept['layer']} (+{kept['gain']:.3%} agreement, {kept['bytes']:+d} bytes,"
            f" {kept['milliseconds']:+.2f} ms)"
        )
    print(f"wrote {args.out}; prove it with: kfcn-validate {args.out}")
    return 0


def _check(args) -> None:
    if min(args.size) < 32:
        raise UsageError(f"--size {args.size[0]} {args.size[1]}: expected at least 32 each way")
    for name, least in (("calibration", 4), ("golden", 1), ("qat_epochs", 0)):
        if getattr(args, name) < least:
            raise UsageError(
                f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least {least}"
            )
    if args.min_agreement is not None and not 0 < args.min_agreement <= 1:
        raise UsageError(f"--min-agreement {args.min_agreement}: expected a share, such as 0.99")


def _without_int8(model, chosen: Sequence[str], asked: bool) -> list[str]:
    """The modes that the model has: the lattice of a CRF cannot be computed in 8 bits."""
    from kfcn.crf import DenseCRF

    if not any(isinstance(layer, DenseCRF) for layer in model.layers):
        return list(chosen)
    float_modes = [mode for mode in chosen if mode not in ("int8", "mixed")]
    if asked and len(float_modes) < len(chosen):
        raise UsageError(
            "the model ends in a CRF, which cannot be computed in 8 bits; "
            "use --quantize float32 float16 dynamic, or convert the net without it"
        )
    return float_modes


def _pictures(dataset, count: int, size: tuple[int, int]):
    """`count` samples spread evenly over a data set, brought to one size."""
    import numpy as np
    from PIL import Image

    from kfcn_tools.convert.write_bundle import Picture

    count = min(count, len(dataset))
    pictures = []
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int):
        sample = dataset[int(index)]
        image, labels = sample.image, sample.labels
        if image.shape[:2] != size:
            shape = size[::-1]
            image = np.array(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR))
            labels = np.array(Image.fromarray(labels).resize(shape, Image.Resampling.NEAREST))
        pictures.append(Picture(image, labels, sample.name))
    return pictures


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `kfcn-convert`."""
    return run(parser(), work, argv)
