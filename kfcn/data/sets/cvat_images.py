"""CVAT's export "CVAT for images 1.1", as `--data folder`.

`annotations.xml` beside `images/`, in which the images have the folders of the task, or those of
the subsets of a project.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from kfcn.data.formats.cvat_xml import NAME, CvatFile, CvatPicture, as_labelme, read_cvat
from kfcn.data.formats.images import read_head
from kfcn.data.formats.labelme import NO_OBJECTS, paint
from kfcn.data.listing import all_splits, find_file, part, refuse_shared, unlabelled_notes
from kfcn.data.sets.folder import Folder
from kfcn.data.sets.shapes import Shapes, written_classes
from kfcn.errors import DataError, counted, shortlist
from kfcn.files import until_changed
from kfcn.labels import Classes, voc_coloured

_read = until_changed(read_cvat)


class CvatImages(Shapes):
    """Images with polygons, boxes, ellipses, masks, polylines and points in one XML file.

    Lines and points are painted as labelme paints them. The classes are those of `classes.txt`,
    or else the background and the labels of the task, in their order and colours. Subsets of a
    project that are named like a split (`Train`, `Validation`) are the splits, or all its subsets
    where none is; otherwise the pictures are divided by the hash of their names.
    """

    name = Folder.name
    layout = Folder.layout

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        path = root / NAME
        file = _read(path)
        self._pictures = _of_split(file, split)
        found = [_image(root, picture) for picture in self._pictures]
        pairs = list(zip(found, self._pictures, strict=True))
        if missing := [picture.name for image, picture in pairs if image is None]:
            raise DataError(
                f"{path}: {len(missing)} of {counted(len(pairs), 'image')} in neither "
                f"{root / 'images'} nor {root}: {shortlist(missing)}; export with images, or put "
                "them there"
            )
        files = [image for image in found if image is not None]
        refuse_shared(path, ((image, picture.name) for image, picture in pairs if image))
        tags = [f"{count} {tag}" for tag, count in sorted(file.left_out.items())]
        notes = [f"{path}: left out {', '.join(tags)}, which cover nothing"] if tags else []
        notes += unlabelled_notes(root, map(_stem, file.pictures), f"that {NAME} does not name")
        classes = written_classes(root) or _classes(path, file)
        super().__init__(split, root, [(image, path) for image in files], classes, notes=notes)

    def _labels(self, index: int) -> np.ndarray:
        path, picture = self.label_file(index), self._pictures[index]
        size = read_head(self.stored_image(index), self.file_name(index)).size
        if size != picture.size:
            raise DataError(
                f"{path}: {picture.name:.200} is {picture.size[0]}x{picture.size[1]} there; the "
                f"image is {size[0]}x{size[1]} (height x width): export again"
            )
        shapes = as_labelme(path, picture)
        return paint(self.label_name(index), shapes, self._label_of, self._background, size)

    def label_name(self, index: int) -> str:
        """The XML file and the picture in it."""
        return f"{NAME}: {self._pictures[index].name}"

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The subsets of the project; train and val where it has none."""
        path = Path(data_dir) / NAME
        if not path.is_file():
            return ()
        return tuple(_subsets(_read(path))) or ("train", "val")


def _subsets(file: CvatFile) -> dict[str, str]:
    """Split -> subset, where the file has several."""
    subsets = sorted({picture.subset for picture in file.pictures})
    if len(subsets) < 2 or not all(subsets):
        return {}
    return all_splits(subsets)


def _of_split(file: CvatFile, split: str) -> list[CvatPicture]:
    subsets = _subsets(file)
    if split in subsets:
        return [picture for picture in file.pictures if picture.subset == subsets[split]]
    chosen = part(map(_stem, file.pictures), split)
    return [picture for picture in file.pictures if _stem(picture) in chosen]


def _stem(picture: CvatPicture) -> str:
    """Its path without suffix."""
    return str(PurePosixPath(picture.name).with_suffix(""))


def _image(root: Path, picture: CvatPicture) -> Path | None:
    """An image by the path in the file, or by its name alone."""
    name = picture.name.lstrip("/")
    for written in dict.fromkeys((f"{picture.subset}/{name}", name, PurePosixPath(name).name)):
        for place in (root / "images", root):
            if found := find_file(place / written):
                return found
    return None


def _classes(path: Path, file: CvatFile) -> Classes:
    """The background and the labels of the file, in its colours where these are good for it."""
    names = [name for name in file.colours if name not in NO_OBJECTS]
    if len(names) > 254:
        raise DataError(f"{path}: {len(names)} labels; expected up to 254")
    colours = [colour for name in names if (colour := file.colours[name])]
    palette = ((0, 0, 0), *colours)
    if len(palette) <= len(names) or len(set(palette)) < len(palette):  # some have none, or one
        return voc_coloured(["background", *names])
    return Classes(("background", *names), palette)
