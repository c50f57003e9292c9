"""NYU Depth v2 in colour, with the 40 classes of Gupta et al.: rooms seen by a Kinect.

N. Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images" (ECCV 2012);
S. Gupta et al., "Perceptual Organization and Recognition of Indoor Scenes from RGB-D Images" (CVPR
2013), whose classes and lists the FCN paper measures on (Table 4).
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfcn.data.dataset import Dataset, Sample
from kfcn.data.formats.lists import read_names
from kfcn.data.listing import existing
from kfcn.data.sets.pairs import FilePairs
from kfcn.errors import DataError, UsageError, first_line, require
from kfcn.labels import voc_coloured

if TYPE_CHECKING:
    import h5py

# Spelled as Gupta's files spell them, and with them all that was exported from there.
NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
    "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror",
    "floor mat", "clothes", "ceiling", "books", "refridgerator", "television", "paper", "towel",
    "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp",
    "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip
CLASSES = voc_coloured(NAMES)
SPLITS = ("train", "val", "trainval", "test")
FIRST = 5001
"""The number that Gupta's lists, and the FCN code's, give to the first picture."""

_PICTURES = "nyu_depth_v2_labeled.mat"
_MAPPING = "classMapping40.mat"
_LISTS = ("nyusplits.mat", "splits.mat")
_PURPOSE = "reading Gupta's .mat files"


class NYUDv2Folder(FilePairs):
    """The folder of the FCN code: `data/images/img_N.png`, `segmentation/img_N.mat`, lists.

    The label maps hold 0 for what is not labelled and 1 to 40 for the classes.
    """

    name = "nyudv2"
    layout = (
        f"{_PICTURES} with {_MAPPING} and {_LISTS[0]} of Gupta et al. (or splits.mat, or train.txt "
        "and so on), or the FCN code's data/images/, segmentation/ and lists"
    )

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        require("scipy.io", _PURPOSE, "data")
        pairs = [
            (root / f"data/images/img_{number}.png", root / f"segmentation/img_{number}.mat")
            for number in read_names(root / f"{split}.txt")
        ]
        super().__init__(
            split, root, existing(pairs, root / f"{split}.txt"), CLASSES, read=_read_segmentation
        )

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The lists that are there."""
        root = Path(data_dir)
        if not (root / "segmentation").is_dir() or not (root / "data/images").is_dir():
            return ()
        return tuple(split for split in SPLITS if (root / f"{split}.txt").is_file())


class NYUDv2(Dataset):
    """The authors' own file, an HDF5 file of 2.8 GB, read a picture at a time.

    Its 894 names of objects become the 40 classes by `classMapping40.mat` (`mapClass`). The splits
    are Gupta's `nyusplits.mat` (train 381, val 414, trainval, test 654), lists of the FCN code
    beside it, or the `splits.mat` of the authors (train 795, test 654).
    """

    name = NYUDv2Folder.name
    layout = NYUDv2Folder.layout

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        self._root, self.split, self.classes = Path(data_dir), split, CLASSES
        path = self._root / _MAPPING
        if not path.is_file():
            raise DataError(f"{path}: no such file; it says which of the 40 classes a name is")
        mapped = _loaded(path, "mapClass").ravel()
        if mapped.size != 894 or not np.isin(mapped, range(len(NAMES) + 1)).all():
            raise DataError(f"{path}: mapClass does not hold 894 classes from 1 to {len(NAMES)}")
        # 0 is what nobody has labelled, in the stored numbers and in those of the classes.
        self._label_of = np.append(0, mapped).astype(np.uint8) - np.uint8(1)
        lists = _lists(self._root)
        if split not in lists:
            raise UsageError(f"{self.name} has no split {split!r} in {data_dir}")
        self._indices = lists[split]
        stored = len(self._file["images"])
        wrong = [n for n in self._indices if not 0 <= n < stored]
        if wrong:
            raise DataError(
                f"{self._root}: the split {split} names picture {wrong[0] + FIRST}; {_PICTURES} "
                f"holds {FIRST} to {FIRST + stored - 1}"
            )

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        number = self._indices[index]
        try:
            # MATLAB's order of axes: (channels, width, height).
            image = np.ascontiguousarray(self._file["images"][number].transpose(2, 1, 0))
            stored = self._file["labels"][number].T
        except OSError as error:
            raise DataError(
                f"{self._root / _PICTURES}: picture {number + FIRST} cannot be read "
                f"({first_line(error)})"
            ) from error
        if stored.max() >= len(self._label_of):
            raise DataError(
                f"{self._root / _PICTURES}: picture {number + FIRST} has label {stored.max()}; "
                f"expected 0 to {len(self._label_of) - 1}"
            )
        return Sample(image, self._label_of[stored], self.file_name(index))

    def file_name(self, index: int) -> str:
        """`img_N.png`, as Gupta's lists and the FCN code number the pictures."""
        return f"img_{self._indices[index] + FIRST}.png"

    @functools.cached_property
    def _file(self) -> "h5py.File":
        import h5py

        path = self._root / _PICTURES
        try:
            file = h5py.File(path, "r")
            (count, _, width, height), labels = file["images"].shape, file["labels"].shape
            if labels != (count, width, height):
                raise ValueError(f"images for {count} pictures, labels {labels}")
        except (OSError, KeyError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path}: is not a {_PICTURES} ({first_line(error)}); download it again"
            ) from error
        return file

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The splits that the lists beside the file name."""
        root = Path(data_dir)
        return tuple(_lists(root)) if (root / _PICTURES).is_file() else ()


def _lists(root: Path) -> dict[str, list[int]]:
    """Split -> numbers of its pictures, from 0."""
    found: dict[str, list[int]] = {}
    for name in _LISTS:
        if not (root / name).is_file():
            continue
        for split in SPLITS:
            for key in (split, f"{split}Ndxs"):  # Gupta's names, the authors'
                numbers = _loaded(root / name, key, missing=None)
                if numbers is None:
                    continue
                values = numbers.ravel().astype(int).tolist()
                first = FIRST if min(values, default=0) >= FIRST else 1
                found.setdefault(split, [value - first for value in values])
    for split in SPLITS:
        path = root / f"{split}.txt"
        if split not in found and path.is_file():
            try:
                found[split] = [int(name) - FIRST for name in read_names(path)]
            except ValueError as error:
                raise DataError(f"{path}: expected numbers of pictures from {FIRST} on") from error
    return {split: found[split] for split in SPLITS if split in found}


def _read_segmentation(path: Path, page: int | None = None) -> np.ndarray:
    labels = _loaded(path, "segmentation")
    if labels.ndim != 2 or labels.dtype.kind not in "ui" or labels.max() > len(NAMES):
        raise DataError(
            f"{path}: segmentation is {labels.dtype} {labels.shape} up to {labels.max()}; expected "
            f"whole numbers (H, W) from 0 to {len(NAMES)}"
        )
    return labels.astype(np.uint8) - np.uint8(1)  # 0 becomes 255


def _loaded(path: Path, key: str, missing: Any = DataError) -> Any:
    """A variable of a MATLAB file of version 5."""
    scipy_io = require("scipy.io", _PURPOSE, "data")
    try:
        stored = scipy_io.loadmat(path, variable_names=[key])
        values = stored.get(key, missing)
    except Exception as error:  # SciPy raises whatever its parser meets in a broken file
        raise DataError(f"{path}: cannot be read as a MATLAB file ({first_line(error)})") from error
    if values is DataError:
        raise DataError(f"{path}: has no variable {key}")
    return values
