"""The table of data sets, and how one is opened by its name."""

import dataclasses
from pathlib import Path
from typing import Any

from kfcn.data.dataset import AS_USUAL, Dataset, Reading
from kfcn.data.feed.views import split_of
from kfcn.data.sets.ade20k import ADE20K
from kfcn.data.sets.beside import Beside
from kfcn.data.sets.camvid import CamVid
from kfcn.data.sets.cityscapes import Cityscapes
from kfcn.data.sets.coco import Coco
from kfcn.data.sets.coco_export import CocoExport
from kfcn.data.sets.cvat import MaskExport
from kfcn.data.sets.folder import Folder
from kfcn.data.sets.labelme import Labelme
from kfcn.data.sets.pet import Pet
from kfcn.data.sets.prepared import Prepared
from kfcn.data.sets.scenes import Scenes
from kfcn.data.sets.voc import VOC
from kfcn.errors import UsageError

DATASETS: dict[str, Any] = {
    cls.name: cls for cls in (Scenes, CamVid, Folder, VOC, Coco, ADE20K, Cityscapes, Pet, Prepared)
}
_DOWNLOADS = {"ade20k": "scene_parse150", "pet": "oxford_iiit_pet"}
"""Data sets that TFDS may download, by the names that it has for them."""
_TFDS = "tfds:"
NAMES = (*DATASETS, f"{_TFDS}NAME")


@dataclasses.dataclass(frozen=True)
class Source:
    """What names a data set: enough to open its splits again, in whatever process.

    The fields are the arguments of `load`.
    """

    name: str
    data_dir: str | Path | None = None
    seed: int = 0
    classes: str | None = None
    reading: Reading = AS_USUAL

    def open(self, split: str) -> Dataset:
        """Opens one split (`load`)."""
        return load(self.name, split, self.data_dir, self.seed, self.classes, self.reading)

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that exist (`splits`)."""
        return splits(self.name, self.data_dir)


def load(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    seed: int = 0,
    classes: str | None = None,
    reading: Reading = AS_USUAL,
) -> Dataset:
    """Opens one split of a data set; nothing is decoded yet.

    Args:
        name: one of `NAMES`; `tfds:NAME` is any data set of tensorflow_datasets with an image and
            a mask.
        split: one of `splits(name, data_dir)`, or of the data set's `parts`; or a part of such as
            "train[0/5]" (`kfcn.data.feed.views.split_of`).
        data_dir: the folder of a data set made of files; None for `scenes`, and for what TFDS
            downloads (ade20k, pet, tfds:NAME), where it is TFDS' own folder.
        seed: which pictures `scenes` draws; the data sets made of files do not look at it.
        classes: which classes, where the data set has a choice ("voc" and "voc-200" for coco; a
            classes.txt for tfds:NAME).
        reading: how the files are read, where there is a choice.

    Raises:
        UsageError: an unknown name or split, or no such folder; the message says what exists. An
            optional package that the data set needs is missing.
        DataError: images and label maps that do not match, or a bad `classes.txt`.
    """
    own, part = split_of(split)
    return part(_opened(name, own, data_dir, seed, classes).read_as(reading))


def _opened(
    name: str, split: str, data_dir: str | Path | None, seed: int, classes: str | None
) -> Dataset:
    known = splits(name, data_dir)
    if name in DATASETS:
        known += DATASETS[name].parts
    if split not in known:
        place = f" in {data_dir}" if data_dir is not None else ""
        raise UsageError(
            f"{name} has no split {split!r}{place}; expected one of: {', '.join(known)}"
        )
    tfds_name = _tfds_name(name, data_dir)
    if tfds_name:
        from kfcn.data.sets.tfds_set import TfdsSet

        return TfdsSet(tfds_name, split, data_dir, classes)
    cls = _reader(name, data_dir)
    if classes is None:
        return cls(split, data_dir, seed)
    if not cls.class_choices:
        raise UsageError(f"{name} has one set of classes; received the choice {classes!r}")
    return cls(split, data_dir, seed, classes)


def splits(name: str, data_dir: str | Path | None = None) -> tuple[str, ...]:
    """Names of the splits that exist.

    Raises:
        UsageError: an unknown name, or a folder that is missing, not there, not wanted or that
            holds something else; the message says what belongs where.
    """
    if name not in DATASETS and not name.startswith(_TFDS):
        raise UsageError(f"unknown data set {name!r}; expected one of: {', '.join(NAMES)}")
    if name == Scenes.name and data_dir is not None:
        raise UsageError(f"{name} is drawn by the program; received the folder {data_dir}")
    tfds_name = _tfds_name(name, data_dir)
    if tfds_name:
        from kfcn.data.sets import tfds_set

        return tfds_set.splits(tfds_name, data_dir)
    cls = DATASETS[name]
    if name != Scenes.name:
        if data_dir is None:
            raise UsageError(
                f"{name} is read from a folder; name it (--data-dir DIR), with {cls.layout}"
            )
        if not Path(data_dir).is_dir():
            raise UsageError(f"{data_dir}: no such folder; expected the one with {cls.layout}")
    found = _reader(name, data_dir).splits(data_dir)
    if not found:
        raise UsageError(f"{data_dir} does not hold {name}; expected {cls.layout}")
    return found


def _reader(name: str, data_dir: str | Path | None) -> Any:
    """The class that reads the data set; a folder may be any of several kinds."""
    if name != Folder.name:
        return DATASETS[name]
    kinds: tuple[Any, ...] = (Folder, MaskExport, CocoExport, Labelme, Beside)
    return next((kind for kind in kinds if kind.splits(data_dir)), Folder)


def _tfds_name(name: str, data_dir: str | Path | None) -> str | None:
    """What TFDS calls the data set, where it is TFDS that reads it."""
    if name.startswith(_TFDS):
        return name.removeprefix(_TFDS)
    if name not in _DOWNLOADS or (data_dir is not None and DATASETS[name].splits(data_dir)):
        return None
    tfds_name = _DOWNLOADS[name]
    return tfds_name if data_dir is None or (Path(data_dir) / tfds_name).is_dir() else None
