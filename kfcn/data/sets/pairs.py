"""What the data sets made of files share: images and label maps matched by stem."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kfcn.data.dataset import Dataset, Sample
from kfcn.data.formats.images import read_image, read_labels
from kfcn.errors import DataError, shortlist
from kfcn.labels import Classes

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
LABEL_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff"})


class FilePairs(Dataset):
    """Pairs of an image file and a label file, in the order of their stems.

    Args:
        split: the split's name.
        root: the data set's folder; names in errors are relative to it.
        pairs: `(image, labels)` paths.
        classes: the classes.
        relabel: stored label -> class index or 255; a label that is not in it stays.
        read: what decodes a label file to uint8 `(H, W)`.
    """

    def __init__(
        self,
        split: str,
        root: Path,
        pairs: list[tuple[Path, Path]],
        classes: Classes,
        relabel: Mapping[int, int] | None = None,
        read: Callable[[Path], np.ndarray] = read_labels,
    ):
        self.split = split
        self.classes = classes
        self._root = root
        self._pairs = pairs
        self._relabel = table(relabel) if relabel else None
        self._read = read

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self._pairs[index]
        labels = self._read(label_path)
        if self._relabel is not None:
            labels = self._relabel[labels]
        return Sample(read_image(image_path), labels, self.file_name(index))

    def file_name(self, index: int) -> str:
        """The image's path in the data set's folder."""
        return self._shown(self._pairs[index][0])

    def label_name(self, index: int) -> str:
        """The label map's path in the data set's folder."""
        return self._shown(self._pairs[index][1])

    def image_file(self, index: int) -> Path:
        """The image's file."""
        return self._pairs[index][0]

    def label_file(self, index: int) -> Path:
        """The file with its labels."""
        return self._pairs[index][1]

    def _shown(self, path: Path) -> str:
        # Not `relative_to`: it takes ten times as long, and every sample is named.
        return path.as_posix().removeprefix(f"{self._root.as_posix()}/")


def table(relabel: Mapping[int, int]) -> np.ndarray:
    """A look-up table uint8 `(256,)`: what is not in `relabel` stays as it is."""
    values = np.arange(256, dtype=np.uint8)
    for stored, label in relabel.items():
        values[stored] = label
    return values


def match(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Pairs the files of two folders by stem, sorted by stem.

    Raises:
        DataError: a folder is missing, a stem occurs twice, or a file has no partner.
    """
    image_files = by_stem(images, IMAGE_SUFFIXES)
    label_files = by_stem(labels, LABEL_SUFFIXES)
    for ours, others, folder, missing in (
        (image_files, label_files, labels, "image(s) without a label map"),
        (label_files, image_files, images, "label map(s) without an image"),
    ):
        alone = [ours[stem] for stem in sorted(ours.keys() - others.keys())]
        if alone:
            raise DataError(
                f"{alone[0].parent}: {len(alone)} {missing} of the same stem in {folder}: "
                f"{shortlist(path.name for path in alone)}; add the missing files or remove these"
            )
    return [(image_files[stem], label_files[stem]) for stem in sorted(image_files)]


def existing(pairs: list[tuple[Path, Path]], source: Path) -> list[tuple[Path, Path]]:
    """The pairs themselves, once every file is known to be there.

    Raises:
        DataError: files that `source`, a list of names, asks for are missing.
    """
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing:
        raise DataError(
            f"{source}: lists {len(pairs)} pairs, and {len(missing)} of their files are not "
            f"there: {shortlist(missing)}; add them, or take their names out of the list"
        )
    return pairs


def splits_with(root: str | Path, *folders: str) -> tuple[str, ...]:
    """Those of train, val and test of which all the folders exist; `{}` is the split's name."""
    return tuple(
        split
        for split in ("train", "val", "test")
        if all((Path(root) / folder.format(split)).is_dir() for folder in folders)
    )


def held_out(name: str) -> bool:
    """Whether a picture of this name is kept for validation, where no list says so.

    A tenth of all names, by their hash, so that a picture keeps its place when others are added.
    """
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big") % 10 == 0


def by_stem(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    """The files of a folder with these suffixes, by stem.

    Raises:
        DataError: there is no such folder, or two files share a stem.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    # By name: to compare paths themselves takes seconds where there are a hundred thousand.
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in files:
            raise DataError(
                f"{folder}: {files[path.stem].name} and {path.name} have the same stem; "
                "expected one file a stem"
            )
        files[path.stem] = path
    return files
