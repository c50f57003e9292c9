"""What a data set is: a sequence of decoded pairs and the classes of their labels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from kfcn.data.decode import read_size

if TYPE_CHECKING:
    from kfcn.data.counting import Counts

IGNORE = 255
"""The label of a pixel that no loss and no metric looks at."""


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
class Classes:
    """The classes in the order of their indices, each with the RGB colour it is painted in."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self):
        if len(self.names) != len(self.palette):
            raise ValueError(
                f"Expected one colour a class. Received: {len(self.names)} names and "
                f"{len(self.palette)} colours"
            )

    def __len__(self) -> int:
        return len(self.names)


def voc_colour(index: int) -> tuple[int, int, int]:
    """Colour of a class in the PASCAL VOC palette (the bits of the index spread over R, G, B)."""
    colour = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            colour[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return tuple(colour)


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
    """

    name: ClassVar[str]
    layout: ClassVar[str] = ""
    class_choices: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ()
    split: str
    classes: Classes
    notes: tuple[str, ...] = ()
    counts: "Counts | None" = None

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

    def size(self, index: int) -> tuple[int, int]:
        """Height and width, from the file's header where there is a file."""
        file = self.image_file(index)
        return self[index].labels.shape if file is None else read_size(file)

    def label_file(self, index: int) -> Path | None:
        """The file that holds the labels; None where they do not lie in files."""
        return None

    def label_name(self, index: int) -> str:
        """What an error about the labels names; the mask's file where there is one."""
        return self.file_name(index)

    def joints(self, index: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Joints of people, int64 `(people, K, 3)` of x, y and visibility, and the skeleton.

        They are for overlays; a data set without any has nobody.
        """
        return np.zeros((0, 0, 3), np.int64), []
