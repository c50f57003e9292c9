"""`classes.txt`: one class a line, in the order of the indices, each with an optional colour."""

import re
from pathlib import Path

from kfcn.errors import DataError
from kfcn.labels import Classes, voc_colour

_COLOUR = re.compile(r"^(?P<name>.*\S)\s+(?:#(?P<hex>[0-9a-fA-F]{6})|(?P<rgb>\d+\s+\d+\s+\d+))$")


def read_classes(path: Path) -> Classes:
    """Reads `classes.txt`; a class without a colour has the one of the VOC palette.

    Raises:
        DataError: the file is missing or empty, a name occurs twice, a colour is out of range.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); expected a "
            "text file with one class a line, in the order of the label's indices"
        ) from error
    names, palette = [], []
    for line in filter(None, map(str.strip, lines)):
        name, colour = line, voc_colour(len(names))
        if found := _COLOUR.match(line):
            name = found["name"]
            if found["hex"]:
                colour = tuple(bytes.fromhex(found["hex"]))
            else:
                colour = tuple(int(value) for value in found["rgb"].split())
        if name in names or max(colour) > 255:
            what = "a class named before" if name in names else "a colour above 255"
            raise DataError(f"{path}: line {line!r} has {what}")
        names.append(name)
        palette.append(colour)
    if not 1 <= len(names) <= 255:
        raise DataError(f"{path}: found {len(names)} classes; expected 1 to 255, one a line")
    return Classes(tuple(names), tuple(palette))
