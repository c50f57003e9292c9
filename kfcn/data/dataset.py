"""What a data set is: a sequence of decoded pairs and the classes of their labels."""

import copy
import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from kfcn.data.formats.images import ImageHead, read_head
from kfcn.data.reading import AS_USUAL, CHOICES, Reading
from kfcn.errors import UsageError
from kfcn.labels import IGNORE, Classes
from kfcn.machine import cores


class Sample(NamedTuple):
    """One picture with its labels.

    Attributes:
        image: uint8 `(H, W, 3)`, RGB, 0 to 255.
        labels: uint8 `(H, W)`, a class index or `IGNORE`.
        name: what an error names, such as `train/0001TP_006690.jpg`; its stem is unique within
            the split.
    """

    image: np.ndarray
    labels: np.ndarray
    name: str


@dataclass(frozen=True)
class Counts:
    """What `kfcn.data.check` saw of a split.

    Attributes:
        pixels: int64 `(C,)`, labelled pixels of each class.
        image_pixels: int64 `(C,)`, labelled pixels of all images in which the class occurs.
        ignored: pixels with the ignore label.
        images: number of images.
    """

    pixels: np.ndarray
    image_pixels: np.ndarray
    ignored: int
    images: int

    @classmethod
    def nothing(cls, classes: int) -> "Counts":
        """The counts of no image at all."""
        return cls(np.zeros(classes, np.int64), np.zeros(classes, np.int64), 0, 0)

    def add(self, histogram: np.ndarray) -> "Counts":
        """These counts and one more image's, given its counts of the 256 labels."""
        found = histogram[: len(self.pixels)]
        return Counts(
            self.pixels + found,
            self.image_pixels + np.where(found > 0, found.sum(), 0),
            self.ignored + int(histogram[IGNORE]),
            self.images + 1,
        )


class Dataset(ABC):
    """One split of a data set: a sequence of `Sample`s that knows no augmentation and no batches.

    A new data set is one file with a subclass and one row in the table of `kfcn.data`. For the
    row it also has the constructor `(split, data_dir, seed)` and the class method
    `splits(data_dir)`, which gives the names of its splits.

    Attributes:
        name: the data set's name on the command line.
        layout: for a data set of files, what is expected in its folder and where it comes from.
        class_choices: what `classes` may be where the data set has several sets of classes; its
            constructor then takes `classes` as well.
        parts: names of parts of its splits, which may be loaded and are no splits of their own.
        split: which part of it this is.
        classes: the classes of its labels.
        notes: what a person should know of this split, such as what a filter has left out.
        counts: what `kfcn.data.check` would count, where that was done before.
        stretch: the stored numbers that become 0 and 255 in pictures of more than 8 bits; None
            for 0 and 65535.
    """

    name: str
    layout: ClassVar[str] = ""
    class_choices: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ()
    split: str
    classes: Classes
    notes: tuple[str, ...] = ()
    counts: Counts | None = None
    stretch: tuple[int, int] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    @abstractmethod
    def file_name(self, index: int) -> str:
        """`Sample.name` of this index, without decoding anything."""

    def image_file(self, index: int) -> Path | None:
        """The image's own file; None where pictures do not lie in files."""
        return None

    def stored_image(self, index: int) -> Path | bytes | None:
        """The image's file or its content; None where pictures are not stored at all."""
        return self.image_file(index)

    def page(self, index: int) -> int | None:
        """Which page of the image's file is meant; None where the file has one."""
        return None

    def head(self, index: int) -> ImageHead:
        """Size, orientation and depth of the image, from the head of its file where there is one.

        Raises:
            DataError: the file is missing or no image.
        """
        stored = self.stored_image(index)
        if stored is None:
            return ImageHead(self[index].labels.shape, 1, False)
        return read_head(stored, self.file_name(index), self.page(index))

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image (`head`)."""
        return self.head(index).size

    def label_file(self, index: int) -> Path | None:
        """The file that holds the labels; None where they do not lie in files."""
        return None

    def files(self) -> Iterator[Path]:
        """The files that its pictures and labels lie in."""
        for index in range(len(self)):
            yield from filter(None, (self.image_file(index), self.label_file(index)))

    def label_name(self, index: int) -> str:
        """What an error about the labels names; the mask's file where there is one."""
        return self.file_name(index)

    def fingerprint(self) -> str:
        """A hash of what the split holds: its names and the sizes of its files, not their place.

        Where nothing lies in files of its own, it is made of the number of pictures, the classes,
        and what was counted.
        """
        found = hashlib.sha256(repr((len(self), self.classes)).encode())
        if next(self.files(), None) is None:
            counts = self.counts
            found.update(repr(None if counts is None else counts.pixels.tolist()).encode())
            return found.hexdigest()
        size = functools.cache(_file_size)  # of some sets all labels lie in one file
        for index in range(len(self)):
            files = size(self.image_file(index)), size(self.label_file(index))
            found.update(repr((self.file_name(index), self.label_name(index), files)).encode())
        return found.hexdigest()

    def joints(self, index: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Joints of people, int64 `(people, K, 3)` of x, y and visibility, and the skeleton.

        They are for overlays; a data set without any has nobody.
        """
        return np.zeros((0, 0, 3), np.int64), []

    def read_as(self, reading: Reading) -> Self:
        """The same split, read in another way.

        Raises:
            UsageError: somebody has asked for a choice that the data set does not have.
        """
        for name in CHOICES:
            unusual = getattr(reading, name) != getattr(AS_USUAL, name)
            if unusual and name not in reading.inherited:
                kind = "polygons" if name == "unlabelled" else "mask files with class indices"
                raise UsageError(
                    f"--{name} {getattr(reading, name)}: {self.name} has no such choice here; it "
                    f"is for {kind} (--data folder)"
                )
        return self._stretched(reading.stretch)

    def _stretched(self, stretch: tuple[int, int] | None) -> Self:
        other = copy.copy(self)
        other.stretch = None if stretch is None else (stretch[0], stretch[1])
        return other


def map_samples(
    dataset: Dataset, look: Callable[[Dataset, int], Any], doing: str, progress: bool = False
) -> Iterator[Any]:
    """`look(dataset, index)` of every index, in order, by as many threads as there are cores.

    Pillow decodes outside of Python's lock, so that threads do share the work. Results are made
    a block at a time: a data set of any length takes the same memory.

    Args:
        dataset: what to look at.
        look: is given the data set and an index; several threads call it at the same time.
        doing: for the progress bar, such as "checking".
        progress: show a progress bar.
    """
    from tqdm import tqdm

    bar = tqdm(
        total=len(dataset),
        desc=f"{doing} {dataset.name}/{dataset.split}",
        unit="image",
        leave=False,
        disable=None if progress else True,
    )
    with ThreadPoolExecutor(cores()) as pool, bar:
        for start in range(0, len(dataset), 256):
            block = range(start, min(start + 256, len(dataset)))
            for result in pool.map(lambda index: look(dataset, index), block):
                bar.update()
                yield result


def spread(length: int, count: int) -> list[int]:
    """So many indices of a sequence, evenly from the first to the last; all where it has fewer."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()


def _file_size(path: Path | None) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return None if path is None else path.stat().st_size
    except OSError:
        return None
