"""CVAT's "Segmentation mask" export, as `--data folder`."""

from pathlib import Path

import numpy as np

from kfcn.data.formats.images import IMAGE_SUFFIXES
from kfcn.data.formats.label_maps import LABEL_SUFFIXES
from kfcn.data.formats.labelmap import read_labelmap
from kfcn.data.formats.lists import read_names
from kfcn.data.formats.rgb_masks import read_colours
from kfcn.data.listing import (
    NO_LABEL_SUFFIXES,
    all_splits,
    existing,
    left_out_notes,
    list_files,
    part,
    refuse_no_masks,
)
from kfcn.data.sets.folder import Folder
from kfcn.data.sets.pairs import FilePairs
from kfcn.errors import DataError
from kfcn.labels import IGNORE, VOID_COLOUR


class MaskExport(FilePairs):
    """CVAT's "Segmentation mask": `labelmap.txt`, `SegmentationClass/*.png` and the images.

    The images are in `JPEGImages/` or `images/`, in the folders that the task had. The masks are
    read by the colours of `labelmap.txt`; a colour that is not in it is an error. The lists of
    `ImageSets/Segmentation` are the splits; where there is only one, its pictures are divided.
    """

    name = Folder.name
    layout = Folder.layout

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        classes = read_labelmap(root / "labelmap.txt")
        folder = next((p for p in (root / "JPEGImages", root / "images") if p.is_dir()), None)
        if folder is None:
            raise DataError(
                f"{root}: no JPEGImages/ or images/; export with images, or put them there"
            )
        images = list_files(folder, IMAGE_SUFFIXES)
        place = root / "SegmentationClass"
        masks = list_files(place, LABEL_SUFFIXES, besides=NO_LABEL_SUFFIXES)
        lists = _lists(root)
        if split in lists:
            names = read_names(lists[split], masks.files)
        else:
            chosen = part(masks.files, split)
            names = [name for name in masks.files if name in chosen]
        pairs = [
            (
                images.files.get(name, folder / f"{name}.jpg"),
                masks.files.get(name, place / f"{name}.png"),
            )
            for name in names
        ]
        existing(pairs, root)
        refuse_no_masks(place, (mask for _, mask in pairs))
        colour_of = {VOID_COLOUR: IGNORE} | {c: index for index, c in enumerate(classes.palette)}

        def read(path: Path, page: int | None = None) -> np.ndarray:
            return read_colours(path, colour_of, page=page)

        alone = [p.name for name, p in images.files.items() if name not in masks.files]
        notes = left_out_notes(folder, images.left_out) + left_out_notes(place, masks.left_out)
        notes += left_out_notes(folder, alone, "without a mask")
        super().__init__(split, root, pairs, classes, read=read, notes=notes)

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The lists of the export; train and val where it has only one."""
        root = Path(data_dir)
        if not (root / "labelmap.txt").is_file() or not (root / "SegmentationClass").is_dir():
            return ()
        return tuple(_lists(root)) or ("train", "val")


def _lists(root: Path) -> dict[str, Path]:
    """Split -> list file, where the export has several."""
    lists = {p.stem: p for p in sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))}
    if len(lists) < 2:
        return {}
    return {split: lists[name] for split, name in all_splits(lists).items()}
