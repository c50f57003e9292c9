"""`classes.txt`: one class a line, in the order of the indices.

    background
    red car  #ff0080
    road     128 64 128
    lesion   = 255

A colour as `#rrggbb` or three numbers is what the class is painted in, and what stands for it in
masks that are stored in colours. `= 255` says that masks store the class as this number.
"""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from kfcn.data.formats.text import nfc, read_text
from kfcn.errors import DataError
from kfcn.labels import Classes, voc_colour, voc_coloured

_STORED = re.compile(r"^(?P<rest>.*\S)\s*=\s*(?P<value>\d+)$")
_COLOUR = re.compile(r"^(?P<name>.*\S)\s+(?:#(?P<hex>[0-9a-fA-F]{6})|(?P<rgb>\d+\s+\d+\s+\d+))$")


class ClassFile(NamedTuple):
    """What a file of classes says.

    Attributes:
        classes: the classes; one without a colour has that of the VOC palette.
        stored: the number that masks hold for each class; its index, where the file says nothing.
        coloured: whether the file gives every class a colour.
    """

    classes: Classes
    stored: tuple[int, ...]
    coloured: bool


def read_classes(path: Path) -> Classes:
    """The classes of a `classes.txt`, as `read_class_file` finds them."""
    return read_class_file(path).classes


def read_class_file(path: Path) -> ClassFile:
    """Reads `classes.txt`.

    Raises:
        DataError: the file is missing or empty, a name, colour or stored number occurs twice, or
            a number is out of range.
    """
    try:
        lines = read_text(path).splitlines()
    except DataError as error:
        raise DataError(
            f"{error}; expected a text file with one class a line, in the order of the label's "
            "indices"
        ) from error
    names: list[str] = []
    palette: list[tuple[int, int, int]] = []
    given: dict[tuple[int, int, int], str] = {}
    stored: list[int] = []
    for line in filter(None, map(str.strip, map(nfc, lines))):
        name, colour, value = line, voc_colour(len(names)), len(names)
        fault = None
        if found := _STORED.match(name):
            name, value = found["rest"], int(found["value"])
            if value > 255:
                fault = "a stored number above 255"
        if found := _COLOUR.match(name):
            name = found["name"]
            if found["hex"]:
                red, green, blue = bytes.fromhex(found["hex"])
            else:
                red, green, blue = map(int, found["rgb"].split())
            colour = (red, green, blue)
            if max(colour) > 255:
                fault = "a colour above 255"
            elif colour in given:
                fault = f"the colour of {given[colour]!r}"
            given[colour] = name
        if value in stored:
            fault = f"the stored number of {names[stored.index(value)]!r}"
        if name in names:
            fault = "a class named before"
        if fault:
            raise DataError(f"{path}: line {line!r} has {fault}")
        names.append(name)
        palette.append(colour)
        stored.append(value)
    if not 1 <= len(names) <= 255:
        raise DataError(f"{path}: found {len(names)} classes; expected 1 to 255, one a line")
    classes = Classes(tuple(names), tuple(palette))
    return ClassFile(classes, tuple(stored), len(given) == len(names))


def read_classes_csv(path: Path) -> ClassFile:
    """Roboflow's `_classes.csv`: a head line, then `pixel value, class` for each class.

    The order of the file is that of the indices.

    Raises:
        DataError: the file cannot be read, a line is none of these, a value or name is there
            twice.
    """
    names: list[str] = []
    values: list[int] = []
    for number, row in enumerate(csv.reader(read_text(path).splitlines())):
        row = [nfc(cell.strip()) for cell in row]
        if not any(row) or (number == 0 and not row[0].isdigit()):
            continue
        if len(row) < 2 or not row[0].isdigit() or not 0 <= int(row[0]) <= 255 or not row[1]:
            raise DataError(f"{path}: line {number + 1} is not of the form `pixel value, class`")
        if int(row[0]) in values or row[1] in names:
            raise DataError(f"{path}: line {number + 1} has a value or a class named before")
        values.append(int(row[0]))
        names.append(row[1])
    if not 1 <= len(names) <= 255:
        raise DataError(f"{path}: found {len(names)} classes; expected 1 to 255, one a line")
    return ClassFile(voc_coloured(names), tuple(values), False)
