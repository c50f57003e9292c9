"""What annotation programs export, read as it is: labelme's JSON, CVAT's COCO JSON and masks.

All three are `--data folder`. Where an export has no validation split, a tenth of its pictures,
by the hash of the name, is `val`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from kfcn.data.formats.coco import Instances, read_json
from kfcn.data.formats.images import reason
from kfcn.data.formats.labelme import BACKGROUND_NAMES, IGNORE_NAME, read_labelme, shape_names
from kfcn.data.sets.coco import Coco
from kfcn.data.sets.folder import Folder, read_classes
from kfcn.data.sets.pairs import (
    IMAGE_SUFFIXES,
    FilePairs,
    by_stem,
    existing,
    held_out,
    read_names,
    some,
)
from kfcn.errors import DataError
from kfcn.labels import IGNORE, Classes, voc_colour

_VOID = (224, 224, 192)  # the colour that VOC and CVAT give to "ignore"


def _coloured(names: list[str]) -> Classes:
    return Classes(tuple(names), tuple(voc_colour(index) for index in range(len(names))))


class Labelme(FilePairs):
    """Images with a JSON file of polygons beside each, in `data_dir` or in a folder a split.

    The classes are those of `classes.txt` or of labelme's own `labels.txt`; without either they
    are the background and the names found in all files, in alphabetical order. What no polygon
    covers is the class `background` (or `_background_`), and ignored where there is none;
    `__ignore__` is ignored.
    """

    name = Folder.name
    layout = Folder.layout

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        files = _labelme_files(root / split if _labelme_folders(root) else root)
        classes = _labelme_classes(root)
        label_of = {name: index for index, name in enumerate(classes.names)}
        background = next((label_of[n] for n in BACKGROUND_NAMES if n in label_of), IGNORE)
        # A hole in a region is drawn as background, whichever of its two names it has.
        known = label_of | dict.fromkeys(BACKGROUND_NAMES, background) | {IGNORE_NAME: IGNORE}
        pairs = [
            (path.parent / Path(str(read_json(path).get("imagePath", "")).replace("\\", "/")), path)
            for path in files
            if _labelme_folders(root) or held_out(path.stem) == (split == "val")
        ]
        super().__init__(
            split,
            root,
            existing(pairs, root),
            classes,
            read=lambda path: read_labelme(path, known, background),
        )

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The folders with labelme's files, or train and val where they lie in one."""
        root = Path(data_dir)
        if folders := _labelme_folders(root):
            return folders
        return ("train", "val") if _labelme_files(root) else ()


def _labelme_files(folder: Path) -> list[Path]:
    """JSON files that have an image beside them or say where it is."""
    return [
        path
        for path in sorted(folder.glob("*.json"))
        if b'"shapes"' in path.read_bytes() and b'"imagePath"' in path.read_bytes()
    ]


def _labelme_folders(root: Path) -> tuple[str, ...]:
    folders = (p for p in sorted(root.iterdir()) if p.is_dir() and p.name[0] != ".")
    return tuple(folder.name for folder in folders if _labelme_files(folder))


def _labelme_classes(root: Path) -> Classes:
    for file in (root / "classes.txt", root / "labels.txt"):
        if file.is_file():
            found = read_classes(file)
            kept = [i for i, name in enumerate(found.names) if name != IGNORE_NAME]
            return Classes(
                tuple(found.names[i] for i in kept),
                found.palette if len(kept) == len(found) else _coloured(kept).palette,
            )
    folders = [root / name for name in _labelme_folders(root)] or [root]
    files = [path for folder in folders for path in _labelme_files(folder)]
    names = set().union(*(shape_names(path) for path in files))
    return _coloured(["background", *sorted(names - {*BACKGROUND_NAMES, IGNORE_NAME})])


class CocoExport(Coco):
    """`annotations/instances_SUBSET.json` as CVAT writes it, images in `images/` or beside.

    The classes are the background and the categories of the file, in the order of their ids.
    """

    name = Folder.name
    layout = Folder.layout
    class_choices = ()

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        subsets = _subsets(root)
        subset = split if split in subsets else next(iter(subsets))
        self._root, self.split = root, split
        self._instances = Instances(root / "annotations" / f"instances_{subset}.json")
        pictures = self._instances.pictures
        if split not in subsets:
            pictures = [p for p in pictures if held_out(Path(p.file_name).stem) == (split == "val")]
        self._pictures = pictures
        places = (root / "images" / subset, root / "images", root / subset, root)
        self._images = next(
            (place for place in places if pictures and (place / pictures[0].file_name).is_file()),
            places[1],
        )
        missing = [p.file_name for p in pictures if not (self._images / p.file_name).is_file()]
        if missing:
            raise DataError(
                f"{self._instances.path}: {len(missing)} of its {len(pictures)} images are not in "
                f"{self._images}: {some(missing)}; export with images, or put them there"
            )
        names = [n for n in self._instances.categories.values() if n not in BACKGROUND_NAMES]
        self.classes = _coloured(["background", *names])
        self._label_of = {
            number: 0 if name in BACKGROUND_NAMES else 1 + names.index(name)
            for number, name in self._instances.categories.items()
        }

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The subsets of the export; train and val where it has only one."""
        subsets = _subsets(Path(data_dir))
        return ("train", "val") if len(subsets) == 1 else subsets


def _subsets(root: Path) -> tuple[str, ...]:
    files = sorted((root / "annotations").glob("instances_*.json"))
    return tuple(path.stem.removeprefix("instances_") for path in files)


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


def read_labelmap(path: Path) -> Classes:
    """CVAT's `labelmap.txt`: a line `name:r,g,b:parts:actions` for each class.

    Raises:
        DataError: a line is none of these.
    """
    names, palette = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, colour = line.split(":")[:2]
            red, green, blue = (int(value) for value in colour.split(","))
        except ValueError as error:
            raise DataError(
                f"{path}: line {line!r} is not of the form name:red,green,blue::"
            ) from error
        names.append(name)
        palette.append((red, green, blue))
    if not names:
        raise DataError(f"{path}: found no class; expected a line name:red,green,blue:: for each")
    return Classes(tuple(names), tuple(palette))


def read_colours(path: Path, label_of: dict[tuple[int, int, int], int]) -> np.ndarray:
    """A mask in colours as labels, uint8 `(H, W)`.

    A mask in grey holds the indices themselves.

    Raises:
        DataError: the file cannot be read, or holds a colour that is not in `label_of`.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("L", "1"):
                return np.array(image, np.uint8)
            values = np.asarray(image.convert("RGB")).astype(np.int32)
    except Exception as error:  # Pillow raises whatever its decoder meets
        raise DataError(f"{path}: cannot be read as a mask ({reason(error)})") from error
    code = values @ np.array([1 << 16, 1 << 8, 1], np.int32)  # (H, W)
    colours, inverse = np.unique(code, return_inverse=True)
    labels = np.zeros(len(colours), np.uint8)
    for index, number in enumerate(colours.tolist()):
        colour = (number >> 16, number >> 8 & 255, number & 255)
        if colour not in label_of:
            raise DataError(
                f"{path}: found the colour {colour}; expected one of {some(label_of)} "
                "(labelmap.txt)"
            )
        labels[index] = label_of[colour]
    return labels[inverse].reshape(code.shape)
