"""`labelmap.txt`: the classes of a CVAT export, each with the colour that it has in the masks."""

from pathlib import Path

from kfcn.data.formats.text import nfc, read_text
from kfcn.errors import DataError
from kfcn.labels import Classes


def read_labelmap(path: Path) -> Classes:
    """CVAT's `labelmap.txt`: a line `name:r,g,b:parts:actions` for each class.

    Raises:
        DataError: a line is none of these, or two classes share a name or a colour, so that a
            mask does not say which is meant.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for line in map(str.strip, read_text(path).splitlines()):
        if not line or line.startswith("#"):
            continue
        try:
            name, colour = nfc(line).split(":")[:2]
            red, green, blue = (int(value) for value in colour.split(","))
            if not name or not 0 <= min(red, green, blue) <= max(red, green, blue) <= 255:
                raise ValueError
        except ValueError as error:
            raise DataError(
                f"{path}: line {line!r} is not of the form name:red,green,blue:: with numbers from "
                "0 to 255"
            ) from error
        if name in found:
            raise DataError(f"{path}: line {line!r} names the class {name!r} a second time")
        other = next((n for n, c in found.items() if c == (red, green, blue)), None)
        if other is not None:
            raise DataError(
                f"{path}: the classes {other!r} and {name!r} have the same colour, {colour}; give "
                "each its own and export again"
            )
        found[name] = (red, green, blue)
    if not 1 <= len(found) <= 255:
        raise DataError(
            f"{path}: found {len(found)} classes; expected 1 to 255, a line name:red,green,blue:: "
            "for each"
        )
    return Classes(tuple(found), tuple(found.values()))
