"""Any folder of images and label maps.

    DIR/classes.txt
    DIR/images/train/*.jpg  DIR/labels/train/*.png
    DIR/images/val/*.jpg    DIR/labels/val/*.png

With sub-folders in `images/` and `labels/` (or `masks/`), each sub-folder that both have is a
split. Without any, or where pictures lie beside the sub-folders, all pairs are divided by a fixed
rule: the SHA-1 hash of the name sends about a tenth of them to `val` and the rest to `train`, so
that a pair keeps its place when others are added. Folders within a split are followed.

`classes.txt` has one class a line in the order of the indices (`kfcn.data.formats.classes_txt`).
Where it gives every class a colour, masks may be stored in these colours. Label 255 is ignored.
"""

import os
from pathlib import Path, PurePath

import numpy as np

from kfcn.data.formats.classes_txt import ClassFile, read_class_file
from kfcn.data.formats.images import IMAGE_SUFFIXES
from kfcn.data.formats.label_maps import LABEL_SUFFIXES, mask_mode
from kfcn.data.formats.rgb_masks import read_colours, read_indices
from kfcn.data.listing import (
    NO_LABEL_SUFFIXES,
    all_splits,
    has_file,
    left_out_notes,
    match_files,
    part,
    split_names,
)
from kfcn.data.sets.pairs import IndexedMasks, table
from kfcn.errors import DataError, counted, shortlist
from kfcn.labels import IGNORE

_LABEL_FOLDERS = ("labels", "masks")
_PICTURES = IMAGE_SUFFIXES | LABEL_SUFFIXES


class Folder(IndexedMasks):
    """A folder of pairs in the layout above."""

    name = "folder"
    layout = "classes.txt, images/ and labels/, or an export of labelme, CVAT or Roboflow"

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        file = read_class_file(root / "classes.txt")
        images, labels = root / "images", _label_folder(root)
        folders = _split_folders(root)
        if split in folders:
            pairs, notes = match_files(images / folders[split], labels / folders[split])
            flat = _flat_beside_splits(root, folders)
            notes = [*notes, *_outside_notes((images, labels), folders, flat)]
        elif _flat_beside_splits(root, folders):
            pairs, notes = match_files(images, labels, deep=False)
        else:
            pairs, notes = match_files(images, labels)
            chosen = part(pairs, split)
            pairs = {name: pair for name, pair in pairs.items() if name in chosen}
        read = MaskReader(file, "classes.txt")
        super().__init__(split, root, list(pairs.values()), file.classes, read=read, notes=notes)

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The sub-folders that images/ and labels/ share, or train and val.

        Where none of the sub-folders is named like a split, all of them together are divided into
        train and val as well.
        """
        root = Path(data_dir)
        labels = _label_folder(root)
        if not (root / "images").is_dir() or not labels.is_dir() or not _holds_masks(labels):
            return ()
        folders = _split_folders(root)
        if _flat_beside_splits(root, folders):
            return ("train", *folders)
        return tuple(folders) if split_names(folders) else ("train", "val", *folders)


def _outside_notes(parents, folders: dict[str, str], flat: bool) -> list[str]:
    """What lies outside of the splits: folders that one side alone has, pictures beside folders."""
    notes = []
    for parent in parents:
        inner, loose = _entries(parent)
        if alone := sorted(inner - set(folders.values())):
            left = counted(len(alone), "folder")
            notes.append(f"{parent}: left out {left} that its twin lacks: {shortlist(alone)}")
        notes += [] if flat else left_out_notes(parent, loose, "beside the folders of the splits")
    return notes


def _entries(parent: Path) -> tuple[set[str], list[str]]:
    """The folders and the pictures that lie directly in a folder, by name; nothing hidden."""
    if not parent.is_dir():
        return set(), []
    with os.scandir(parent) as found:  # which knows what is a folder without asking for each
        shown = [entry for entry in found if not entry.name.startswith(".")]
    folders = {entry.name for entry in shown if entry.is_dir()}
    pictures = [e.name for e in shown if PurePath(e.name).suffix.lower() in _PICTURES]
    return folders, sorted(pictures)


def _label_folder(root: Path) -> Path:
    places = [root / name for name in _LABEL_FOLDERS]
    return next((place for place in places if place.is_dir()), places[0])


def _holds_masks(labels: Path) -> bool:
    """Whether a folder of labels is not one of labelme's JSON files."""
    masks = LABEL_SUFFIXES | NO_LABEL_SUFFIXES | IMAGE_SUFFIXES
    return has_file(labels, masks) or not has_file(labels, frozenset({".json"}))


def _flat_beside_splits(root: Path, folders: dict[str, str]) -> bool:
    """Whether pictures lie beside a folder such as val: then they are the training split."""
    named = split_names(folders)
    return bool(named) and "train" not in named and has_file(root / "images", IMAGE_SUFFIXES, False)


def _split_folders(root: Path) -> dict[str, str]:
    """Split -> the sub-folder of `images/` and `labels/` that holds it, sorted by split."""
    shared = sorted(_entries(root / "images")[0] & _entries(_label_folder(root))[0])
    return dict(sorted(all_splits(shared).items()))


class MaskReader:
    """Decodes masks as a file of classes says.

    Masks in RGB are read by the colours of the classes, where all have one. Masks in grey or with
    a palette hold the numbers of the classes; those in grey hold their colours where all of these
    are grey, such as black and white.

    Args:
        file: what the file of classes says.
        source: its name, for errors.
    """

    def __init__(self, file: ClassFile, source: str):
        self._source = source
        self._numbers = None
        if file.stored != tuple(range(len(file.classes))):
            numbers = {value: index for index, value in enumerate(file.stored)}
            self._numbers = {IGNORE: IGNORE} | numbers
        self._colours = {}
        if file.coloured:
            self._colours = {colour: index for index, colour in enumerate(file.classes.palette)}
        self._greys = all(len(set(colour)) == 1 for colour in self._colours)
        self._stored = file.stored

    def __call__(self, path: Path, page: int | None = None) -> np.ndarray:
        """The labels of a mask file, uint8 `(H, W)`."""
        if self._colours and (self._greys or _mode(path) in ("RGB", "RGBA")):
            return read_colours(path, self._colours, self._source, page)
        colours = self._colours if self._numbers is None else {}
        labels = read_indices(path, colours, self._source, page, self._stored)
        if self._numbers is None:
            return labels
        found = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()
        if wrong := [value for value in found if value not in self._numbers]:
            raise DataError(
                f"{path}: found label {shortlist(wrong)}; expected one of "
                f"{shortlist(sorted(self._numbers))} ({self._source})"
            )
        return table(self._numbers)[labels]


def _mode(path: Path) -> str:
    try:
        return mask_mode(path)
    except Exception:  # reported by the reader
        return ""
