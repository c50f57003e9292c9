"""`classes.txt`: one class per line, in the order of the indices.

    background
    red car  #ff0080
    road     128 64 128
    lesion   = 255

A colour as `#rrggbb` or three numbers is what the class is painted in, and what stands for it in
masks that are stored in colours. `= 255` says that masks store the class as this number; so does a
number before the name (`7 road`, `7: road`), where every line has one. A line that begins with `#`
is a comment; `__ignore__`, labelme's name for what is ignored, is no class.
"""

import contextlib
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kfcn.data.formats.labelme import IGNORE_NAME
from kfcn.data.formats.text import is_name, nfc, read_text, unquoted
from kfcn.errors import DataError, UsageError, shortlist
from kfcn.labels import Classes, coloured, voc_coloured

Colour = tuple[int, int, int]

_STORED = re.compile(r"^(?P<rest>.*\S)\s*=\s*(?P<value>\d+)$")
_COLOUR_ALONE = re.compile(r"#(?P<hex>[0-9a-fA-F]{6})|(?P<rgb>\d+(?:[\s,]+\d+){2})")
_COLOUR = re.compile(rf"^(?P<name>.*\S)\s+(?:{_COLOUR_ALONE.pattern})$")
_NUMBERED = re.compile(r"^(?P<value>\d+)(?:\s*[:;,]\s*|\s+)(?P<rest>\S.*)$")
_COLOUR_FIRST = re.compile(r"^(#[0-9a-fA-F]{6}|\d+[\s,]+\d+[\s,]+\d+)[\s,:]+\D")


class ClassFile(NamedTuple):
    """What a file of classes says.

    Attributes:
        classes: the classes; one without a colour has one of the VOC palette (`coloured`).
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
        text = read_text(path)
    except DataError as error:
        raise DataError(
            f"{error}; expected a text file with one class per line, in the order of the label's "
            "indices"
        ) from error
    return _parsed(text, path)


def class_lines(classes: Classes) -> str:
    """The content of a `classes.txt` that gives these classes when it is read.

    A name that would be taken for something else, such as `1 road`, stands in quotes.

    Raises:
        UsageError: there is a name that cannot stand in such a file.
    """
    wanted = Classes(tuple(map(nfc, classes.names)), classes.palette)
    for quote in ("", '"'):
        lines = [
            f"{quote}{name}{quote} #{bytes(colour).hex()}\n"
            for name, colour in zip(classes.names, classes.palette, strict=True)
        ]
        with contextlib.suppress(DataError):
            found = _parsed("".join(lines), Path("classes.txt"))
            if found.stored == tuple(range(len(classes))) and found.classes == wanted:
                return "".join(lines)
    raise UsageError(
        f"class names that a classes.txt cannot hold: {shortlist(classes.names)}; expected names "
        "and colours that differ, without quotes and blanks around a name"
    )


def _parsed(text: str, path: Path) -> ClassFile:
    # Not `splitlines`, which takes other characters for ends of lines as well.
    lines = [line.strip() for line in re.split(r"[\r\n]+", nfc(text))]
    names: list[str] = []
    palette: list[Colour | None] = []
    given: dict[Colour, str] = {}
    stored: list[int] = []
    ignored_after = None
    for line, number, text in _numbered(list(filter(None, lines))):
        row = _row(text)
        if row.name == IGNORE_NAME:
            ignored_after = len(names) if row.stored is None and number is None else None
            continue
        numbers = (number, row.stored, len(names))
        value = next(value for value in numbers if value is not None)
        fault = None
        if ignored_after:
            fault = f"{IGNORE_NAME} before it; expected that in the first line"
        elif _COLOUR_FIRST.match(line):
            fault = "a colour before its name; expected the name first"
        elif not is_name(row.name):
            fault = "a character that cannot be printed"
        elif value > 255 and (number, row.stored) != (None, None):
            fault = "a stored number above 255"
        elif row.colour is not None and max(row.colour) > 255:
            fault = "a colour above 255"
        elif row.colour in given:
            fault = f"the colour of {given[row.colour]!r}"
        elif row.name in names:
            fault = "a class named before"
        elif value in stored:
            fault = f"the stored number of {names[stored.index(value)]!r}"
        if fault:
            raise DataError(f"{path}: line {line!r} has {fault}")
        if row.colour is not None:
            given[row.colour] = row.name
        palette.append(row.colour)
        names.append(row.name)
        stored.append(value)
    if not 1 <= len(names) <= 255:
        raise DataError(f"{path}: found {len(names)} classes; expected 1 to 255, one per line")
    return ClassFile(coloured(names, palette), tuple(stored), len(given) == len(names))


class _Row(NamedTuple):
    name: str
    colour: Colour | None
    stored: int | None


def _row(text: str) -> _Row:
    """The parts of `NAME [COLOUR] [= NUMBER]`."""
    name, colour, stored = text, None, None
    if found := _STORED.match(name):
        name, stored = found["rest"], int(found["value"])
    if found := _COLOUR.match(name):
        name = found["name"]
        values = bytes.fromhex(found["hex"]) if found["hex"] else re.split(r"[\s,]+", found["rgb"])
        red, green, blue = map(int, values)
        colour = (red, green, blue)
    return _Row(unquoted(name), colour, stored)


def _numbered(lines: list[str]) -> Iterator[tuple[str, int | None, str]]:
    """Each line that names a class, with the number before the name, if all have one."""
    lines = [line for line in lines if not line.startswith("#") or _COLOUR_FIRST.match(line)]
    found = [match for line in lines if (match := _NUMBERED.match(line))]
    different = min(len({match[key] for match in found}) for key in ("value", "rest"))
    colours = any(_COLOUR_ALONE.fullmatch(match["rest"]) for match in found)  # `0 #ff0000`
    if len(lines) < 2 or different < len(lines) or colours or any(map(_STORED.match, lines)):
        yield from ((line, None, line) for line in lines)
    else:
        yield from ((match.string, int(match["value"]), match["rest"]) for match in found)


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
        if not any(row) or (number == 0 and not row[0].isdecimal()):
            continue
        if len(row) < 2 or not row[0].isdecimal() or not 0 <= int(row[0]) <= 255 or not row[1]:
            raise DataError(f"{path}: line {number + 1} is not of the form `pixel value, class`")
        if int(row[0]) in values or row[1] in names:
            raise DataError(f"{path}: line {number + 1} has a value or a class named before")
        values.append(int(row[0]))
        names.append(row[1])
    if not 1 <= len(names) <= 255:
        raise DataError(f"{path}: found {len(names)} classes; expected 1 to 255, one per line")
    return ClassFile(voc_coloured(names), tuple(values), False)
