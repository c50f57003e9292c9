"""`labelmap.txt`: the classes of a CVAT export, each with the colour that it has in the masks."""

from pathlib import Path

from kfcn.errors import DataError
from kfcn.labels import Classes


def read_labelmap(path: Path) -> Classes:
    """CVAT's `labelmap.txt`: a line `name:r,g,b:parts:actions` for each class.

    Raises:
        DataError: a line is none of these.
    """
    names, palette = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, colour = line.split(":")[:2]
            red, green, blue = (int(value) for value in colour.split(","))
        except ValueError as error:
            raise DataError(
                f"{path}: line {line!r} is not of the form name:red,green,blue::"
            ) from error
        names.append(name)
        palette.append((red, green, blue))
    if not names:
        raise DataError(f"{path}: found no class; expected a line name:red,green,blue:: for each")
    return Classes(tuple(names), tuple(palette))
