"""Cityscapes, fine annotations, the 19 classes of the benchmark ("train ids").

M. Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding" (CVPR 2016);
ids and colours as in the data set's own table of labels.
"""

from pathlib import Path

from kfcn.data.listing import existing, splits_with
from kfcn.data.sets.pairs import FilePairs
from kfcn.labels import IGNORE, Classes

# Stored id, name, colour; the place in this table is the train id.
_TABLE = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
CLASSES = Classes(tuple(row[1] for row in _TABLE), tuple(row[2] for row in _TABLE))
# The ids 0 to 33 that the benchmark does not count are ignored; a number above is an error.
RELABEL = dict.fromkeys(range(34), IGNORE) | {row[0]: i for i, row in enumerate(_TABLE)}

IMAGE, LABELS = "_leftImg8bit.png", "_gtFine_labelIds.png"


class Cityscapes(FilePairs):
    """`leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`, `gtFine/SPLIT/CITY/*_gtFine_labelIds.png`."""

    name = "cityscapes"
    layout = (
        "leftImg8bit/ and gtFine/, from leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip "
        "of cityscapes-dataset.com (a free account is needed; kfcn may not download them)"
    )

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        images = root / "leftImg8bit" / split
        pairs = []
        for image in sorted(images.glob(f"*/*{IMAGE}")):
            stem = image.name.removesuffix(IMAGE)
            pairs.append((image, root / "gtFine" / split / image.parent.name / f"{stem}{LABELS}"))
        super().__init__(split, root, existing(pairs, images), CLASSES, RELABEL)

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """Those of train, val and test of which both folders exist."""
        return splits_with(data_dir, "leftImg8bit/{}", "gtFine/{}")
