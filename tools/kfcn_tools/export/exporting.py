"""`export`: a trained net as the file of another runtime, checked before it is there."""

import importlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from kfcn import __version__
from kfcn import data as data_sets
from kfcn.cards import load_with_card
from kfcn.errors import UsageError, counted
from kfcn.files import sha256
from kfcn.labels import IGNORE
from kfcn.outputs import new_folder
from kfcn.rewrite.logits import as_logits
from kfcn.rewrite.walker import in_float32
from kfcn.saved import check_maps, check_scores, check_takes, described, takes
from kfcn_tools.convert.pictures import check_calibration, check_enough, check_size, pictures
from kfcn_tools.export import FORMATS
from kfcn_tools.export.checking import compare, require_equal
from kfcn_tools.export.net import Net
from kfcn_tools.identity import identity

DESCRIPTION = "export.json"
# Neither is a multiple of the other, and 32 divides one of them only.
CHECKED = ((192, 256), (139, 181))
_EVEN = (128, 160)
"""In the place of the second for a net that cannot compute it, as a U-Net."""


def export(
    model: keras.Model | Path | str,
    out: Path | str,
    format: str,
    *,
    scores: bool = False,
    size: tuple[int, int] | None = None,
    quantize: bool = False,
    data: str | data_sets.Source | None = None,
    splits: tuple[str, str] = ("train", "val"),
    calibration: int = 100,
    progress: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes a trained net as the file of another runtime.

    uint8 `image` (N, H, W, 3) RGB in, uint8 `labels` (N, H, W) out, of any batch and size. Names
    and colours of the classes stand in the file. Before the folder appears the file has been run
    beside Keras on images of two sizes, by the format's own runtime; Core ML has none here.

    Args:
        model: a run folder, a `.keras` file with `model.json` beside it, or a net.
        out: the folder to make.
        format: of `FORMATS`.
        scores: float32 `scores` (N, H, W, C), the probabilities of the classes, in place of labels.
        size: (H, W), for files that take images of one size.
        quantize: adds a file in 8 bits, calibrated on pictures of `data`.
        data: the data set whose images the check uses, by its name alone where that suffices;
            without it drawn scenes.
        splits: the names of its split that was trained on, which calibrates, and of the one for
            validation, which checks.
        calibration: training images for 8 bits, at least 4 (`LEAST_CALIBRATION`).
        progress: gets a line before each step.

    Returns:
        `out`, with `export.json` beside what was written.

    Raises:
        UsageError: an argument that makes no sense, a package is missing, or `out` exists.
        KfcnError: the net does not return one map for an RGB image, cannot be written like this,
            or does not give what Keras gives.
    """
    _check(format, size, quantize, data, calibration)
    kind = FORMATS[format]
    module = importlib.import_module(f"kfcn_tools.export.{kind.module}")
    loaded, card = load_with_card(model, check_maps)
    classes = loaded.outputs[0].shape[-1]
    if classes > IGNORE and not scores:
        raise UsageError(
            f"{described(model)} has {classes} classes; 8-bit label maps hold at most {IGNORE}; "
            "export scores (--scores)"
        )
    if not scores:
        check_scores(classes, described(model))
    origin = data_sets.Source(data) if isinstance(data, str) else data
    val = origin.open_for(card, splits[1]) if origin else None
    names, source = identity(model, val)
    info = {
        "format": format,
        "output": "scores" if scores else "labels",
        "kfcn_version": __version__,
        "source": source,
    }
    plain = keras.Model(loaded.inputs[0], loaded.outputs[0], name=loaded.name)
    plain = as_logits(in_float32(plain))
    net = Net(plain, names, scores, info, size)
    dataset = val or data_sets.load("scenes", "val")
    train = origin.open_for(card, splits[0]) if quantize and origin else None
    if train is not None:
        check_enough(train)
    sizes = _sizes(plain, size if kind.fixed_size else None, described(model))
    batches = _batches(dataset, sizes)
    out = Path(out)
    with new_folder(out) as folder:
        progress(f"{format}: writing")
        files = module.write(net, folder)
        (main,) = files.values()
        checked = {}
        if (run := module.opened(net, folder, main)) is not None:
            progress(f"{format}: checking")
            checked["float32"] = compare(run, net, batches)
            require_equal(checked["float32"], format)
        if train is not None:
            count = min(calibration, len(train))
            progress(f"{format}: int8, calibrating on {counted(count, 'image')}")
            at = size or CHECKED[0]
            images = [picture.image for picture in pictures(train, calibration, at)]
            files |= module.quantize(net, folder, main, images)
            run = module.opened(net, folder, files["int8"])
            checked["int8"] = compare(run, net, _batches(dataset, (size,) if size else sizes))
        _describe(folder, net, files, checked)
    return out


def _check(format, size, quantize, data, calibration) -> None:
    if format not in FORMATS:
        raise UsageError(f"format {format!r}: expected {', '.join(FORMATS)}")
    kind = FORMATS[format]
    if quantize and kind.int8 is None:
        able = " or ".join(name for name, other in FORMATS.items() if other.int8 is not None)
        raise UsageError(f"{format} has no int8 file here; expected {able}")
    needs = (*kind.needs, *(kind.int8 or ())) if quantize else kind.needs
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{format} needs {' and '.join(missing)}: pip install 'kfcn[{format}]' brings what is"
            " missing"
        )
    fixed = kind.fixed_size or (quantize and kind.fixed_int8)
    if fixed and size is None:
        what = format if kind.fixed_size else f"{format} in 8 bits"
        raise UsageError(f"{what} takes images of one size: which (--size H W)?")
    if size is not None and not fixed:
        raise UsageError(f"{format} takes images of any size; received the size {size}")
    if size is not None:
        check_size(size)
    if quantize and data is None:
        raise UsageError("int8 is calibrated on training images: which data set (--data NAME)?")
    check_calibration(calibration)


def _sizes(net, size: tuple[int, int] | None, model: str) -> list[tuple[int, int]]:
    """The sizes of the golden images: the only one, or two that the net takes."""
    check_takes(net, size or CHECKED[0], model)
    others = () if size else (CHECKED[1], _EVEN)
    return [size or CHECKED[0], *[other for other in others if takes(net, other)][:1]]


def _batches(dataset, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Golden images: two of one size, one of another."""
    found = [[picture.image for picture in pictures(dataset, 2, each)] for each in sizes]
    return [np.stack(images[: max(1, 2 - i)]) for i, images in enumerate(found)]


def _describe(folder: Path, net: Net, files: dict[str, str], checked: dict) -> None:
    """Writes `export.json`, last: it holds the SHA-256 of every other file."""
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    description = {
        **json.loads(net.card),
        "models": [{"mode": mode, "file": file} for mode, file in files.items()],
        "checked": checked,
        "files": {path.relative_to(folder).as_posix(): sha256(path) for path in written},
    }
    text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
