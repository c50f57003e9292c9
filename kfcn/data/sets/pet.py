"""The Oxford-IIIT Pet data set: cats and dogs, with a trimap for each picture.

O. Parkhi et al., "Cats and Dogs" (CVPR 2012). In a trimap 1 is the pet, 2 the background and 3
the border between them, "not classified": it is ignored here.
"""

from pathlib import Path

from kfcn.data.formats.lists import read_names
from kfcn.data.listing import existing, find_or, held_out
from kfcn.data.sets.pairs import FilePairs
from kfcn.labels import IGNORE, Classes

CLASSES = Classes(("background", "pet"), ((0, 0, 0), (240, 150, 60)))
RELABEL = {1: 1, 2: 0, 3: IGNORE, 0: 254}  # 0 is no value of a trimap: let the check name it


class Pet(FilePairs):
    """`images/*.jpg`, `annotations/trimaps/*.png`, `annotations/{trainval,test}.txt`.

    The data set has no validation list: about a tenth of trainval, by the hash of the name, is
    `val` and the rest `train`. `test` is as published.
    """

    name = "pet"
    layout = "images/ and annotations/, from images.tar.gz and annotations.tar.gz"

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        source = root / "annotations" / ("test.txt" if split == "test" else "trainval.txt")
        names = sorted(read_names(source))
        if split in ("train", "val"):
            names = [name for name in names if held_out(name) == (split == "val")]
        images, trimaps = root / "images", root / "annotations" / "trimaps"
        pairs = [
            (find_or(images / f"{name}.jpg"), find_or(trimaps / f"{name}.png")) for name in names
        ]
        super().__init__(split, root, existing(pairs, source), CLASSES, RELABEL)

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """train, val, trainval and test, as far as their lists are there."""
        lists = Path(data_dir) / "annotations"
        names = ("train", "val", "trainval") if (lists / "trainval.txt").is_file() else ()
        return (*names, "test") if (lists / "test.txt").is_file() else names
