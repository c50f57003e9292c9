"""Objects outlined in a JSON file of the COCO kind, painted into label maps.

COCO itself and the exports of annotation programs (CVAT, labelme's COCO converter) use it:
`images`, `categories` and `annotations`, each annotation with polygons or a run-length encoding.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from kfcn.data.formats.text import read_json
from kfcn.errors import DataError, first_line


class Picture(NamedTuple):
    """One entry of `images`."""

    id: int
    file_name: str
    height: int
    width: int


class Outline(NamedTuple):
    """One entry of `annotations`; polygons are float64 arrays, to hold COCO in little memory."""

    category: int
    area: float
    shape: list[np.ndarray] | dict


class Instances:
    """A file of the COCO kind, by picture.

    Attributes:
        path: the JSON file.
        pictures: in the order of their file names.
        categories: id -> name, in the order of the ids.

    Raises:
        DataError: the file is not there, no JSON, or lacks one of the three lists.
    """

    def __init__(self, path: Path):
        self.path = path
        content = read_json(path)
        try:
            pictures = [
                Picture(p["id"], p["file_name"], p["height"], p["width"]) for p in content["images"]
            ]
            self.categories: dict[int, str] = {
                c["id"]: c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])
            }
            self._outlines: dict[int, list[Outline]] = {}
            for item in content["annotations"]:
                if (shape := item.get("segmentation")) and item["category_id"] in self.categories:
                    outline = Outline(
                        item["category_id"],
                        float(item.get("area", 0.0)),
                        shape if isinstance(shape, dict) else [np.asarray(p, float) for p in shape],
                    )
                    self._outlines.setdefault(item["image_id"], []).append(outline)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path}: is no instances file of the COCO kind ({type(error).__name__}: "
                f"{first_line(error)}); expected images, categories and annotations"
            ) from error
        self.pictures = sorted(pictures, key=lambda picture: picture.file_name)

    def outlines(self, picture: Picture) -> list[Outline]:
        """The objects of a picture, crowds among them, in the order of the file."""
        return self._outlines.get(picture.id, [])

    def paint(self, picture: Picture, label_of: dict[int, int]) -> np.ndarray:
        """The label map of a picture.

        Objects are painted from the largest to the smallest, so that a small one in front of a
        large one is seen whole. A crowd is painted like any object: its pixels are of its class.

        Args:
            picture: one of `pictures`.
            label_of: category id -> label; objects of other categories are background.

        Returns:
            uint8 `(H, W)`, 0 where there is no object.
        """
        labels = np.zeros((picture.height, picture.width), np.uint8)
        found = [outline for outline in self.outlines(picture) if outline.category in label_of]
        for outline in sorted(found, key=lambda outline: -outline.area):
            labels[self._mask(picture, outline)] = label_of[outline.category]
        return labels

    def pixels(self, picture: Picture, categories) -> int:
        """How many pixels of a picture the objects of these categories cover."""
        return int(np.count_nonzero(self.paint(picture, dict.fromkeys(categories, 1))))

    def _mask(self, picture: Picture, outline: Outline) -> np.ndarray:
        masks = _pycocotools(self.path)
        size = (picture.height, picture.width)
        try:
            if isinstance(outline.shape, dict):  # run lengths: a list, or packed into a string
                shape = outline.shape
                code = masks.frPyObjects(shape, *size) if _is_plain(shape) else shape
            else:
                code = masks.merge(masks.frPyObjects([p.tolist() for p in outline.shape], *size))
            mask = masks.decode(code).astype(bool)
        except Exception as error:  # whatever a malformed outline makes the C code raise
            raise DataError(
                f"{self.path}: an outline of {picture.file_name} cannot be read: "
                f"{first_line(error)}"
            ) from error
        if mask.shape != size:
            raise DataError(
                f"{self.path}: a run-length mask of {picture.file_name} is {mask.shape}; expected "
                f"{size} (height, width)"
            )
        return mask


def _is_plain(shape: dict) -> bool:
    return isinstance(shape["counts"], list)


def _pycocotools(path: Path):
    try:
        from pycocotools import mask
    except ImportError as error:
        raise DataError(
            f"{path}: outlines of the COCO kind are painted with pycocotools; "
            "pip install 'kfcn[data]'"
        ) from error
    return mask
