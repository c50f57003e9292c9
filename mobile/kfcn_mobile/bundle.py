"""Reads a bundle and checks every file of it before anything is run.

A bundle is a folder::

    bundle.json                format, classes, size, models, golden images, sha256 of every file
    float32.tflite, ...        one file a mode: image in, label map out
    scores_float32.tflite, ... for some modes: image in, float32 scores out
    golden/0000_image.png      an input image, uint8 RGB, exactly (height, width)
    golden/0000_labels.png     the Keras model's label map, uint8
    golden/0000_margin.npy     float16, difference of the Keras model's two highest logits
    golden/0000_logits.npy     float32, the Keras model's logits of every eighth row and column
    golden/0000_truth.png      the true labels, where the data set has them (255 = ignore)
"""

import hashlib
import io
import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfcn_mobile import description
from kfcn_mobile.description import IGNORE_LABEL, WrongError

LOGITS_STEP = 8
SIGNATURE = "segment"
"""Of a file of label maps: image in, labels out."""


class BundleError(Exception):
    """A bundle that cannot be used; the message is one line that names the file."""


@dataclass(frozen=True)
class Golden:
    """One golden image, read into memory.

    Attributes:
        name: the image's name in its data set.
        image: uint8 (H, W, 3), RGB.
        labels: uint8 (H, W), the Keras model's label map.
        margin: float32 (H, W), >= 0, the Keras model's highest logit less its second highest.
        truth: uint8 (H, W) with 255 = ignore, or None.
        logits: float32 (ceil(H / 8), ceil(W / 8), C), the Keras model's at every eighth row and
            column; None in a bundle of an earlier kfcn.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    margin: np.ndarray
    truth: np.ndarray | None
    logits: np.ndarray | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files all have the sha256 that `bundle.json` names.

    Attributes:
        path: its folder.
        size: (H, W) of its images.
        classes: their names.
        palette: uint8 (C, 3).
        models: `file` and `mode` of each file of label maps.
        golden: its images.
        info: all that `bundle.json` says.
        scores: `file` and `mode` of each file of scores.
    """

    path: Path
    size: tuple[int, int]
    classes: tuple[str, ...]
    palette: np.ndarray
    models: tuple[dict, ...]
    golden: tuple[Golden, ...]
    info: dict
    scores: tuple[dict, ...] = ()


