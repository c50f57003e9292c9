"""Data sets: `load` gives one by name, `check` looks at every pair before a run relies on it."""

from pathlib import Path

from kfcn.data.camvid import CamVid
from kfcn.data.counting import Counts, check, class_weights
from kfcn.data.dataset import IGNORE, Classes, Dataset, Sample
from kfcn.data.folder import Folder
from kfcn.data.scenes import Scenes
from kfcn.errors import UsageError

__all__ = [
    "IGNORE",
    "NAMES",
    "Classes",
    "Counts",
    "Dataset",
    "Sample",
    "check",
    "class_weights",
    "load",
    "splits",
]

_DATASETS = {cls.name: cls for cls in (Scenes, CamVid, Folder)}
NAMES = tuple(_DATASETS)


def load(name: str, split: str, data_dir: str | Path | None = None, seed: int = 0) -> Dataset:
    """Opens one split of a data set; nothing is decoded yet.

    Args:
        name: one of `NAMES`.
        split: one of `splits(name, data_dir)`.
        data_dir: the folder of a data set made of files; None for `scenes`.
        seed: which pictures `scenes` draws; the data sets made of files do not look at it.

    Raises:
        UsageError: an unknown name or split, or no such folder; the message says what exists.
        DataError: images and label maps that do not match, or a bad `classes.txt`.
    """
    known = splits(name, data_dir)
    if split not in known:
        place = f" in {data_dir}" if data_dir is not None else ""
        raise UsageError(
            f"{name} has no split {split!r}{place}; "
            + (f"expected one of: {', '.join(known)}" if known else "found none of its folders")
        )
    return _DATASETS[name](split, data_dir, seed)


def splits(name: str, data_dir: str | Path | None = None) -> tuple[str, ...]:
    """Names of the splits that exist.

    Raises:
        UsageError: an unknown name, or a folder that is missing, not there or not wanted.
    """
    if name not in _DATASETS:
        raise UsageError(f"unknown data set {name!r}; expected one of: {', '.join(NAMES)}")
    if name == Scenes.name:
        if data_dir is not None:
            raise UsageError(f"{name} is drawn by the program; received the folder {data_dir}")
    elif data_dir is None:
        raise UsageError(f"{name} is read from a folder; name it (--data-dir DIR)")
    elif not Path(data_dir).is_dir():
        raise UsageError(f"{data_dir}: no such folder; expected the one that holds {name}")
    return _DATASETS[name].splits(data_dir)
