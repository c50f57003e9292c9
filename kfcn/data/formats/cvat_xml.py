"""CVAT's XML "for images 1.1": its shapes in labelme's form, to be painted as labelme paints them.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from kfcn.data.formats.images import check_memory
from kfcn.data.formats.text import is_name, nfc, read_text
from kfcn.errors import DataError, first_line, received

NAME = "annotations.xml"
_KINDS = {"polygon": "polygon", "polyline": "linestrip", "points": "points"}
"""Elements with a list of points, and what labelme calls them."""
_PAINTED = (*_KINDS, "box", "ellipse", "mask")
_CORNERS = 72
"""Of the polygon that an ellipse is painted as."""
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclasses.dataclass(frozen=True)
class CvatPicture:
    """One `<image>` of the file.

    Attributes:
        name: path of the image, with slashes.
        subset: of the project that it belongs to; empty for none.
        size: height and width as in the file.
        elements: its shapes in the order in which they are painted over each other.
    """

    name: str
    subset: str
    size: tuple[int, int]
    elements: tuple[ElementTree.Element, ...]


@dataclasses.dataclass(frozen=True)
class CvatFile:
    """What an `annotations.xml` holds.

    Attributes:
        pictures: in the order of their names.
        colours: name of each label -> its colour, None where the file gives none; in the order of
            the file. Without any, the names that the shapes have, in alphabetical order.
        left_out: element -> how many of them are no regions, lines or points.
    """

    pictures: tuple[CvatPicture, ...]
    colours: dict[str, tuple[int, int, int] | None]
    left_out: dict[str, int]


def read_cvat(path: Path) -> CvatFile:
    """Reads an `annotations.xml`.

    Raises:
        DataError: it cannot be read, is none of CVAT's for images, or an image has no name or
            size.
    """
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities of entities fill the memory
        raise DataError(f"{path}: has a document type; expected CVAT's XML, which has none")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as XML ({first_line(error)})") from error
    if root.tag != "annotations" or root.find("track") is not None:
        what = "tracks of a video" if root.tag == "annotations" else received(root.tag)
        raise DataError(
            f'{path}: holds {what}; expected annotations of images: export as "CVAT for images 1.1"'
        )
    pictures = tuple(sorted((_picture(path, e) for e in root.iter("image")), key=lambda p: p.name))
    left_out: dict[str, int] = {}
    for element in (child for image in root.iter("image") for child in image):
        if element.tag not in _PAINTED:
            left_out[element.tag] = left_out.get(element.tag, 0) + 1
    colours = _labels(root)
    if not colours:
        names = {_label(path, e) for picture in pictures for e in picture.elements}
        colours = dict.fromkeys(sorted(names))
    return CvatFile(pictures, colours, left_out)


def _picture(path: Path, element: ElementTree.Element) -> CvatPicture:
    name = element.get("name")
    if not is_name(name):
        raise DataError(f"{path}: an image without a name; expected one for each")
    assert name is not None
    sides = [element.get(side, "") for side in ("height", "width")]
    if not all(side.isascii() and side.isdigit() and int(side[:9]) > 0 for side in sides):
        raise DataError(
            f"{path}: {received(name)} has height {received(sides[0])} and width "
            f"{received(sides[1])}; expected two numbers of pixels"
        )
    shapes = [child for child in element if child.tag in _PAINTED]
    # A stable sort: of one depth what comes later in the file lies on top.
    shapes.sort(key=lambda child: _number(child.get("z_order", "0"), 0.0))
    height, width = (int(side[:9]) for side in sides)  # of more digits, none is an image
    try:
        check_memory(height, width, 1)
    except ValueError as error:
        raise DataError(f"{path}: {received(name)}: {error}") from error
    name, subset = nfc(name).replace("\\", "/"), element.get("subset", "")
    return CvatPicture(name, subset, (height, width), tuple(shapes))


def _labels(root: ElementTree.Element) -> dict[str, tuple[int, int, int] | None]:
    """The labels of the task, job or project; the parts of a skeleton are none of their own."""
    found: dict[str, tuple[int, int, int] | None] = {}
    for label in root.iterfind("meta//labels/label"):
        name, colour = label.findtext("name"), label.findtext("color", "")
        if not is_name(name) or label.find("parent") is not None:
            continue
        assert name is not None
        rgb = None
        if _COLOUR.fullmatch(colour):
            red, green, blue = bytes.fromhex(colour[1:])
            rgb = (red, green, blue)
        found.setdefault(nfc(name), rgb)
    return found


def _label(path: Path, element: ElementTree.Element) -> str:
    name = element.get("label")
    if not is_name(name):
        raise DataError(f"{path}: a {element.tag} without a label; expected one for each shape")
    assert name is not None
    return nfc(name)


def as_labelme(path: Path, picture: CvatPicture) -> list[dict[str, Any]]:
    """The shapes of a picture as labelme stores them (`kfcn.data.formats.labelme.paint`).

    A box that is turned and an ellipse become polygons.

    Args:
        path: the file, for errors.
        picture: of it.

    Raises:
        DataError: a shape whose numbers are none.
    """
    found = []
    for number, element in enumerate(picture.elements, start=1):
        try:
            shape = _shape(element)
        except ValueError as error:
            raise DataError(
                f"{path}: shape {number} ({received(element.get('label'))}, {element.tag}) of "
                f"{picture.name:.200} cannot be painted: {first_line(error)}"
            ) from error
        found.append({"label": _label(path, element), **shape})
    return found


def _shape(element: ElementTree.Element) -> dict[str, Any]:
    if element.tag in _KINDS:
        texts = element.get("points", "").split(";")
        pairs = [text.split(",") for text in texts if text.strip()]
        points = [[_finite("points", value) for value in pair] for pair in pairs]
        return {"shape_type": _KINDS[element.tag], "points": points}
    if element.tag == "mask":
        return _mask(element)
    turn = math.radians(_finite("rotation", element.get("rotation", "0")))
    if element.tag == "ellipse":
        x, y, wide, high = (_finite(key, element.get(key)) for key in ("cx", "cy", "rx", "ry"))
        angles = np.arange(_CORNERS) * 2 * math.pi / _CORNERS
        ring = np.stack([wide * np.cos(angles), high * np.sin(angles)], 1)
    else:
        keys = ("xtl", "ytl", "xbr", "ybr")
        left, top, right, bottom = (_finite(key, element.get(key)) for key in keys)
        if not turn:
            return {"shape_type": "rectangle", "points": [[left, top], [right, bottom]]}
        x, y, wide, high = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        ring = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (wide / 2, high / 2)
    # Clockwise as it is seen: y points down.
    cos, sin = math.cos(turn), math.sin(turn)
    turned = ring @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
    return {"shape_type": "polygon", "points": turned.tolist()}


def _mask(element: ElementTree.Element) -> dict[str, Any]:
    """A mask: runs of outside and inside in turn, row by row within a box."""
    keys = ("left", "top", "width", "height")
    left, top, width, height = (_finite(key, element.get(key)) for key in keys)
    runs = [_finite("rle", text) for text in element.get("rle", "").split(",")]
    counts = np.array(runs)
    if width < 1 or height < 1 or counts.min() < 0 or counts.sum() != width * height:
        raise ValueError(
            f"runs of {counts.sum():.0f} pixels; expected those of its box, "
            f"{width:.0f}x{height:.0f}"
        )
    check_memory(int(height), int(width), 1)
    inside = np.arange(len(counts)) % 2 == 1
    pixels = np.repeat(inside, counts.astype(int)).reshape(int(height), int(width))
    return {"shape_type": "mask", "points": [[left, top]], "mask": pixels}


def _finite(key: str, text: str | None) -> float:
    value = _number(text, math.nan)
    if not math.isfinite(value):
        raise ValueError(f"{key} {received(text)}; expected a number")
    return value


def _number(text: str | None, otherwise: float) -> float:
    try:
        return float(text or "")
    except ValueError:
        return otherwise
