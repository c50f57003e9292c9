"""Trained nets that come with the package, opened by name: no network, no training.

    net = kfcn.pretrained.load("voc_animals")  # a Keras model: RGB 0..255 to logits, any size
    file = kfcn.pretrained.path("voc_animals")  # for `tf.keras.models.load_model`

Wherever a run or a model is named, in Python and on the command line, such a name stands for it.
Each net is a folder beside this file: `model.keras`, its card `model.json`, its outline,
`int8.tflite` and `float16.tflite`, all listed in the card with their sha256. They are made by
`python -m kfcn_tools.ship`.
"""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfcn.errors import KfcnError, UsageError
from kfcn.files import sha256

if TYPE_CHECKING:
    import keras

FOLDER = Path(__file__).parent
CARD, MODEL = "model.json", "model.keras"
OUTLINE = "outline.json.gz"
"""What opens the model without Keras (`kfcn.inference.runtime.outline`)."""


def names() -> list[str]:
    """The nets that come with the package, in alphabetical order."""
    return sorted(card.parent.name for card in FOLDER.glob(f"*/{CARD}"))


def is_name(model: Path | str) -> bool:
    """Whether this names a net of the package; a file or a run of its name goes first."""
    here = Path(model)
    there = here.is_file() or any((here / file).exists() for file in (MODEL, "config.json"))
    return not there and str(model) in names()


def folder(name: str) -> Path:
    """The folder of a net.

    Raises:
        UsageError: there is no net of this name; the message lists what there is.
    """
    if name not in names():
        raise UsageError(f"no pretrained net {name!r}; expected one of: {', '.join(names())}")
    return FOLDER / name


def card(name: str) -> dict[str, Any]:
    """What is known of a net: classes, palette, data and their terms, metrics, limits, hashes."""
    return json.loads((folder(name) / CARD).read_text(encoding="utf-8"))


def summary(name: str) -> str:
    """One line: what the net knows, and which data it was trained on."""
    facts = card(name)
    known = ", ".join(c for c in facts["classes"] if c != "background")
    return f"{name}: {facts['description']}. Knows {known}. Trained on {facts['trained_on']}."


def path(name: str, file: str = MODEL) -> Path:
    """A file of a net, after its sha256 was compared with the card's.

    Args:
        name: one of `names()`.
        file: one that the card lists: "model.keras", "int8.tflite", "float16.tflite",
            "outline.json.gz" or an example such as "example_1.jpg".

    Raises:
        UsageError: no such net or file.
        KfcnError: the installed file is damaged.
    """
    files = card(name)["files"]
    if file not in files:
        raise UsageError(f"{name} has no {file}; expected one of: {', '.join(files)}")
    found = folder(name) / file
    if not found.is_file() or _sha256(found, found.stat().st_mtime_ns) != files[file]:
        raise KfcnError(
            f"{found}: the installed file is missing or damaged (its sha256 is not the card's); "
            "install kfcn again"
        )
    return found


@functools.cache
def _sha256(file: Path, mtime: int) -> str:
    """Once for a process: a command asks for the path of its net again and again."""
    return sha256(file)


def load(name: str) -> "keras.Model":
    """The net: `(B, H, W, 3)` RGB 0..255 to logits `(B, H, W, C)`, any height and width.

    Raises:
        UsageError: there is no net of this name.
        KfcnError: the installed file is damaged.
    """
    from kfcn.saved import load_model

    return load_model(path(name))
