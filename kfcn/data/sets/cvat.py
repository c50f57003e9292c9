"""CVAT's "Segmentation mask" export, as `--data folder`."""

from pathlib import Path

from kfcn.data.formats.labelmap import read_labelmap
from kfcn.data.formats.lists import read_names
from kfcn.data.formats.rgb_masks import read_colours
from kfcn.data.sets.folder import Folder
from kfcn.data.sets.pairs import IMAGE_SUFFIXES, FilePairs, by_stem, existing, held_out
from kfcn.errors import DataError
from kfcn.labels import IGNORE

_VOID = (224, 224, 192)  # the colour that VOC and CVAT give to "ignore"


class MaskExport(FilePairs):
    """CVAT's "Segmentation mask": `labelmap.txt`, `SegmentationClass/*.png` and the images.

    The images are in `JPEGImages/` or `images/`. The masks are read by the colours of
    `labelmap.txt`; a colour that is not in it is an error.
    """

    name = Folder.name
    layout = Folder.layout

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        classes = read_labelmap(root / "labelmap.txt")
        lists = {p.stem: p for p in (root / "ImageSets" / "Segmentation").glob("*.txt")}
        if split in lists and len(lists) > 1:
            names = read_names(lists[split])
        else:
            everything = [p.stem for p in sorted((root / "SegmentationClass").glob("*.png"))]
            names = [name for name in everything if held_out(name) == (split == "val")]
        folders = (root / "JPEGImages", root / "images")
        folder = next((place for place in folders if place.is_dir()), None)
        if folder is None:
            raise DataError(
                f"{root}: no JPEGImages/ or images/; export with images, or put them there"
            )
        images = by_stem(folder, IMAGE_SUFFIXES)
        pairs = [
            (
                images.get(name, folder / f"{name}.jpg"),
                root / "SegmentationClass" / f"{name}.png",
            )
            for name in names
        ]
        colour_of = {colour: index for index, colour in enumerate(classes.palette)}
        super().__init__(
            split,
            root,
            existing(pairs, root),
            classes,
            read=lambda path: read_colours(path, {_VOID: IGNORE} | colour_of),
        )

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The lists of the export; train and val where it has only one."""
        root = Path(data_dir)
        if not (root / "labelmap.txt").is_file() or not (root / "SegmentationClass").is_dir():
            return ()
        lists = sorted(p.stem for p in (root / "ImageSets" / "Segmentation").glob("*.txt"))
        return tuple(lists) if len(lists) > 1 else ("train", "val")