def sha256(path: Path) -> str:
    """The hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bundle(path: str | Path) -> Bundle:
    """Reads `bundle.json`, checks every file against it, and reads the golden images.

    Raises:
        BundleError: a file is missing, changed or unreadable, the description is not one, or its
            format is a newer one.
    """
    path = Path(path)
    file = path / "bundle.json"
    info = read_json(file, "a bundle's folder")
    try:
        parts = description.parts(info)
    except WrongError as error:
        raise BundleError(f"{file}: {error}") from None
    files, models, golden, scores = (parts[key] for key in ("files", "models", "golden", "scores"))
    named = [model["file"] for model in (*models, *scores)]
    named += [entry[kind] for entry in golden for kind in GOLDEN_KINDS if kind in entry]
    for name in named:
        if name not in files:
            raise BundleError(f"{file}: no sha256 for {name}")
    for name, expected in files.items():
        check_file(path, name, expected)
    for model in (*models, *scores):
        check_tflite(path / model["file"])
    size, classes = parts["size"], parts["classes"]
    read = [_read_golden(path, entry, size, len(classes)) for entry in golden]
    return Bundle(
        path, size, classes, parts["palette"], tuple(models), tuple(read), info, tuple(scores)
    )


GOLDEN_KINDS = ("image", "labels", "margin", "truth", "logits")


def checked_labels(
    info: dict[str, Any], size: Any, file: Path
) -> tuple[tuple[int, int], tuple[str, ...], np.ndarray]:
    """Size, class names and palette of a description, once they have been found to be such.

    Args:
        info: with `classes` and `palette`.
        size: what should be `[H, W]`.
        file: where it stands, for messages.

    Returns:
        (H, W), the C names, and the palette as uint8 (C, 3).

    Raises:
        BundleError: one is of another type.
    """
    try:
        return description.labels(info, size)
    except WrongError as error:
        raise BundleError(f"{file}: {error}") from None


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """Reads a file that holds a JSON object.

    Args:
        path: the file.
        expected: what its folder should have been, for the message where there is no such file.

    Raises:
        BundleError: it is missing or cannot be read.
    """
    try:
        if not path.is_file():  # a pipe of that name would never end
            raise BundleError(f"{path}: no such file; expected {expected}")
        info = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise BundleError(f"{path}: cannot be read (its values are nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read ({first_line(error)})") from None
    if not isinstance(info, dict):
        raise BundleError(f"{path}: expected a JSON object, received {reprlib.repr(info)}")
    return info


def check_file(root: Path, name: str, expected: str) -> Path:
    """Finds a file of a folder by the name in its description, and compares its sha256.

    Returns:
        The file with links followed; it lies in the folder.

    Raises:
        BundleError: the name or a link leads out of the folder, or the file is missing or changed.
    """
    # A colon: a drive of Windows, or an address.
    unsafe = any(character in name for character in "\\:\0")
    if unsafe or not name or {"", ".", ".."} & set(name.split("/")):
        raise BundleError(f"{root}: {name!r} points outside the folder")
    try:
        file = (root / name).resolve(strict=True)
    except (OSError, RuntimeError):
        raise BundleError(f"{root / name}: missing") from None
    if not file.is_relative_to(root.resolve()):
        raise BundleError(f"{root / name}: is a link that points outside the folder")
    if not file.is_file():
        raise BundleError(f"{root / name}: missing")
    try:
        found = sha256(file)
    except OSError as error:
        raise BundleError(f"{root / name}: cannot be read ({error.strerror})") from None
    if found != expected:
        raise BundleError(
            f"{root / name}: changed since the bundle was made (sha256 {found[:12]}..., expected"
            f" {expected[:12]}...)"
        )
    return file


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes a `.npy` file.

    By way of the memory: NumPy by itself does not say why a full disk took only a part of it.

    Raises:
        OSError: it could not be written whole.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    try:
        path.write_bytes(content.getbuffer())
    except OSError as error:  # of what is open the system does not say which file it is
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_tflite(path: Path) -> None:
    """Makes sure that a file starts as a TFLite file does.

    Raises:
        BundleError: it does not.
    """
    # Bytes 4..8 of every TFLite flatbuffer hold its file identifier.
    with path.open("rb") as file:
        if file.read(8)[4:] != b"TFL3":
            raise BundleError(f"{path}: not a TFLite file")


def _read_golden(
    root: Path, entry: dict[str, str], size: tuple[int, int], num_classes: int
) -> Golden:
    image = _read_png(root / entry["image"], size, "RGB")
    labels = _read_png(root / entry["labels"], size, "L")
    truth = _read_png(root / entry["truth"], size, "L") if "truth" in entry else None
    if (labels >= num_classes).any():
        raise BundleError(f"{root / entry['labels']}: a label is not below {num_classes}")
    if truth is not None and ((truth >= num_classes) & (truth != IGNORE_LABEL)).any():
        raise BundleError(
            f"{root / entry['truth']}: a label is neither below {num_classes} nor {IGNORE_LABEL}"
        )
    margin = _read_array(root / entry["margin"], size)
    # NaN is above nothing: such a pixel would not be counted where the net is sure.
    if not (margin >= 0).all():
        raise BundleError(f"{root / entry['margin']}: a margin is not a number of 0 or more")
    logits = None
    if "logits" in entry:
        rows, columns = (-(-n // LOGITS_STEP) for n in size)
        logits = _read_array(root / entry["logits"], (rows, columns, num_classes))
        if not np.isfinite(logits).all():
            raise BundleError(f"{root / entry['logits']}: a logit is not a finite number")
    return Golden(entry["name"], image, labels, margin, truth, logits)


def _read_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        # Mapped: a shape that the file cannot hold is an error before any memory is taken.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            raise ValueError("it does not hold an array of floating-point numbers")
        if values.shape != shape:
            raise BundleError(f"{path}: shape {values.shape}, expected {shape}")
        return np.array(values, np.float32)
    except BundleError:
        raise
    except Exception as error:  # a damaged head makes NumPy raise what its parser meets
        raise BundleError(f"{path}: cannot be read ({first_line(error)})") from None


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which the message names already
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_png(path: Path, size: tuple[int, int], mode: str) -> np.ndarray:
    # Here, so that the runner needs no Pillow: it is run where there is only LiteRT and NumPy.
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            # Looked at before it is decoded: a small file can hold an endless picture.
            if picture.mode != mode or (picture.height, picture.width) != size:
                raise BundleError(
                    f"{path}: {picture.mode} picture of {picture.height}x{picture.width}, expected"
                    f" {mode} of {size[0]}x{size[1]}"
                )
            return np.array(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BundleError(f"{path}: cannot be read ({first_line(error)})") from None
