"""Checks what `bundle.json` says of a bundle: each part is there and of its type."""

import re
import reprlib
from typing import Any

import numpy as np

from kfcn_mobile.gates import MODES

FORMAT = 1
IGNORE_LABEL = 255


class WrongError(Exception):
    """A value of a description that is not what it must be."""


def parts(info: dict[str, Any]) -> dict[str, Any]:
    """The parts of a description, once each has been found to be of its type.

    Returns:
        `size`, `classes` and `palette` as `labels` gives them, `files` (name -> sha256), `golden`,
        and of `models` and `scores` each `file` and `mode`.

    Raises:
        WrongError: one is missing or of another type, or the format is a newer one.
    """
    newest = _expect(info, "format", "a whole number", _whole)
    if newest > FORMAT:
        raise WrongError(
            f"bundle format {newest}, this harness reads up to {FORMAT}: use the harness that came"
            " with the bundle"
        )
    size, classes, palette = labels(info, info.get("size"))
    files = _expect(info, "files", "names with their sha256", _hashes)
    models = _expect(info, "models", "a list of one or more files", _entries)
    golden = _expect(info, "golden", "a list of one or more images", _entries)
    # A bundle of an earlier kfcn has none.
    scores = _expect(info, "scores", "a list", _entries) if info.get("scores") else []
    for key, entries in (("models", models), ("scores", scores)):
        for i, entry in enumerate(entries):
            place = f"{key}[{i}]."
            _expect(entry, "file", "the name of a file", _text, place)
            _expect(entry, "mode", f"one of {', '.join(MODES)}", _mode, place)
        modes = [entry["mode"] for entry in entries]
        if len(set(modes)) < len(modes):
            raise WrongError(f"{key}: two files of the same mode in {', '.join(modes)}")
    for i, entry in enumerate(golden):
        # A file's name in its data set may have any letters; the others are files of the bundle.
        _expect(entry, "name", "a text", _letters, f"golden[{i}].")
        for key in ("image", "labels", "margin"):
            _expect(entry, key, "a text", _text, f"golden[{i}].")
        for key in ("truth", "logits"):
            if key in entry:
                _expect(entry, key, "the name of a file", _text, f"golden[{i}].")
    names = [entry["name"] for entry in golden]
    if twice := [name for name in names if names.count(name) > 1]:  # reports go by the name
        raise WrongError(f"golden: two images with the name {twice[0]!r}; expected different ones")
    if "source" in info:
        _expect(info, "source", "an object", lambda value: isinstance(value, dict))
    return {
        "size": size,
        "classes": classes,
        "palette": palette,
        "files": files,
        "golden": golden,
        # Nothing else that is said of a file: a report tells what was measured.
        "models": [{key: entry[key] for key in ("file", "mode")} for entry in models],
        "scores": [{key: entry[key] for key in ("file", "mode")} for entry in scores],
    }


def labels(info: dict[str, Any], size: Any) -> tuple[tuple[int, int], tuple[str, ...], np.ndarray]:
    """Size, class names and palette, once they have been found to be such.

    Raises:
        WrongError: one is missing or of another type.
    """
    _expect({"size": size}, "size", "two whole numbers, height and width", _size)
    names = _expect(info, "classes", "a list of 1 to 255 different names", _names)
    palette = _expect(
        info, "palette", f"{len(names)} colours of three numbers, 0 to 255", _palette(len(names))
    )
    return (size[0], size[1]), tuple(names), np.array(palette, np.uint8)


def _expect(values, key, expected, holds, place=""):
    if key not in values:
        raise WrongError(f"{place}{key} is missing; expected {expected}")
    if not holds(values[key]):
        received = reprlib.repr(values[key])
        raise WrongError(f"{place}{key}: expected {expected}, received {received}")
    return values[key]


def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _letters(value):
    # No halves of a character (UTF-16's), which no file can hold.
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _text(value):
    return _letters(value) and bool(value) and not any(c < " " for c in value)


def _mode(value):
    return isinstance(value, str) and value in MODES


def _size(value):
    return isinstance(value, list) and len(value) == 2 and all(_whole(n) and n > 0 for n in value)


def _names(value):
    return (
        isinstance(value, list)
        and 0 < len(value) <= IGNORE_LABEL
        and all(map(_text, value))
        and len(set(value)) == len(value)
    )


def _palette(count):
    def colour(value):
        return (
            isinstance(value, list)
            and len(value) == 3
            and all(_whole(n) and 0 <= n <= 255 for n in value)
        )

    return lambda value: isinstance(value, list) and len(value) == count and all(map(colour, value))


def _hashes(value):
    return isinstance(value, dict) and all(
        _text(name) and isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
        for name, digest in value.items()
    )


def _entries(value):
    return isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value)
