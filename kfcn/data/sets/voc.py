"""PASCAL VOC 2012 segmentation, with the extra labels of SBD: 20 classes and background.

M. Everingham et al., "The PASCAL Visual Object Classes Challenge" (IJCV 2010); B. Hariharan et
al., "Semantic Contours from Inverse Detectors" (ICCV 2011), which is SBD.
"""

from pathlib import Path

import numpy as np

from kfcn.data.formats.labelmap import read_labelmap
from kfcn.data.formats.lists import read_names
from kfcn.data.formats.rgb_masks import read_indices
from kfcn.data.listing import existing, find_or, is_file
from kfcn.data.sets.pairs import FilePairs
from kfcn.errors import DataError, UsageError, first_line, require, shortlist
from kfcn.labels import IGNORE, VOID_COLOUR, voc_coloured

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
CLASSES = voc_coloured(NAMES)
_LABEL_OF = {colour: label for label, colour in enumerate(CLASSES.palette)}
_LABEL_OF[VOID_COLOUR] = IGNORE  # the borders of objects


class VOC(FilePairs):
    """`VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}`, and SBD beside it.

    Splits are the lists in `ImageSets/Segmentation` (train, val, trainval, and any that is put
    there), and two that can be made when SBD is there:

    - `train_aug`: VOC's and SBD's training and SBD's validation images without VOC's validation
      images (10,582). VOC's own label map is taken where there is one, SBD's otherwise.
    - `seg11valid`: VOC 2011's validation images that are not in SBD's training list (736), on
      which the FCN paper measures; needs `VOC2011/ImageSets/Segmentation/val.txt` as well.

    A list file `train_aug.txt`, `trainaug.txt` or `seg11valid.txt` goes before what is made, and
    `SegmentationClassAug/*.png` before SBD's `.mat` files.
    """

    name = "voc"
    layout = (
        "VOC2012/ (or VOCdevkit/VOC2012/) with JPEGImages/, SegmentationClass/ and "
        "ImageSets/Segmentation/, as in VOCtrainval_11-May-2012.tar; for train_aug also SBD's "
        "benchmark_RELEASE/dataset/ with img/, cls/, train.txt and val.txt"
    )

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        voc, sbd = _find_voc(root), _find_sbd(root)
        if voc is None:
            raise UsageError(f"{root} does not hold voc; expected {self.layout}")
        _refuse_other_classes(voc)
        lists = _lists(voc)
        if split in lists:
            source, names = lists[split], read_names(lists[split], _Known(voc, sbd))
        elif sbd is not None:
            source, names = sbd, _made(split, voc, sbd)
        else:
            raise UsageError(f"voc has no split {split!r} in {root}")
        pairs = [(_image(name, voc, sbd), _label_file(name, voc, sbd)) for name in names]
        if any(labels.suffix == ".mat" for _, labels in pairs):
            require("scipy.io", "reading SBD's .mat files", "data")
        super().__init__(split, root, existing(pairs, source), CLASSES, read=_read)

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The lists of `ImageSets/Segmentation` and those that can be made from SBD."""
        root = Path(data_dir)
        voc = _find_voc(root)
        if voc is None:
            return ()
        names = dict.fromkeys(_lists(voc))
        if _find_sbd(root):
            names["train_aug"] = None
            if _list_2011(voc):
                names["seg11valid"] = None
        return tuple(names)


def _find_voc(root: Path) -> Path | None:
    places = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    return next((p for p in places if (p / "ImageSets" / "Segmentation").is_dir()), None)


def _refuse_other_classes(voc: Path) -> None:
    """Raises a UsageError for an export in VOC's folders whose `labelmap.txt` has other classes.

    Its masks hold the numbers of those, which would be read as VOC's.
    """
    file = voc / "labelmap.txt"
    if not file.is_file():
        return
    found = read_labelmap(file)
    colour_of = dict(zip(found.names, found.palette, strict=True))
    # In any order, as masks are read by their colours; Datumaro lists what is ignored too.
    objects = {name: colour for name, colour in colour_of.items() if colour != VOID_COLOUR}
    if objects != dict(zip(CLASSES.names, CLASSES.palette, strict=True)):
        raise UsageError(
            f"{file} has the classes {shortlist(found.names)}; expected VOC's {len(CLASSES)} in "
            f"their colours: read these with --data folder --data-dir {voc}"
        )


def _find_sbd(root: Path) -> Path | None:
    places = (root / "benchmark_RELEASE" / "dataset", root / "SBD", root / "sbd")
    places += tuple(root.parent / place.relative_to(root) for place in places)
    return next((p for p in places if (p / "cls").is_dir() and (p / "train.txt").is_file()), None)


def _lists(voc: Path) -> dict[str, Path]:
    """Split name -> list file; `trainaug`, as some write it, is `train_aug`."""
    files = sorted((voc / "ImageSets" / "Segmentation").glob("*.txt"))
    order = {"train": 0, "val": 1, "trainval": 2}
    files.sort(key=lambda path: (order.get(path.stem, 3), path.stem))
    return {"train_aug" if p.stem == "trainaug" else p.stem: p for p in files}


def _made(split: str, voc: Path, sbd: Path) -> list[str]:
    """The names of a split that follows from other lists."""
    if split == "train_aug":
        lists = _lists(voc)
        if not {"train", "val"} <= lists.keys():
            raise DataError(f"{voc}: train_aug is made of VOC's train.txt and val.txt; add them")
        wanted = {*read_names(lists["train"])}
        wanted.update(*(read_names(sbd / f"{part}.txt") for part in ("train", "val")))
        return sorted(wanted - {*read_names(lists["val"])})
    if split == "seg11valid" and (listed := _list_2011(voc)):
        return sorted({*read_names(listed)} - {*read_names(sbd / "train.txt")})
    raise UsageError(f"voc has no split {split!r}")


def _list_2011(voc: Path) -> Path | None:
    """VOC 2011's own validation list, which is another one than VOC 2012's."""
    path = voc.parent / "VOC2011" / "ImageSets" / "Segmentation" / "val.txt"
    return path if path.is_file() else None


class _Known:
    """The names that have an image, as a container for `read_names`."""

    def __init__(self, voc: Path, sbd: Path | None):
        self._voc, self._sbd = voc, sbd

    def __contains__(self, name: str) -> bool:
        return is_file(_image(name, self._voc, self._sbd))


def _image(name: str, voc: Path, sbd: Path | None) -> Path:
    path = find_or(voc / "JPEGImages" / f"{name}.jpg")
    return path if sbd is None or is_file(path) else find_or(sbd / "img" / f"{name}.jpg")


def _label_file(name: str, voc: Path, sbd: Path | None) -> Path:
    """VOC's map before SBD's: it is the finer one and marks the objects' borders as void."""
    path = find_or(voc / "SegmentationClass" / f"{name}.png")
    if is_file(path):
        return path
    dense = find_or(voc / "SegmentationClassAug" / f"{name}.png")
    if is_file(dense):
        return dense
    return path if sbd is None else sbd / "cls" / f"{name}.mat"


def _read(path: Path, page: int | None = None) -> np.ndarray:
    if path.suffix == ".mat":
        return read_sbd(path)
    return read_indices(path, _LABEL_OF, "VOC's colours", page, range(len(CLASSES)))


def read_sbd(path: Path) -> np.ndarray:
    """The class map of an SBD file (`GTcls.Segmentation`), uint8 `(H, W)`.

    Raises:
        UsageError: SciPy is not installed.
        DataError: the file is none of SBD's.
    """
    scipy_io = require("scipy.io", "reading SBD's .mat files", "data")
    try:
        stored = scipy_io.loadmat(
            path, variable_names=["GTcls"], struct_as_record=False, squeeze_me=True
        )
        labels = np.asarray(stored["GTcls"].Segmentation)
    except Exception as error:  # SciPy raises whatever its parser meets in a broken file
        raise DataError(
            f"{path}: cannot be read as an SBD label map ({first_line(error)})"
        ) from error
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise DataError(
            f"{path}: GTcls.Segmentation is {labels.dtype} {labels.shape}; expected uint8 (H, W)"
        )
    return labels
