"""Any folder of images and label maps.

    DIR/classes.txt
    DIR/images/train/*.jpg  DIR/labels/train/*.png
    DIR/images/val/*.jpg    DIR/labels/val/*.png

With sub-folders in `images/` and `labels/`, each sub-folder that both have is a split. Without
any, `images/*.jpg` and `labels/*.png` are divided by a fixed rule: the SHA-1 hash of the stem
sends about a tenth of the pairs to `val` and the rest to `train`, so that a pair keeps its place
when others are added.

`classes.txt` has one class a line in the order of the indices, optionally followed by its colour
as `#rrggbb` or as three numbers. Label 255 is ignored.
"""

from pathlib import Path

from kfcn.data.formats.classes_txt import read_classes
from kfcn.data.sets.pairs import FilePairs, held_out, match


class Folder(FilePairs):
    """A folder of pairs in the layout above."""

    name = "folder"
    layout = "classes.txt, images/ and labels/, or an export of labelme or CVAT"

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        classes = read_classes(root / "classes.txt")
        if _split_folders(root):
            pairs = match(root / "images" / split, root / "labels" / split)
        else:
            pairs = [
                pair
                for pair in match(root / "images", root / "labels")
                if held_out(pair[0].stem) == (split == "val")
            ]
        super().__init__(split, root, pairs, classes)

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The sub-folders that images/ and labels/ share, or train and val."""
        root = Path(data_dir)
        if not (root / "images").is_dir() or not (root / "labels").is_dir():
            return ()
        return _split_folders(root) or ("train", "val")


def _split_folders(root: Path) -> tuple[str, ...]:
    def folders(parent: Path) -> set[str]:
        if not parent.is_dir():
            return set()
        return {path.name for path in parent.iterdir() if path.is_dir() and path.name[0] != "."}

    return tuple(sorted(folders(root / "images") & folders(root / "labels")))
