"""Label maps and labelme's polygons, there and back.

labelme (https://github.com/wkentaro/labelme) keeps a JSON file beside each image, with polygons
in the order in which they are painted over each other. It knows no holes: what lies inside of
another region comes later in the file.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from kfcn.data.formats.images import check_memory, open_image
from kfcn.data.formats.text import is_name, nfc, read_json
from kfcn.errors import DataError, counted, first_line, received
from kfcn.labels import IGNORE

BACKGROUND_NAMES = ("background", "_background_")
"""Of the class of what no shape covers, in files of shapes. A class `void` that somebody has drawn
is one of its own."""
IGNORE_NAME = "__ignore__"
NO_OBJECTS = (*BACKGROUND_NAMES, IGNORE_NAME)
"""Names of shapes that stand for no class of objects."""
LINE, POINT = 10, 5
"""Width of a line and radius of a point, in pixels, as labelme paints them."""
_ANY = 1_000_000
_POINTS = {
    "polygon": (3, _ANY),
    "rectangle": (2, 4),
    "oriented_rectangle": (4, 4),
    "rotation": (4, 4),
    "quadrilateral": (4, 4),
    "circle": (2, 2),
    "line": (2, 2),
    "linestrip": (2, _ANY),
    "point": (1, 1),
    "points": (1, _ANY),
    "mask": (1, 4),
}
"""Types of shapes, each with the least and greatest number of its points."""
_FAR = 3
"""Points may lie this many times the picture's longer side outside of it."""
TOLERANCE = 0.75
"""How far a traced outline may be off the pixels' centres, in pixels."""


def to_labelme(labels: np.ndarray, names: Sequence[str], image_path: str) -> dict[str, Any]:
    """A label map as the content of a labelme file.

    Every region becomes a polygon of its outer outline; the larger come first, so that what lies
    inside of them is painted over them. A background that nothing has covered needs none.

    Args:
        labels: uint8 `(H, W)`.
        names: of the classes.
        image_path: where labelme finds the image, seen from the JSON file.
    """
    height, width = labels.shape
    shapes = []
    for label in np.unique(labels).tolist():
        name = IGNORE_NAME if label == IGNORE else names[label]
        for ring in _outlines(labels == label):
            covered = _covered(ring)
            on_border = _touches_border(ring, height, width)
            if name in BACKGROUND_NAMES and on_border:
                continue
            shapes.append((covered, name, ring))
    shapes.sort(key=lambda shape: -shape[0])
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {
                "label": name,
                "points": _simplified(ring).tolist(),
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            }
            for _, name, ring in shapes
        ],
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The outer outlines of the regions of a mask: float64 `(n, 2)` x, y of border pixels' centres.

    Specks that are less than a triangle are left out.
    """
    from contourpy import FillType, contour_generator

    padded = np.pad(mask, 1).astype(np.float64)
    # Close to 1, the level runs through the centres of the border pixels once it is rounded.
    tracer = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    rings = []
    for points, offsets in zip(*tracer.filled(0.999, 2.0), strict=True):
        ring = np.round(points[offsets[0] : offsets[1]]) - 1
        ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
        if len(ring) >= 3:
            rings.append(ring)
    return rings


def _covered(ring: np.ndarray) -> float:
    """Pixels inside and on a ring of pixel centres (Pick's theorem)."""
    x, y = ring.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    return area + len(ring) / 2 + 1


def _touches_border(ring: np.ndarray, height: int, width: int) -> bool:
    return bool((ring <= 0).any() or (ring >= (width - 1, height - 1)).any())


def _simplified(ring: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """The ring with fewer points, none of the others further than `tolerance` from it.

    Douglas and Peucker (1973), from the two points that are furthest apart.
    """
    start = int(np.argmax(((ring - ring[0]) ** 2).sum(1)))
    ring = np.roll(ring, -start, axis=0)
    middle = int(np.argmax(((ring - ring[0]) ** 2).sum(1)))
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), bool)
    keep[[0, middle]] = True
    stack = [(0, middle), (middle, len(ring))]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        inner = closed[first + 1 : last]
        chord = closed[last] - closed[first]
        length = np.hypot(*chord)
        offset = inner - closed[first]
        if length:
            distance = np.abs(chord[0] * offset[:, 1] - chord[1] * offset[:, 0]) / length
        else:
            distance = np.hypot(*offset.T)
        worst = int(np.argmax(distance))
        if distance[worst] > tolerance:
            keep[first + 1 + worst] = True
            stack += [(first, first + 1 + worst), (first + 1 + worst, last)]
    kept = ring[keep[:-1]]
    return kept if len(kept) >= 3 else ring[[0, middle // 2, middle]]


def read_labelme(
    path: Path,
    label_of: Mapping[str, int],
    background: int,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Paints the shapes of a labelme file, in their order, as labelme itself does.

    Lines are `LINE` pixels wide and a point is a disc of radius `POINT`, as in labelme's
    `shape_to_mask`. `rotation` and `quadrilateral` are what other programs call a rectangle that
    is turned, `points` several points of one name.

    Args:
        path: the JSON file.
        label_of: name -> label.
        background: the label of what no shape covers.
        size: height and width of the image itself; None for those that the file gives.

    Returns:
        uint8 `(H, W)`.

    Raises:
        DataError: the file is none of labelme's, gives another size than the image has, or a
            shape has a name that is not in `label_of`, an unknown type or impossible points.
    """
    content = read_json(path)
    return paint(
        str(path), _shapes(path, content), label_of, background, _size(path, content, size)
    )


def paint(
    source: str,
    shapes: Sequence[Mapping[str, Any]],
    label_of: Mapping[str, int],
    background: int,
    size: tuple[int, int],
) -> np.ndarray:
    """Paints shapes as labelme's files have them; those of other programs are brought to that form.

    Args:
        source: what an error names.
        shapes: each with `label`, `shape_type` and `points`, of which those of a mask are its
            upper left corner, and its `mask` an array, bool `(h, w)`, or as labelme stores it.
        label_of: name -> label.
        background: the label of what no shape covers.
        size: height and width.

    Returns:
        uint8 `(H, W)`.

    Raises:
        DataError: a shape has a name that is not in `label_of`, an unknown type or impossible
            points.
    """
    height, width = size
    picture = Image.new("L", (width, height), background)
    for number, shape in enumerate(shapes, start=1):
        name = nfc(shape["label"])
        if name not in label_of:
            raise DataError(
                f"{source}: found a shape named {received(name)}; expected one of "
                f"{', '.join(label_of)}: add it to classes.txt or rename it"
            )
        try:
            _paint(picture, shape, label_of[name])
        except Exception as error:  # of a mask's PNG, whatever Pillow raises
            kind = shape.get("shape_type")
            raise DataError(
                f"{source}: shape {number} ({received(name)}, {received(kind)}) cannot be "
                f"painted: {first_line(error)}"
            ) from error
    return np.array(picture)


def _size(path: Path, content: dict[str, Any], size: tuple[int, int] | None) -> tuple[int, int]:
    """The size of a file's label map, once file and image are known to agree on it."""
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if size is None or (height, width) != (None, None):
        if type(height) is not int or type(width) is not int or min(height, width) < 1:
            raise DataError(
                f"{path}: imageHeight {received(height)} and imageWidth {received(width)}; "
                "expected two numbers of pixels"
            )
        if size is not None and (height, width) != tuple(size):
            raise DataError(
                f"{path}: imageHeight {height} and imageWidth {width}; the image is "
                f"{size[0]}x{size[1]} (height x width): open it in labelme and save it again"
            )
        size = height, width
    try:
        check_memory(*size, 1)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return size


def _shapes(path: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    """The shapes of a file, each with a name."""
    shapes = content.get("shapes")
    if not isinstance(shapes, list) or not all(
        isinstance(shape, dict) and is_name(shape.get("label")) for shape in shapes
    ):
        raise DataError(f"{path}: is not a labelme file; expected `shapes`, each with a `label`")
    return shapes


def _paint(picture: Image.Image, shape: Mapping[str, Any], label: int) -> None:
    """Paints one shape; raises a ValueError where it cannot be."""
    kind = shape.get("shape_type") or "polygon"
    if not isinstance(kind, str) or kind not in _POINTS:
        raise ValueError(f"unknown type {received(kind)}; expected one of {', '.join(_POINTS)}")
    points = _points(shape.get("points"), picture.size)
    least, most = _POINTS[kind]
    if not least <= len(points) <= most:
        wanted = f"{least}" if least == most else f"{least} or more" if most > 4 else "2 or 4"
        raise ValueError(f"{counted(len(points), 'point')}; expected {wanted}")
    draw = ImageDraw.Draw(picture)
    if kind == "mask":
        mask = shape.get("mask")
        mask = mask if isinstance(mask, np.ndarray) else _stored_mask(mask)
        left, top = (math.floor(value + 0.5) for value in points[0])
        picture.paste(label, (left, top), Image.fromarray(mask))
    elif kind in ("line", "linestrip"):
        draw.line(points, fill=label, width=LINE)
    elif kind in ("point", "points"):
        for x, y in points:
            draw.ellipse((x - POINT, y - POINT, x + POINT, y + POINT), label, label)
    elif kind == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(x - edge_x, y - edge_y)
        if radius > _FAR * max(picture.size):  # minutes, in Pillow
            raise ValueError(f"a radius of {radius:.0f} pixels, far larger than the image")
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), label, label)
    elif kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), label, label)
    elif len(points) == 3 and kind != "polygon":
        raise ValueError("3 points; expected 2 or 4")
    else:
        draw.polygon(points, fill=label, outline=label)


