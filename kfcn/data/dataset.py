"""What a data set is: a sequence of decoded pairs and the classes of their labels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

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


class Dataset(ABC):
    """One split of a data set: a sequence of `Sample`s that knows no augmentation and no batches.

    A new data set is one file with a subclass and one row in the table of `kfcn.data`. For the
    row it also has the constructor `(split, data_dir, seed)` and the class method
    `splits(data_dir)`, which gives the names of its splits.

    Attributes:
        name: the data set's name on the command line.
        split: which part of it this is.
        classes: the classes of its labels.
    """

    name: ClassVar[str]
    split: str
    classes: Classes

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    @abstractmethod
    def file_name(self, index: int) -> str:
        """`Sample.name` of this index, without decoding anything."""

    def label_name(self, index: int) -> str:
        """What an error about the labels names; the mask's file where there is one."""
        return self.file_name(index)
