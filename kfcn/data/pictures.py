"""Pictures without labels, from a folder: a data set of which nobody knows the classes."""

from pathlib import Path

import numpy as np

from kfcn.data.dataset import Dataset, Sample, map_samples
from kfcn.data.formats.images import IMAGE_SUFFIXES, count_pages, read_image
from kfcn.data.listing import left_out_notes, list_files
from kfcn.data.reading import AS_USUAL, Reading
from kfcn.errors import UsageError, shortlist
from kfcn.labels import Classes


class Pictures(Dataset):
    """All pictures of a folder and of those in it.

    The labels of a sample are 0 wherever there is a picture, so that what padding and `Skipping`
    make of them, 255, is where there is none.

    Args:
        folder: links are followed, hidden files left out.
        classes: of the net that is to label them.
        reading: how they are read: `pages`, and the `stretch` of pictures of more than 8 bits.

    Raises:
        DataError: there is no such folder, two files share a stem, or, with pages, a file cannot
            be read.
        UsageError: the folder has no picture.
    """

    name = "unlabelled"
    split = "pictures"

    def __init__(self, folder: Path | str, classes: Classes, reading: Reading = AS_USUAL):
        self.folder, self.classes, self.stretch = Path(folder), classes, reading.stretch
        found = list_files(self.folder, IMAGE_SUFFIXES)
        if not found.files:
            others = f", only other files: {shortlist(found.left_out)}" if found.left_out else ""
            raise UsageError(
                f"{self.folder}: no images{others}; expected pictures to learn from without "
                f"labels, {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        self.notes = tuple(left_out_notes(self.folder, found.left_out))
        self._pages: list[tuple[Path, int | None]] = [(path, None) for path in found.files.values()]
        if reading.pages == "all":
            counts = [(path, count_pages(path)) for path in found.files.values()]
            self._pages = [
                (path, page if count > 1 else None)
                for path, count in counts
                for page in range(count)
            ]

    def __len__(self) -> int:
        return len(self._pages)

    def __getitem__(self, index: int) -> Sample:
        path, page = self._pages[index]
        image = read_image(path, stretch=self.stretch, page=page)
        return Sample(image, np.zeros(image.shape[:2], np.uint8), self.file_name(index))

    def file_name(self, index: int) -> str:
        """The file's path in the folder, with the page where it has several."""
        path, page = self._pages[index]
        name = path.relative_to(self.folder)
        return (name if page is None else name.with_stem(f"{name.stem}_page{page + 1}")).as_posix()

    def image_file(self, index: int) -> Path:
        """The picture's file."""
        return self._pages[index][0]

    def page(self, index: int) -> int | None:
        """Which page of the file is meant, from 0; None where it has one."""
        return self._pages[index][1]


def check_pictures(dataset: Dataset, progress: bool = False) -> None:
    """Opens every picture once, before a training run relies on it.

    Raises:
        DataError: one cannot be read; the message names it.
    """
    for _ in map_samples(dataset, _read, "opening", progress):
        pass


def _read(dataset: Dataset, index: int) -> None:
    dataset[index]
