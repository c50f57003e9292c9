"""Images with a mask beside each, such as `x.jpg` and `x_mask.png`, as `--data folder`.

They lie in the data set's folder, or in a folder a split, as Roboflow's "Semantic Segmentation
Masks" export has them: `train/`, `valid/`, `test/`, each with a `_classes.csv`. Other such sets
have a `classes.txt`.
"""

from pathlib import Path

from kfcn.data.formats.classes_txt import ClassFile, read_class_file, read_classes_csv
from kfcn.data.formats.images import IMAGE_SUFFIXES
from kfcn.data.formats.label_maps import LABEL_SUFFIXES
from kfcn.data.listing import (
    MASK_ENDINGS,
    NO_LABEL_SUFFIXES,
    left_out_notes,
    list_files,
    part,
    refuse_no_masks,
    refuse_shared,
    split_names,
)
from kfcn.data.sets.folder import Folder, MaskReader
from kfcn.data.sets.pairs import IndexedMasks
from kfcn.errors import DataError

CSV = "_classes.csv"


class Beside(IndexedMasks):
    """Images and masks in one folder, told apart by the ends of their names."""

    name = Folder.name
    layout = Folder.layout

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        folders = _split_folders(root)
        folder = root / folders[split] if folders else root
        pairs, notes = _pairs(folder)
        if not folders:
            chosen = part(pairs, split)
            pairs = {name: pair for name, pair in pairs.items() if name in chosen}
        file, source = _classes(root, folder)
        read = MaskReader(file, source)
        super().__init__(split, root, list(pairs.values()), file.classes, read=read, notes=notes)

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The folders that are named like a split, or train and val where files lie in one."""
        root = Path(data_dir)
        if folders := _split_folders(root):
            return tuple(folders)
        return ("train", "val") if _has_classes(root) and _pairs(root)[0] else ()


def _has_classes(*folders: Path) -> bool:
    return any((f / CSV).is_file() or (f / "classes.txt").is_file() for f in folders)


def _split_folders(root: Path) -> dict[str, str]:
    """Split -> the folder that holds it, of those with pairs and classes."""
    folders = [path.name for path in root.iterdir() if path.is_dir()]
    return {
        split: name
        for split, name in split_names(folders).items()
        if _has_classes(root / name, root) and _pairs(root / name)[0]
    }


def _pairs(folder: Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """The images that have a mask, with it, by name; and what was left out."""
    images = list_files(folder, IMAGE_SUFFIXES | NO_LABEL_SUFFIXES)
    found, masks = [], set()
    for name, path in images.files.items():
        stems = [name.removesuffix(end) for end in MASK_ENDINGS if name.endswith(end)]
        if stem := next((stem for stem in stems if stem in images.files), None):
            found.append((stem, path))
            masks.add(name)
    refuse_shared(folder, found, "label maps")
    pairs = {stem: (images.files[stem], path) for stem, path in found}
    refuse_no_masks(folder, (mask for _, mask in pairs.values()))
    wrong = [mask for _, mask in pairs.values() if mask.suffix.lower() not in LABEL_SUFFIXES]
    if wrong:
        raise DataError(f"{wrong[0]}: cannot be read as a label map; save it as PNG")
    alone = [
        path.relative_to(folder).as_posix()
        for name, path in images.files.items()
        if name not in masks and name not in pairs
    ]
    return pairs, left_out_notes(folder, alone, "without a mask")


def _classes(root: Path, folder: Path) -> tuple[ClassFile, str]:
    for place in (folder, root):
        if (place / CSV).is_file():
            return read_classes_csv(place / CSV), CSV
    return read_class_file(root / "classes.txt"), "classes.txt"
