"""A file of the COCO kind: each region of a class is an annotation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kfcn import __version__
from kfcn.errors import KfcnError, UsageError, first_line
from kfcn.inference.formats.voc import copy_picture, copy_target
from kfcn.inference.writer import Writer
from kfcn.labels import is_background
from kfcn.outputs import Outputs


class CocoWriter(Writer):
    """`annotations/instances_default.json`, and the pictures in `images/`.

    Every connected region of a class is an annotation with a run-length mask, which keeps each
    pixel (a polygon would not). The background has none (`kfcn.labels.is_background`). What an
    earlier run wrote for other pictures stays in the file.
    """

    by_beam = False
    leave = ()  # one file holds everything: what somebody has changed in it cannot be left out

    def __init__(self, outputs: Outputs, names: Sequence[str], palette: Sequence[Sequence[int]]):
        super().__init__(outputs, names, palette)
        objects = [index for index, name in enumerate(names) if not is_background(name)]
        self._category_of = {index: number for number, index in enumerate(objects, start=1)}
        self._written: dict[str, tuple[tuple[int, int], list[dict[str, Any]]]] = {}

    def targets(self, path: Path) -> list[Path]:
        return [copy_target(self.outputs.folder / "images", path)]

    def check(self, paths: Sequence[Path]) -> dict[Path, Path]:
        self.outputs.check([self._file])
        self._earlier()
        return super().check(paths)

    def write(self, path: Path, image: np.ndarray, labels: np.ndarray) -> None:
        (copy,) = self.targets(path)
        copy_picture(self.outputs, path, image, copy)
        height, width = labels.shape
        found = regions(labels, self._category_of)
        self._written[copy.name] = ((height, width), found)

    def finish(self, paths: Sequence[Path]) -> None:
        images, annotations = self._earlier()
        for name, ((height, width), found) in sorted(self._written.items()):
            number = len(images) + 1
            images.append({"id": number, "file_name": name, "height": height, "width": width})
            for region in found:
                annotations.append({"id": len(annotations) + 1, "image_id": number, **region})
        content = {
            "info": {"description": f"predicted by kfcn {__version__}"},
            "licenses": [],
            "images": images,
            "categories": self._categories,
            "annotations": annotations,
        }
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
        self.outputs.write_text(self._file, text)

    def _earlier(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What kfcn wrote before for pictures that are not written now, numbered from 1."""
        if not self._file.is_file() or self.outputs.overwrite:
            return [], []
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            if content["categories"] != self._categories:
                raise UsageError(
                    f"{self._file} holds the classes of another model; choose another --out, or "
                    "write it anew with --overwrite"
                )
            images = [i for i in content["images"] if i["file_name"] not in self._written]
            number_of = {image["id"]: number for number, image in enumerate(images, start=1)}
            annotations = [a for a in content["annotations"] if a["image_id"] in number_of]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KfcnError(f"{self._file} cannot be extended: {first_line(error)}") from error
        return (
            [image | {"id": number_of[image["id"]]} for image in images],
            [
                annotation | {"id": number, "image_id": number_of[annotation["image_id"]]}
                for number, annotation in enumerate(annotations, start=1)
            ],
        )

    @property
    def _categories(self) -> list[dict[str, Any]]:
        return [
            {"id": number, "name": self.names[index], "supercategory": ""}
            for index, number in self._category_of.items()
        ]

    @property
    def _file(self) -> Path:
        return self.outputs.folder / "annotations" / "instances_default.json"


def regions(labels: np.ndarray, category_of: dict[int, int]) -> list[dict[str, Any]]:
    """The connected regions (8 neighbours) of the classes of a label map, as COCO describes them.

    Args:
        labels: uint8 `(H, W)`.
        category_of: class -> category id; other classes have no region.

    Returns:
        A dict for each region with `category_id`, `segmentation` (run lengths down the columns,
        beginning with pixels outside), `area` in pixels, `bbox` (x, y, width, height), `iscrowd`.
    """
    height, width = labels.shape
    numbers = np.zeros((height, width), np.int32)  # of the regions, 0 for none
    found: list[dict[str, Any]] = []
    for label in np.unique(labels).tolist():
        if label not in category_of:
            continue
        mask = (labels == label).astype(np.uint8)
        count, parts, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        inside = parts > 0
        numbers[inside] = parts[inside] + len(found)
        for x, y, w, h, area in boxes[1:count].tolist():
            found.append(
                {
                    "category_id": category_of[label],
                    "area": area,
                    "bbox": [x, y, w, h],
                    "iscrowd": 0,
                }
            )
    columns = numbers.T.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(columns)) + 1])
    ends = np.append(starts[1:], columns.size)
    owners = columns[starts]
    order = np.argsort(owners, kind="stable")  # the runs of each region, in their order
    borders = np.searchsorted(owners[order], np.arange(1, len(found) + 2))
    for number, region in enumerate(found):
        runs = order[borders[number] : borders[number + 1]]
        edges = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        counts = np.diff(np.concatenate([[0], edges, [columns.size]])).tolist()
        if counts[-1] == 0:
            counts.pop()
        region["segmentation"] = {"size": [height, width], "counts": counts}
    return found
