"""CamVid in the layout of the SegNet tutorial: road scenes, 11 classes, 360x480.

G. Brostow, J. Fauqueur and R. Cipolla, "Semantic object classes in video" (2009); the 11 classes
and the split are those of V. Badrinarayanan, A. Kendall and R. Cipolla, "SegNet" (2017).
"""

import itertools
from pathlib import Path

from kfcn.data.listing import match, splits_with
from kfcn.data.sets.pairs import FilePairs
from kfcn.labels import IGNORE, Classes

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

    The label 11 of the files (void) becomes 255. To choose settings without looking at `val`, the
    split `train` comes in two parts as well: `held`, the last fifth of each of its drives, and
    `fit`, the rest. (Frames of a drive are a second apart: drawn at random, the parts would be
    alike.)
    """

    name = "camvid"
    parts = ("fit", "held")
    layout = (
        "train/, trainannot/ and the same for val and test (the SegNet tutorial's CamVid folder)"
    )

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        folder = "train" if split in self.parts else split
        pairs = match(root / folder, root / f"{folder}annot")
        if split in self.parts:
            pairs = _part(pairs, held=split == "held")
        super().__init__(split, root, pairs, CLASSES, {VOID: IGNORE})

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """Those of train, val and test whose two folders exist."""
        return splits_with(data_dir, "{}", "{}annot")


def _part(pairs: list[tuple[Path, Path]], held: bool) -> list[tuple[Path, Path]]:
    """The last fifth of each drive, or the rest; `0016E5_01260.png` is of the drive 0016E5."""
    drives = itertools.groupby(pairs, key=lambda pair: pair[0].stem.split("_")[0])
    found = []
    for _, frames in drives:
        frames = list(frames)
        cut = len(frames) - len(frames) // 5
        found += frames[cut:] if held else frames[:cut]
    return found
