"""Objects outlined in a JSON file of the COCO kind, painted into label maps.

COCO itself and the exports of annotation programs (CVAT, Roboflow, Label Studio, labelme's COCO
converter) use it: `images`, `categories` and `annotations`, each annotation with polygons or a
run-length encoding.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kfcn.data.formats.images import check_memory
from kfcn.data.formats.text import is_name, nfc, read_json
from kfcn.errors import DataError, counted, first_line, received, require, shortlist

_FAR = 10
"""Coordinates may lie this many times the picture's longer side outside of it."""


class Picture(NamedTuple):
    """One entry of `images`; height and width are as in the file, of whatever type."""

    id: int
    file_name: str
    height: Any
    width: Any


class Outline(NamedTuple):
    """One entry of `annotations`.

    Attributes:
        id: of the annotation, for messages.
        category: id of its category.
        area: in pixels; None where the file gives none.
        shape: polygons, float64 `(2 n,)` each, to hold COCO in little memory; a run-length
            encoding; or in words why it is neither.
    """

    id: Any
    category: int
    area: float | None
    shape: list[np.ndarray] | dict | str


class Instances:
    """A file of the COCO kind, by picture.

    Attributes:
        path: the JSON file.
        pictures: in the order of their file names.
        categories: id -> name, in the order of the ids.
        groups: ids of the categories that only group others (their `supercategory`).
        notes: what was left out of it, in words.

    Raises:
        UsageError: pycocotools is not installed.
        DataError: the file is not there, no JSON, or lacks one of the three lists.
    """

    def __init__(self, path: Path):
        self._masks = require("pycocotools.mask", "painting COCO's outlines", "data")
        self.path = path
        content = read_json(path)
        try:
            self.pictures = sorted(
                (_picture(entry) for entry in content["images"]), key=lambda p: p.file_name
            )
            rows = content["categories"]
            names = {_id(row["id"]): nfc(_text(row["name"])) for row in rows}
            if len(names) < len(rows):
                raise ValueError("two categories have the same id")
            self.categories: dict[int, str] = dict(sorted(names.items()))
            parents = {
                nfc(str(row.get("supercategory"))) for row in rows
                if row.get("supercategory") != row["name"]
            }  # fmt: skip
            ids = {picture.id for picture in self.pictures}
            if len(ids) < len(self.pictures):
                raise ValueError("two images have the same id")
            self._outlines, self.notes = self._sorted_in(content["annotations"], ids)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path}: is not a COCO instances file ({type(error).__name__}: "
                f"{first_line(error)}); expected images, categories and annotations"
            ) from error
        used = {outline.category for found in self._outlines.values() for outline in found}
        self.groups = {
            number for number, name in self.categories.items()
            if name in parents and number not in used
        }  # fmt: skip

    def _sorted_in(
        self, annotations: list[dict[str, Any]], ids: set[int]
    ) -> tuple[dict[int, list[Outline]], tuple[str, ...]]:
        """The outlines of each picture, and what was left out."""
        outlines: dict[int, list[Outline]] = {}
        left_out: dict[str, list] = {}
        for item in annotations:
            number = item.get("id")
            image, category = _id(item["image_id"]), _id(item["category_id"])
            if image not in ids:
                left_out.setdefault("of no image in the file", []).append(number)
            elif category not in self.categories:
                left_out.setdefault("of no category in the file", []).append(number)
            elif not item.get("segmentation"):
                left_out.setdefault("without an outline (a box at most)", []).append(number)
            else:
                shape, short = _shape(item["segmentation"])
                if short:
                    left_out.setdefault("with rings under three points", []).append(number)
                if shape:
                    outline = Outline(number, category, _area(item.get("area")), shape)
                    outlines.setdefault(image, []).append(outline)
        notes = tuple(
            f"{self.path.name}: {counted(len(numbers), 'annotation')} {what} left out: "
            f"number {shortlist(map(received, numbers))}"
            for what, numbers in left_out.items()
        )
        return outlines, notes

    def outlines(self, picture: Picture) -> list[Outline]:
        """The objects of a picture, crowds among them, in the order of the file."""
        return self._outlines.get(picture.id, [])

    def paint(
        self,
        picture: Picture,
        label_of: Mapping[int, int],
        size: tuple[int, int],
        background: int = 0,
    ) -> np.ndarray:
        """The label map of a picture.

        Objects are painted from the largest to the smallest, so that a small one in front of a
        large one is seen whole; where the file gives no area, the object's pixels are counted. A
        crowd is painted like any object: its pixels are of its class.

        Args:
            picture: one of `pictures`.
            label_of: category id -> label; objects of other categories are background.
            size: height and width of the image itself.
            background: the label of what no object covers.

        Returns:
            uint8 `(H, W)`.

        Raises:
            DataError: the file gives another size, or an outline that cannot be painted.
        """
        self._check_size(picture, size)
        found = [outline for outline in self.outlines(picture) if outline.category in label_of]
        runs = [self._runs(picture, outline, size) for outline in found]
        areas = [
            outline.area or int(counts[1::2].sum())
            for outline, counts in zip(found, runs, strict=True)
        ]
        labels = np.full(size[0] * size[1], background, np.uint8)  # column after column
        for index in sorted(range(len(found)), key=lambda index: -areas[index]):
            edges = np.cumsum(runs[index]).tolist()
            for first, end in zip(edges[::2], edges[1::2], strict=False):
                labels[first:end] = label_of[found[index].category]
        return np.ascontiguousarray(labels.reshape(size[::-1]).T)

    def pixels(self, picture: Picture, categories: Iterable[int], size: tuple[int, int]) -> int:
        """How many pixels of a picture the objects of these categories cover."""
        return int(np.count_nonzero(self.paint(picture, dict.fromkeys(categories, 1), size)))

    def _check_size(self, picture: Picture, size: tuple[int, int]) -> None:
        """Raises a DataError unless the numbers of the file are those of the image."""
        stored = (picture.height, picture.width)
        names = zip(("height", "width"), stored, size, strict=True)
        wrong = [
            (what, value)
            for what, value, real in names
            if value is not None and (isinstance(value, (str, bool)) or value != real)
        ]
        if wrong:
            what, value = wrong[0]
            raise DataError(
                f"{self.path}: {what} {received(value)} of {picture.file_name:.200}; the image is "
                f"{size[0]}x{size[1]} (height x width): export again"
            )
        try:
            check_memory(*size, 1)
        except ValueError as error:
            raise DataError(f"{self.path}: {picture.file_name:.200}: {error}") from error

    def _runs(self, picture: Picture, outline: Outline, size: tuple[int, int]) -> np.ndarray:
        """The pixels of an object as run lengths, down the columns, of outside and inside in turn.

        As such they are painted: a mask of the whole picture for each of a hundred objects took 5 s
        at 20 megapixels, the runs take 0.1.
        """
        try:
            if isinstance(outline.shape, str):
                raise ValueError(outline.shape)
            if isinstance(outline.shape, dict):
                return _checked_runs(outline.shape, size)
            far = _FAR * max(size)
            for ring in outline.shape:
                if ring.min() < -far or ring.max() > far:
                    raise ValueError(f"a coordinate far outside of its {size[0]}x{size[1]} pixels")
            rings = self._masks.frPyObjects([ring.tolist() for ring in outline.shape], *size)
            return np.array(_unpacked(self._masks.merge(rings)["counts"].decode()), np.int64)
        except ValueError as error:
            raise DataError(
                f"{self.path}: annotation {received(outline.id)} of {picture.file_name:.200} "
                f"cannot be painted: {first_line(error)}"
            ) from error


