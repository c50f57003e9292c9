"""Data sets made of pairs: a file with an image, and one with its labels."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self

import numpy as np

from kfcn.data.dataset import Dataset, Reading, Sample
from kfcn.data.formats.images import count_pages, read_image
from kfcn.data.formats.label_maps import read_labels
from kfcn.errors import DataError
from kfcn.labels import IGNORE, Classes


class FilePairs(Dataset):
    """Pairs of an image file and a label file.

    Args:
        split: the split's name.
        root: the data set's folder; names in errors are relative to it.
        pairs: `(image, labels)` paths.
        classes: the classes.
        relabel: stored label -> class index or 255; a label that is not in it stays.
        read: what decodes a label file to uint8 `(H, W)`; it is called with `page=` where a file
            has several.
        notes: what a person should know of the split.
    """

    def __init__(
        self,
        split: str,
        root: Path,
        pairs: list[tuple[Path, Path]],
        classes: Classes,
        relabel: Mapping[int, int] | None = None,
        read: Callable[..., np.ndarray] = read_labels,
        notes: Iterable[str] = (),
    ):
        self.split = split
        self.classes = classes
        self.notes = tuple(notes)
        self._root = root
        self._pairs = pairs
        self._pages: list[int | None] | None = None
        self._relabel = table(relabel) if relabel else None
        self._read = read

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        labels = self._labels(index)
        if self._relabel is not None:
            labels = self._relabel[labels]
        name = self.file_name(index)
        image = read_image(self.stored_image(index), name, self.stretch, self.page(index))
        return Sample(image, labels, name)

    def _labels(self, index: int) -> np.ndarray:
        """The stored label map, uint8 `(H, W)`."""
        page = self.page(index)
        path = self._pairs[index][1]
        return self._read(path) if page is None else self._read(path, page=page)

    def file_name(self, index: int) -> str:
        """The image's path in the data set's folder."""
        path, page = self._pairs[index][0], self.page(index)
        if page is not None:
            path = path.with_name(f"{path.stem}_page{page + 1}{path.suffix}")
        return self._shown(path)

    def label_name(self, index: int) -> str:
        """The label map's path in the data set's folder."""
        return self._shown(self._pairs[index][1])

    def image_file(self, index: int) -> Path | None:
        """The image's file."""
        return self._pairs[index][0]

    def stored_image(self, index: int) -> Path | bytes:
        """The image's file or its content."""
        return self._pairs[index][0]

    def label_file(self, index: int) -> Path:
        """The file with its labels."""
        return self._pairs[index][1]

    def page(self, index: int) -> int | None:
        """Which page of the files is meant, from 0; None where they have one."""
        return None if self._pages is None else self._pages[index]

    def _shown(self, path: Path) -> str:
        # Not `relative_to`: it takes ten times as long, and every sample is named.
        return path.as_posix().removeprefix(f"{self._root.as_posix()}/")


class IndexedMasks(FilePairs):
    """Pairs of pictures and mask files, in which 255 may be a class and files may have pages."""

    def read_as(self, reading: Reading) -> Self:
        """The same pairs, read in another way.

        With `ignore="none"` the stored 255 is the last class; with `pages="all"` each page of a
        file is a picture, and its label map the page of the same number.

        Raises:
            DataError: a file of several pages whose label map has another number of them.
        """
        other = super().read_as(dataclasses.replace(reading, ignore="255", pages="one"))
        if reading.ignore == "none":
            other._relabel = table({IGNORE: len(self.classes) - 1})
        if reading.pages == "all":
            pairs = [(pair, self._page_count(*pair)) for pair in self._pairs]
            other._pairs = [pair for pair, count in pairs for _ in range(count)]
            other._pages = [
                page if count > 1 else None for _, count in pairs for page in range(count)
            ]
        return other

    def _page_count(self, image: Path, labels: Path) -> int:
        count = count_pages(image, self._shown(image))
        masks = count_pages(labels, self._shown(labels)) if count > 1 else 1
        if masks != count:
            raise DataError(
                f"{self._shown(image)}: has {count} pages and its label map {self._shown(labels)} "
                f"has {masks}; expected a label map for each page"
            )
        return count


def table(relabel: Mapping[int, int]) -> np.ndarray:
    """A look-up table uint8 `(256,)`: what is not in `relabel` stays as it is."""
    values = np.arange(256, dtype=np.uint8)
    for stored, label in relabel.items():
        values[stored] = label
    return values
