"""Data sets seen through something: a memory, a tolerance for bad files, a part of the samples."""

import math
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from kfcn.data.dataset import Dataset, Reading, Sample, spread
from kfcn.data.feed.augment import PAD
from kfcn.data.formats.images import ImageHead
from kfcn.errors import DataError, UsageError
from kfcn.labels import IGNORE

_LOOKED_AT = 32
"""Pictures whose sizes say how large a data set is when decoded."""


class Memory:
    """Bytes that decoded samples may take, of one data set or of several together.

    Args:
        size: how many in all.
    """

    def __init__(self, size: float = 2 << 30):
        self.left = size
        self._lock = threading.Lock()  # samples are read by many threads

    def keep(self, kept: dict[int, Sample], index: int, sample: Sample) -> None:
        """Adds a sample to those that are kept, if there is room."""
        size = sample.image.nbytes + sample.labels.nbytes
        with self._lock:
            if index not in kept and size <= self.left:
                self.left -= size
                kept[index] = sample


class Wrapped(Dataset):
    """Another data set, seen through something."""

    def __init__(self, dataset: Dataset):
        self.name, self.split, self.classes = dataset.name, dataset.split, dataset.classes
        self.notes, self.counts, self.stretch = dataset.notes, dataset.counts, dataset.stretch
        self._dataset = dataset

    def _at(self, index: int) -> int:
        """The sample's index in the other data set."""
        return index

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._at(index)]

    def file_name(self, index: int) -> str:
        return self._dataset.file_name(self._at(index))

    def label_name(self, index: int) -> str:
        return self._dataset.label_name(self._at(index))

    def image_file(self, index: int) -> Path | None:
        return self._dataset.image_file(self._at(index))

    def stored_image(self, index: int) -> Path | bytes | None:
        return self._dataset.stored_image(self._at(index))

    def page(self, index: int) -> int | None:
        return self._dataset.page(self._at(index))

    def head(self, index: int) -> ImageHead:
        return self._dataset.head(self._at(index))

    def label_file(self, index: int) -> Path | None:
        return self._dataset.label_file(self._at(index))

    def joints(self, index: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
        return self._dataset.joints(self._at(index))

    def read_as(self, reading: Reading) -> Self:
        raise TypeError("choose how a data set is read before it is seen through anything")


class _Cached(Wrapped):
    """A data set that keeps what it has decoded, as long as there is room."""

    def __init__(self, dataset: Dataset, memory: Memory):
        super().__init__(dataset)
        self._memory = memory
        self._samples: dict[int, Sample] = {}

    def __getitem__(self, index: int) -> Sample:
        sample = self._samples.get(index)
        if sample is None:
            sample = self._dataset[index]
            self._memory.keep(self._samples, index, sample)
        return sample


class Skipping(Wrapped):
    """A data set some of whose files may turn out to be unreadable.

    The place of such a file is taken by a grey picture without labels (all 255): it takes no part
    in loss and metrics, and the order of all the others stays as it was.

    Args:
        dataset: any data set.
        allowed: how many different files may fail; one more raises its DataError.
        say: called once for each file, with the reason and the count.
    """

    def __init__(self, dataset: Dataset, allowed: int, say: Callable[[str], None]):
        super().__init__(dataset)
        self.allowed, self.say = allowed, say
        self.skipped: dict[int, str] = {}
        self._lock = threading.Lock()  # samples are read by many threads

    def __getitem__(self, index: int) -> Sample:
        try:
            return self._dataset[index]
        except DataError as error:
            with self._lock:
                if index not in self.skipped:
                    if len(self.skipped) >= self.allowed:
                        raise
                    self.skipped[index] = str(error)
                    self.say(f"skipped {error} ({len(self.skipped)} of at most {self.allowed})")
        image = np.full((256, 256, 3), PAD, np.uint8)
        return Sample(image, np.full((256, 256), IGNORE, np.uint8), self.file_name(index))

    def head(self, index: int) -> ImageHead:
        try:
            return self._dataset.head(index)
        except DataError:  # reported when it is read
            return ImageHead((256, 256), 1, False)


class Subset(Wrapped):
    """Some samples of a data set, by their indices: a worker's part of it, or a fold."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]):
        super().__init__(dataset)
        self.counts = None  # of the whole, not of the part
        self._indices = indices

    def _at(self, index: int) -> int:
        return self._indices[index]

    def __len__(self) -> int:
        return len(self._indices)


_PART = re.compile(r"(?P<split>.+)\[(?P<rest>!?)(?P<number>\d+)/(?P<parts>\d+)\]")


def split_of(text: str) -> tuple[str, Callable[[Dataset], Dataset]]:
    """What a split's name means: "train", or a part of one such as "train[0/5]".

    "train[2/5]" is the third of five equal runs of neighbours, in the order of the split, and
    "train[!2/5]" the other four: to choose settings, or to train nets that have not seen a part,
    without touching the files.

    Returns:
        The split's own name, and what makes the part of it.

    Raises:
        UsageError: a part that there is not.
    """
    found = _PART.fullmatch(text)
    if not found:
        return text, lambda dataset: dataset
    number, parts = int(found["number"]), int(found["parts"])
    if number >= parts:
        raise UsageError(f"split {text!r}: expected a part from 0 to {parts - 1}")

    def part(dataset: Dataset) -> Dataset:
        count = len(dataset)
        first, end = count * number // parts, count * (number + 1) // parts
        kept = [*range(first), *range(end, count)] if found["rest"] else range(first, end)
        if not kept:
            raise UsageError(f"split {text!r} has no picture: {dataset.split} has {count} in all")
        subset = Subset(dataset, kept)
        subset.split = text
        return subset

    return found["split"], part


def cached(dataset: Dataset, memory: Memory | None = None) -> Dataset:
    """The data set with a memory for decoded samples, if they are likely to fit.

    That is estimated from the sizes of pictures spread over the whole of it. What is kept never
    takes more than there is room for. A data set that has a memory is given back as it is, so that
    `check`, training and evaluation can share one.

    Args:
        dataset: any data set.
        memory: what the decoded samples may take; None for a `Memory` of its own.
    """
    if isinstance(dataset, _Cached) or not len(dataset):
        return dataset
    memory = memory or Memory()
    places = spread(len(dataset), _LOOKED_AT)
    pixels = sum(math.prod(dataset.size(place)) for place in places) / len(places)
    # Three bytes a pixel of the image, one of the labels.
    return _Cached(dataset, memory) if 4 * pixels * len(dataset) <= memory.left else dataset
