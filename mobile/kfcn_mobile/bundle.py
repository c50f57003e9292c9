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
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from kfcn_mobile.gates import MODES

FORMAT = 1
IGNORE_LABEL = 255
LOGITS_STEP = 8


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
    """A bundle whose files all have the sha256 that `bundle.json` names."""

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
        BundleError: a file is missing, changed or unreadable, or the format is a newer one.
    """
    path = Path(path)
    info = _read_json(path / "bundle.json")
    try:
        if info["format"] > FORMAT:
            raise BundleError(
                f"{path / 'bundle.json'}: bundle format {info['format']}, this harness reads up to"
                f" {FORMAT}: use the harness that came with the bundle"
            )
        height, width = (int(n) for n in info["size"])
        classes = tuple(str(name) for name in info["classes"])
        palette = np.array(info["palette"], np.uint8).reshape(len(classes), 3)
        files = dict(info["files"])
        models = tuple(info["models"])
        golden = tuple(info["golden"])
        # A bundle of an earlier kfcn has none.
        scores = tuple(info.get("scores", ()))
        named = [m["file"] for m in (*models, *scores)]
        named += [g[kind] for g in golden for kind in ("image", "labels", "margin")]
        named += [g[kind] for g in golden for kind in ("truth", "logits") if kind in g]
        modes = [m["mode"] for m in (*models, *scores)]
        names = [g["name"] for g in golden]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(
            f"{path / 'bundle.json'}: not a bundle's description ({error!r})"
        ) from None
    for mode in modes:
        if mode not in MODES:
            raise BundleError(f"{path / 'bundle.json'}: unknown mode {mode!r}")
    for name in named:
        if name not in files:
            raise BundleError(f"{path / 'bundle.json'}: no sha256 for {name}")
    for name, expected in files.items():
        _check_file(path, name, expected)
    if not models or not golden:
        raise BundleError(f"{path / 'bundle.json'}: needs at least one model and one golden image")
    for model in (*models, *scores):
        # Bytes 4..8 of every TFLite flatbuffer hold its file identifier.
        with (path / model["file"]).open("rb") as file:
            if file.read(8)[4:] != b"TFL3":
                raise BundleError(f"{path / model['file']}: not a TFLite file")
    read = [
        _read_golden(path, entry, name, (height, width), len(classes))
        for entry, name in zip(golden, names, strict=True)
    ]
    return Bundle(path, (height, width), classes, palette, models, tuple(read), info, scores)


def _read_json(path: Path) -> dict:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file; expected a bundle's folder") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read ({error})") from None
    if not isinstance(info, dict):
        raise BundleError(f"{path}: not a bundle's description")
    return info


def _check_file(root: Path, name: str, expected: str) -> None:
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts:
        raise BundleError(f"{root / 'bundle.json'}: {name!r} points outside the bundle")
    file = root / name
    if not file.is_file():
        raise BundleError(f"{file}: missing")
    if (found := sha256(file)) != expected:
        raise BundleError(
            f"{file}: changed since the bundle was made (sha256 {found[:12]}..., expected"
            f" {str(expected)[:12]}...)"
        )


def _read_golden(root, entry, name, size, num_classes) -> Golden:
    image = _read_png(root / entry["image"], size, "RGB")
    labels = _read_png(root / entry["labels"], size, "L")
    truth = _read_png(root / entry["truth"], size, "L") if "truth" in entry else None
    for kind, found in (("labels", labels), ("truth", truth)):
        if found is not None and ((found >= num_classes) & (found != IGNORE_LABEL)).any():
            raise BundleError(
                f"{root / entry[kind]}: a label is neither below {num_classes} nor {IGNORE_LABEL}"
            )
    margin = _read_array(root / entry["margin"], size)
    logits = None
    if "logits" in entry:
        rows, columns = (-(-n // LOGITS_STEP) for n in size)
        logits = _read_array(root / entry["logits"], (rows, columns, num_classes))
    return Golden(name, image, labels, margin, truth, logits)


def _read_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{path}: cannot be read ({error})") from None
    if values.shape != shape:
        raise BundleError(f"{path}: shape {values.shape}, expected {shape}")
    return values


def _read_png(path: Path, size: tuple[int, int], mode: str) -> np.ndarray:
    # Here, so that the runner needs no Pillow: it is run where there is only LiteRT and NumPy.
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
            found, pixels = picture.mode, np.array(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise BundleError(f"{path}: cannot be read ({error})") from None
    if found != mode or pixels.shape[:2] != size:
        raise BundleError(
            f"{path}: {found} picture of {pixels.shape[0]}x{pixels.shape[1]}, expected {mode} of"
            f" {size[0]}x{size[1]}"
        )
    return pixels
