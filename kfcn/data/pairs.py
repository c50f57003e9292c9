"""What the data sets made of files share: images and label maps matched by stem."""

from pathlib import Path

from kfcn.data.dataset import IGNORE, Classes, Dataset, Sample
from kfcn.data.decode import read_image, read_labels
from kfcn.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
LABEL_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff"})


class FilePairs(Dataset):
    """Pairs of an image file and a label file, in the order of their stems.

    Args:
        split: the split's name.
        root: the data set's folder; names in errors are relative to it.
        pairs: `(image, labels)` paths.
        classes: the classes.
        void: a stored label that means "ignore", beside 255; None where there is none.
    """

    def __init__(
        self,
        split: str,
        root: Path,
        pairs: list[tuple[Path, Path]],
        classes: Classes,
        void: int | None = None,
    ):
        self.split = split
        self.classes = classes
        self._root = root
        self._pairs = pairs
        self._void = void

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self._pairs[index]
        labels = read_labels(label_path)
        if self._void is not None:
            labels[labels == self._void] = IGNORE
        return Sample(read_image(image_path), labels, self.file_name(index))

    def file_name(self, index: int) -> str:
        """The image's path in the data set's folder."""
        return self._pairs[index][0].relative_to(self._root).as_posix()

    def label_name(self, index: int) -> str:
        """The label map's path in the data set's folder."""
        return self._pairs[index][1].relative_to(self._root).as_posix()


def match(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Pairs the files of two folders by stem, sorted by stem.

    Raises:
        DataError: a folder is missing, a stem occurs twice, or a file has no partner.
    """
    image_files = _by_stem(images, IMAGE_SUFFIXES)
    label_files = _by_stem(labels, LABEL_SUFFIXES)
    for ours, others, folder, missing in (
        (image_files, label_files, labels, "image(s) without a label map"),
        (label_files, image_files, images, "label map(s) without an image"),
    ):
        alone = [ours[stem] for stem in sorted(ours.keys() - others.keys())]
        if alone:
            shown = ", ".join(path.name for path in alone[:5])
            more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
            raise DataError(
                f"{alone[0].parent}: {len(alone)} {missing} of the same stem in {folder}: "
                f"{shown}{more}; add the missing files or remove these"
            )
    return [(image_files[stem], label_files[stem]) for stem in sorted(image_files)]


def _by_stem(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in files:
            raise DataError(
                f"{folder}: {files[path.stem].name} and {path.name} have the same stem; "
                "expected one file a stem"
            )
        files[path.stem] = path
    return files
