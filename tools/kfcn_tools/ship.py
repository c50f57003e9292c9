"""Puts a trained net into the package: `kfcn.pretrained` then opens it by name.

    python -m kfcn_tools.ship RUN NAME --size H W --data D --data-dir DIR --facts FACTS.json

makes `kfcn/pretrained/NAME/` of a run folder (the model with kernels rounded to half precision, its
card, its outline, `int8.tflite`, `float16.tflite`) and `docs/pretrained/NAME.md`, the page of its
card, with what the net sees in the examples. FACTS is what no program knows: `description`,
`trained_on`, `terms` (of the data), `does_not_know`, `measured_on`, `command` (a line each),
`time`, `hardware`, and whatever else the card is to hold, as `credits` of the examples, or, where
this net has seen all pictures there are, the figures of a twin that has not: `unseen` in words and
`unseen_class_iou` by class.

Where RUN is the net in the package itself, its outline, its `.tflite` files, their figures and its
page are made anew, and `--size` and `--facts` are not asked for.

Half-precision numbers in a float32 file are half zeros: the wheel, which is compressed, is smaller
by as much. The card says how many labels the rounding has changed.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfcn import data as data_sets
from kfcn.cards import check_classes, read_card
from kfcn.commands._cli import Parser, run
from kfcn.data.dataset import spread
from kfcn.errors import KfcnError, UsageError
from kfcn.files import (
    aside,
    make_folder,
    read_bytes,
    read_object,
    sha256,
    write_json,
    write_text,
)
from kfcn.inference.runtime.outline import outline
from kfcn.machine import cpu_name, instruction_set
from kfcn.outputs import new_folder
from kfcn.pretrained import CARD, MODEL, OUTLINE
from kfcn.saved import load_model, model_path, save_model
from kfcn_tools.ship_page import command, draw, page

if TYPE_CHECKING:
    import keras

FACTS = (
    *("description", "trained_on", "terms", "does_not_know", "measured_on", "command", "time"),
    "hardware",
)
MODES = ("int8", "float16")
_EXAMPLES = (".jpg", ".jpeg", ".png")


def ship(
    trained: Path | str,
    out: Path | str,
    size: tuple[int, int],
    dataset: data_sets.Dataset,
    source: data_sets.Source,
    facts: dict[str, Any],
    golden: int = 100,
    examples: Sequence[Path] = (),
) -> Path:
    """Makes the folder of a pretrained net from a run folder.

    Args:
        trained: a run folder, or a `.keras` file with its card beside it.
        out: the folder to make; its name is the net's.
        size: (H, W) that the `.tflite` files take.
        dataset: the split on which the net is measured.
        source: the data set whose training split calibrates int8 and whose `val` gives the golden
            images (`kfcn_tools.convert.convert`).
        facts: what the card says beside the figures; all of `FACTS`.
        golden: validation images that prove the `.tflite` files.
        examples: pictures that may be given away, JPEG or PNG, for the page of `kfcn-serve`.

    Raises:
        UsageError: a fact is missing, or the folder exists.
        KfcnError: the run has no card.
    """
    from kfcn.inference.evaluate import measure
    from kfcn.inference.protocol import SINGLE_SCALE

    out, card = Path(out), read_card(trained)
    if card is None or not model_path(trained).with_name(CARD).is_file():
        raise KfcnError(f"{trained}: no {CARD} beside the model, as a finished run has it")
    if missing := [name for name in FACTS if not facts.get(name)]:
        raise UsageError(f"facts: {', '.join(missing)} missing; expected {', '.join(FACTS)}")
    if out.exists():
        raise UsageError(f"{out} exists already; move it away first")
    if missing := [str(path) for path in examples if not path.is_file()]:
        raise UsageError(f"{', '.join(missing)}: no such file; expected pictures")
    if other := [str(path) for path in examples if path.suffix.lower() not in _EXAMPLES]:
        raise UsageError(f"{', '.join(other)}: expected pictures in {', '.join(_EXAMPLES)}")
    net = load_model(trained)
    check_classes(card, dataset, net.outputs[0].shape[-1])
    before = net.get_weights()
    round_kernels(net)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / out.name
        folder.mkdir()
        save_model(net, folder / MODEL)
        shutil.copy(model_path(trained).with_name(CARD), folder / CARD)
        result = measure(net, dataset, SINGLE_SCALE, progress=True)
        changed = _changed_labels(net, before, dataset)
        (folder / OUTLINE).write_bytes(outline(net, folder / MODEL))
        converted = _convert(folder, size, source, golden)
        for number, example in enumerate(examples, start=1):
            shutil.copy(example, folder / f"example_{number}{example.suffix.lower()}")
        card |= facts | {
            "sha256": sha256(folder / MODEL),
            "metrics": {k: v for k, v in result.as_dict().items() if k != "data"},
            "labels_changed_by_rounding": changed,
            "tflite": converted,
            "files": _hashes(folder),
        }
        write_json(folder / CARD, card)
        page(out.name, card)  # what it lacks is told before the net is in the package
        with new_folder(out, "NAME") as new:
            shutil.copytree(folder, new, dirs_exist_ok=True)
    return out


def renew(shipped: Path, source: data_sets.Source, golden: int = 100) -> None:
    """Makes the outline and the `.tflite` files of a pretrained net anew, and their figures.

    Args:
        shipped: the folder of the net, as `ship` made it.
        source: as for `ship`.
        golden: validation images that prove the files.
    """
    card = read_object(shipped / CARD)
    height, width = card["tflite"]["size"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / shipped.name
        shutil.copytree(shipped, folder)
        (folder / OUTLINE).write_bytes(outline(load_model(folder), folder / MODEL))
        converted = _convert(folder, (height, width), source, golden)
        write_json(folder / CARD, card | {"tflite": converted, "files": _hashes(folder)})
        # All are written before the first takes its place: then there are renames left to do, the
        # card's at the end, which goes by what is entered first. A kill between two of them leaves
        # a card whose hashes are not its files', which is told, and mended by doing it again.
        with contextlib.ExitStack() as renamed:
            for name in (CARD, OUTLINE, *(f"{mode}.tflite" for mode in MODES)):
                shutil.copyfile(folder / name, renamed.enter_context(aside(shipped / name)))


def _convert(
    folder: Path, size: tuple[int, int], source: data_sets.Source, golden: int
) -> dict[str, Any]:
    """Puts the `.tflite` files beside a model; gives what its card says about them."""
    from kfcn_mobile.bundle import read_bundle
    from kfcn_mobile.validate import validate

    from kfcn_tools.convert import convert

    with tempfile.TemporaryDirectory() as temporary:
        bundle = convert(
            folder, Path(temporary) / "bundle", size, data=source, modes=MODES, golden=golden
        )
        report, _ = validate(read_bundle(bundle), runs=10)
        for mode in MODES:
            shutil.copy(bundle / f"{mode}.tflite", folder / f"{mode}.tflite")
    return {
        "size": list(size),
        "golden_images": report["golden_images"],
        "hardware": f"{cpu_name()} ({instruction_set()})",
        "models": [_gist(model, (folder / model["file"])) for model in report["models"]],
    }


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != CARD}


def round_kernels(net: "keras.Model") -> None:
    """Rounds all tensors of two axes and more to half precision, in place."""
    import keras

    for weight in net.weights:
        if len(weight.shape) > 1:
            value = keras.ops.convert_to_numpy(weight)
            weight.assign(value.astype(np.float16).astype(np.float32))


def _changed_labels(
    net: "keras.Model", weights: list[np.ndarray], dataset, images: int = 20
) -> float:
    """Share of the pixels of some images whose label is another one with the given weights."""
    from kfcn.inference.segment import segment

    pictures = [dataset[index].image for index in spread(len(dataset), images)]
    rounded = [segment(net, picture) for picture in pictures]
    kept = net.get_weights()
    net.set_weights(weights)
    exact = [segment(net, picture) for picture in pictures]
    net.set_weights(kept)
    differ = sum(int(np.count_nonzero(a != b)) for a, b in zip(rounded, exact, strict=True))
    return differ / sum(labels.size for labels in exact)


def _gist(model: dict[str, Any], path: Path) -> dict[str, Any]:
    one = next(iter(model["latency"]), {})
    return {
        "file": model["file"],
        "bytes": path.stat().st_size,
        "agreement": model["agreement"],
        "worst_image": model["worst_image"]["agreement"],
        "missed_gates": {miss["gate"]: miss["limit"] for miss in model["failures"]},
        "confident": model["confident"],
        "mean_iou": model["mean_iou"],
        "milliseconds": one.get("median_ms"),
    }


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    cli = Parser(prog="python -m kfcn_tools.ship", description=__doc__)
    cli.formatter_class = argparse.RawDescriptionHelpFormatter
    cli.add_argument("run", type=Path, metavar="RUN")
    cli.add_argument("name", metavar="NAME")
    cli.add_argument("--size", type=int, nargs=2, metavar=("H", "W"))
    cli.add_argument("--data", required=True, metavar="NAME")
    cli.add_argument("--data-dir", metavar="DIR")
    cli.add_argument("--classes", metavar="WHICH")
    cli.add_argument("--split", default="val", metavar="NAME", help="to measure on (val)")
    cli.add_argument("--golden", type=int, default=100, metavar="N")
    cli.add_argument("--example", type=Path, action="append", default=[], metavar="PICTURE")
    cli.add_argument("--facts", type=Path, metavar="FILE.json")
    cli.add_argument("--package", type=Path, default=Path("kfcn/pretrained"), metavar="DIR")
    cli.add_argument("--docs", type=Path, default=Path("docs/pretrained"), metavar="DIR")
    return cli


def work(args: argparse.Namespace) -> None:
    """Ships the net, and writes its page."""
    file = args.docs / f"{args.name}.md"
    if file.is_file() and command(args.name).encode() not in read_bytes(file):
        raise UsageError(f"{file} already exists and is not a page of {args.name}; move it away")
    if not file.is_file() and (others := sorted(args.docs.glob(f"{args.name}_example_*"))):
        raise UsageError(f"{others[0]} already exists, without a page; move it away")
    source = data_sets.Source(args.data, args.data_dir, classes=args.classes)
    out = args.package / args.name
    if args.run.resolve() == out.resolve():
        renew(out, source, args.golden)
    else:
        if args.size is None or args.facts is None:
            raise UsageError("a new net needs --size H W and --facts FILE.json")
        try:
            facts = read_object(args.facts)
        except ValueError as error:
            raise UsageError(f"{args.facts}: {error}; expected an object of facts") from error
        dataset = source.open_for(read_card(args.run), args.split)
        size = (args.size[0], args.size[1])
        ship(args.run, out, size, dataset, source, facts, args.golden, args.example)
    make_folder(args.docs)
    draw(args.name, out, args.docs)
    write_text(file, page(args.name, read_object(out / CARD)))
    print(f"wrote {out} and {file}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