def _points(stored: Any, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Pairs of x and y as finite numbers that lie in the picture or near it."""
    if not isinstance(stored, list):
        raise ValueError("not a list of points")
    points, far = [], _FAR * max(size)
    for point in stored:
        pair = isinstance(point, list) and len(point) == 2
        if not pair or any(type(value) not in (int, float) for value in point):
            raise ValueError(f"found the point {str(point)[:60]}; expected [x, y]")
        # Written so that NaN is refused as well.
        if not all(abs(value) <= far for value in point):
            raise ValueError(f"the point {str(point)[:60]} is far outside of the image")
        points.append((float(point[0]), float(point[1])))
    return points


def _stored_mask(stored: Any) -> np.ndarray:
    """The pixels of a mask, bool `(h, w)`: a PNG in base64, in which all but 0 is inside.

    Not by Pillow's conversion to black and white: labelme writes zeros and ones, and a one is
    nearly black.
    """
    if not isinstance(stored, str):
        raise ValueError("a mask without its picture")
    with open_image(base64.b64decode(stored), None) as mask:
        pixels = np.array(mask.convert("RGB") if len(mask.getbands()) > 1 else mask)
    return np.atleast_3d(pixels).max(axis=-1) > 0


def shape_names(path: Path) -> set[str]:
    """The names of the shapes of a labelme file.

    Raises:
        DataError: the file is none of labelme's.
    """
    return {nfc(shape["label"]) for shape in _shapes(path, read_json(path))}


def embedded_image(path: Path) -> bytes | None:
    """The image file that a labelme file holds within it (`imageData`); None where it does not.

    Raises:
        DataError: what it holds is no base64.
    """
    stored = read_json(path).get("imageData")
    if not stored:
        return None
    try:
        return base64.b64decode(stored)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: imageData is not an image in base64 ({first_line(error)})"
        ) from error
