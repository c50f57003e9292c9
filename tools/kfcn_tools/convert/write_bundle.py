"""Writes a bundle: what a device needs to run a net and to prove that it labels as Keras does.

The layout stands in `kfcn_mobile.bundle`, which reads it.
"""

import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from kfcn_mobile.bundle import LOGITS_STEP, save_array
from kfcn_mobile.description import FORMAT
from PIL import Image

from kfcn.files import save_picture, sha256
from kfcn_tools.convert.pictures import Picture

if TYPE_CHECKING:
    import keras


def keras_logits(model: "keras.Model", image: np.ndarray) -> np.ndarray:
    """A model's logits of one image: uint8 (H, W, 3) in, float32 (H, W, C) out."""
    return np.asarray(model(image[None].astype(np.float32), training=False))[0]


def keras_labels(model: "keras.Model", image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A model's label map and how sure it is.

    Args:
        model: RGB 0..255 in, logits out.
        image: uint8 (H, W, 3).

    Returns:
        uint8 (H, W) labels and float32 (H, W) margin: the highest logit less the second highest.
    """
    return labels_and_margin(keras_logits(model, image))


def labels_and_margin(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of logits (H, W, C) the uint8 label map, and how far the highest is above the second."""
    second, first = np.moveaxis(np.partition(logits, -2, axis=-1)[..., -2:], -1, 0)
    return logits.argmax(-1).astype(np.uint8), first - second


def write_golden(folder: Path, model: "keras.Model", pictures: Sequence[Picture]) -> list[dict]:
    """Writes the golden images of a bundle and returns their entries for `bundle.json`."""
    (folder / "golden").mkdir()
    entries, names = [], collections.Counter()
    for i, picture in enumerate(pictures):
        logits = keras_logits(model, picture.image)
        labels, margin = labels_and_margin(logits)
        names[picture.name] += 1
        # Records may share the name of a file, and reports tell images apart by it.
        again = f" ({names[picture.name]})" * (names[picture.name] > 1)
        entry = {"name": f"{picture.name}{again}"}
        arrays = {"image": picture.image, "labels": labels}
        if picture.labels is not None:
            arrays["truth"] = picture.labels
        for kind, array in arrays.items():
            entry[kind] = f"golden/{i:04d}_{kind}.png"
            save_picture(Image.fromarray(array), folder / entry[kind], "PNG")
        entry["margin"] = f"golden/{i:04d}_margin.npy"
        # Half precision: the margin is only compared with 1.
        save_array(folder / entry["margin"], margin.astype(np.float16))
        # Scores are checked at some pixels: at all of them they would be the largest file by far.
        entry["logits"] = f"golden/{i:04d}_logits.npy"
        some = logits[::LOGITS_STEP, ::LOGITS_STEP]
        save_array(folder / entry["logits"], some.astype(np.float32))
        entries.append(entry)
    return entries


def write_description(
    folder: Path,
    info: dict,
    models: list[dict],
    golden: list[dict],
    scores: Sequence[dict] = (),
) -> None:
    """Writes `bundle.json`, last: it holds the sha256 of every other file.

    Args:
        folder: with all other files in it.
        info: `size`, `classes`, `palette`, `source`, `kfcn_version` and whatever else is known.
        models: `file`, `mode` and details of each `.tflite`.
        golden: as `write_golden` returned them.
        scores: `file`, `mode` and details of each `.tflite` that gives scores.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    description = {
        "format": FORMAT,
        **info,
        "models": models,
        "scores": list(scores),
        "golden": golden,
        "files": {path.relative_to(folder).as_posix(): sha256(path) for path in files},
    }
    text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
    (folder / "bundle.json").write_text(text, encoding="utf-8")
