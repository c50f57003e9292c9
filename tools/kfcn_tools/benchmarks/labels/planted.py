"""Errors planted in labels that are right: of which it is known that they are there.

- swapped: the object has another class;
- left out: it has the label of what surrounds it most, as if nobody had drawn it;
- shifted: it lies elsewhere, by 0.3 times the side of a square as large as it.

Objects are connected regions of one class, of 0.2 % to 10 % of the picture.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from kfcn.data.dataset import Dataset, Sample
from kfcn.data.feed.views import Wrapped
from kfcn.errors import UsageError
from kfcn.labels import IGNORE

KINDS = ("swapped", "left out", "shifted")
LEAST, MOST = 0.002, 0.1
"""Of an object, by the pixels of its picture."""
RING = 5
"""How far around an object its surroundings are looked at, in pixels."""
FAR = 0.3
"""By how much an object is shifted, by the side of a square as large as it."""


def objects(labels: np.ndarray) -> list[np.ndarray]:
    """The objects of a label map that an error may be planted in, bool `(H, W)` each.

    Args:
        labels: uint8 `(H, W)`; 255 has no label.
    """
    found = []
    for value in np.unique(labels[labels != IGNORE]).tolist():
        mask = (labels == value).astype(np.uint8)
        count, parts, figures, _ = cv2.connectedComponentsWithStats(mask)
        areas = figures[:, cv2.CC_STAT_AREA] / labels.size
        found += [parts == part for part in range(1, count) if LEAST <= areas[part] <= MOST]
    return found


def surroundings(labels: np.ndarray, region: np.ndarray) -> int:
    """The label that is most frequent around a region; 255 where nothing is labelled."""
    kernel = np.ones((2 * RING + 1, 2 * RING + 1), np.uint8)
    ring = cv2.dilate(region.astype(np.uint8), kernel).astype(bool) & ~region & (labels != IGNORE)
    return int(np.bincount(labels[ring]).argmax()) if ring.any() else IGNORE


def plant(
    labels: np.ndarray, kind: str, classes: int, rng: np.random.Generator
) -> np.ndarray | None:
    """A label map with an error in one of its objects, chosen at random.

    Args:
        labels: uint8 `(H, W)`; 255 has no label.
        kind: of `KINDS`.
        classes: how many there are.
        rng: chooses object, class and direction.

    Returns:
        uint8 `(H, W)`; None where there is no object to plant it in.
    """
    found = objects(labels)
    if not found:
        return None
    region = found[rng.integers(len(found))]
    value = int(labels[region][0])
    if kind == "swapped":
        other = int(rng.integers(classes - 1))
        return np.where(region, other + (other >= value), labels).astype(np.uint8)
    around = surroundings(labels, region)
    if around == IGNORE:
        return None
    wrong = np.where(region, around, labels).astype(np.uint8)
    if kind == "shifted":
        angle, length = rng.uniform(0, 2 * np.pi), FAR * np.sqrt(region.sum())
        move = np.array([[1, 0, length * np.cos(angle)], [0, 1, length * np.sin(angle)]])
        size = region.shape[1], region.shape[0]
        moved = cv2.warpAffine(region.astype(np.uint8), move, size, flags=cv2.INTER_NEAREST)
        wrong[moved.astype(bool)] = value
    return wrong


class Planted(Wrapped):
    """A data set with errors in its labels.

    Args:
        dataset: the right labels.
        share: of the pictures that get an error of each kind.
        seed: of what is planted, and where.

    Attributes:
        wrong: index of a picture -> the kind of its error.
    """

    def __init__(self, dataset: Dataset, share: float, seed: int):
        super().__init__(dataset)
        rng = np.random.default_rng(seed)
        waiting = iter(rng.permutation(len(dataset)).tolist())
        self.wrong: dict[int, str] = {}
        self._labels: dict[int, np.ndarray] = {}
        for kind in KINDS:
            for _ in range(round(share * len(dataset))):
                self._plant(waiting, kind, rng)

    def _plant(self, waiting: Iterator[int], kind: str, rng: np.random.Generator) -> None:
        for index in waiting:
            labels = plant(self._dataset[index].labels, kind, len(self.classes), rng)
            if labels is not None:
                self.wrong[index], self._labels[index] = kind, labels
                return
        raise UsageError(f"too few pictures have an object for an error; {kind} is left over")

    def __getitem__(self, index: int) -> Sample:
        sample = self._dataset[index]
        return sample._replace(labels=self._labels.get(index, sample.labels))
