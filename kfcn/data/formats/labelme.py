"""Label maps and labelme's polygons, there and back.

labelme (https://github.com/wkentaro/labelme) keeps a JSON file beside each image, with polygons
in the order in which they are painted over each other. It knows no holes: what lies inside of
another region comes later in the file.
"""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from kfcn.data.formats.text import read_json
from kfcn.errors import DataError, first_line
from kfcn.labels import IGNORE

BACKGROUND_NAMES = ("background", "_background_")
IGNORE_NAME = "__ignore__"
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


def read_labelme(path: Path, label_of: Mapping[str, int], background: int) -> np.ndarray:
    """Paints the shapes of a labelme file, in their order, as labelme itself does.

    Polygons, rectangles, circles and masks are painted; points and lines have no pixels.

    Args:
        path: the JSON file.
        label_of: name -> label.
        background: the label of what no shape covers.

    Returns:
        uint8 `(H, W)`.

    Raises:
        DataError: the file is none of labelme's, or a shape has a name that is not in `label_of`.
    """
    content = read_json(path)
    try:
        size = (int(content["imageWidth"]), int(content["imageHeight"]))
        picture = Image.new("L", size, background)
        for shape in content["shapes"]:
            name = shape["label"]
            if name not in label_of:
                raise DataError(
                    f"{path}: found a shape named {name!r}; expected one of "
                    f"{', '.join(label_of)}: add it to classes.txt or rename it"
                )
            _paint(picture, shape, label_of[name])
    except (KeyError, TypeError, ValueError, OSError, binascii.Error) as error:
        raise DataError(
            f"{path}: is no file of labelme ({type(error).__name__}: {first_line(error)})"
        ) from error
    return np.array(picture)


def _paint(picture: Image.Image, shape: dict[str, Any], label: int) -> None:
    points = [(float(x), float(y)) for x, y in shape["points"]]
    draw = ImageDraw.Draw(picture)
    kind = shape.get("shape_type") or "polygon"
    if kind == "polygon" and len(points) >= 3:
        draw.polygon(points, fill=label, outline=label)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), label, label)
    elif kind == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = float(np.hypot(x - edge_x, y - edge_y))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), label, label)
    elif kind == "mask":  # a PNG of the shape's box
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as mask:
            box = (int(points[0][0]), int(points[0][1]))
            picture.paste(
                label, (*box, box[0] + mask.width, box[1] + mask.height), mask.convert("1")
            )


def shape_names(path: Path) -> set[str]:
    """The names of the shapes of a labelme file.

    Raises:
        DataError: the file is none of labelme's.
    """
    try:
        return {str(shape["label"]) for shape in read_json(path)["shapes"]}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: is no file of labelme (no {first_line(error)})") from error
