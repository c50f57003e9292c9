"""CamVid in the layout of the SegNet tutorial: road scenes, 11 classes, 360x480.

G. Brostow, J. Fauqueur and R. Cipolla, "Semantic object classes in video" (2009); the 11 classes
and the split are those of V. Badrinarayanan, A. Kendall and R. Cipolla, "SegNet" (2017).
"""

from pathlib import Path

from kfcn.data.dataset import IGNORE, Classes
from kfcn.data.pairs import FilePairs, match

CLASSES = Classes(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
VOID = 11  # "unlabelled" in the files


class CamVid(FilePairs):
    """`data_dir/{train,val,test}` with images, `data_dir/{train,val,test}annot` with label maps.

    The label 11 of the files (void) becomes 255.
    """

    name = "camvid"
    layout = (
        "train/, trainannot/ and the same for val and test (the SegNet tutorial's CamVid folder)"
    )

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        pairs = match(root / split, root / f"{split}annot")
        super().__init__(split, root, pairs, CLASSES, {VOID: IGNORE})

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """Those of train, val and test whose two folders exist."""
        root = Path(data_dir)
        return tuple(
            split
            for split in ("train", "val", "test")
            if (root / split).is_dir() and (root / f"{split}annot").is_dir()
        )