def _picture(entry: dict[str, Any]) -> Picture:
    name = nfc(_text(entry["file_name"])).replace("\\", "/")
    return Picture(_id(entry["id"]), name, entry.get("height"), entry.get("width"))


def _id(value: Any) -> Any:
    """An id, the same for 7, 7.0 and "7", which programs write for one another."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> str:
    if not is_name(value):
        raise TypeError(f"expected a name, found {received(value)}")
    return value


def _area(value: Any) -> float | None:
    """The area of an annotation; None for what is none (missing, null, 0, a word, NaN)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 < value < 1e300 else None  # JSON's numbers may be beyond a float


def _shape(stored: Any) -> tuple[list[np.ndarray] | dict | str, bool]:
    """A `segmentation` as `Outline.shape`, and whether rings were too short to be taken.

    Beside COCO's list of rings `[[x, y, x, y, ...], ...]` a ring alone, its points as pairs, and a
    list of such rings are taken.
    """
    if isinstance(stored, dict):
        return stored, False
    try:
        if not isinstance(stored, list):
            raise ValueError(f"an outline of the type {type(stored).__name__}")
        if _numbers(stored) or (len(stored) > 2 and all(_pair(point) for point in stored)):
            stored = [stored]
        rings = [_ring(ring) for ring in stored]
    except ValueError as error:
        return str(error), False
    kept = [ring for ring in rings if len(ring) >= 6]
    return kept, len(kept) < len(rings)


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )


def _pair(point: Any) -> bool:
    return _numbers(point) and len(point) == 2


def _ring(stored: Any) -> np.ndarray:
    """One ring, flat or as pairs, as float64 `(2 n,)`."""
    if isinstance(stored, list) and stored and all(_pair(point) for point in stored):
        stored = [value for point in stored for value in point]
    if not _numbers(stored):
        raise ValueError("a ring that is not a list of numbers")
    if len(stored) % 2:
        raise ValueError(f"a ring of {len(stored)} numbers; expected pairs of x and y")
    try:
        ring = np.array(stored, float)
    except OverflowError as error:
        raise ValueError("a coordinate that is not a finite number") from error
    if not np.isfinite(ring).all():
        raise ValueError("a coordinate that is not a finite number")
    return ring


def _checked_runs(code: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The runs of a run-length encoding, plain or packed into a string, as int64 `(n,)`.

    Raises:
        ValueError: it has another size, or its runs do not cover the picture exactly.
    """
    stored = code.get("size")
    if not isinstance(stored, list) or [type(side) for side in stored] != [int, int]:
        raise ValueError(f"a run-length mask of size {received(stored)}; expected [height, width]")
    if tuple(stored) != tuple(size):
        raise ValueError(
            f"a run-length mask of {stored[0]}x{stored[1]}; the image is {size[0]}x{size[1]}"
        )
    counts = code.get("counts")
    if isinstance(counts, str):
        counts = _unpacked(counts)
    if not isinstance(counts, list) or any(type(run) is not int or run < 0 for run in counts):
        raise ValueError("run lengths that are not a list of counts")
    total = size[0] * size[1]
    if sum(counts) != total:
        raise ValueError(f"run lengths that add up to {sum(counts)}; expected {total}")
    return np.array(counts, np.int64)


def _unpacked(text: str) -> list[int]:
    """COCO's packed run lengths: five bits a character, from the third run on as differences."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("run lengths that are not packed counts")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths that end within a number")
    return counts
