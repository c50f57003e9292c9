"""COCO JSON as annotation programs export it, as `--data folder`.

CVAT writes `annotations/instances_SUBSET.json`, Roboflow `SPLIT/_annotations.coco.json`, Label
Studio and labelme's converters a JSON file beside the images.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Self

from kfcn.data.dataset import Dataset, Sample
from kfcn.data.formats.coco import Instances, Picture
from kfcn.data.formats.images import read_image
from kfcn.data.formats.labelme import BACKGROUND_NAMES, IGNORE_NAME, NO_OBJECTS
from kfcn.data.listing import all_splits, find_file, part, refuse_shared, unlabelled_notes
from kfcn.data.reading import Reading
from kfcn.data.sets.folder import Folder
from kfcn.errors import DataError, counted, shortlist
from kfcn.files import open_file, until_changed
from kfcn.labels import IGNORE, voc_coloured

_ROBOFLOW = "_annotations.coco.json"
_INSTANCES = "instances_"

_read = until_changed(Instances)


class CocoExport(Dataset):
    """One or more JSON files of the COCO kind, with the images beside, in `images/` or below.

    The classes are the background and the categories of all the files, in the order of their ids,
    without those that only group others. A file is a split (`valid` is val); the pictures of one
    alone are divided, even where it is called `train`.
    """

    name = Folder.name
    layout = Folder.layout
    _background = 0

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        export = {name: _read(path) for name, path in _files(root).items()}
        self._root, self.split = root, split
        alone = len(export) == 1
        self._instances = next(iter(export.values())) if alone else export[split]
        pictures = self._instances.pictures
        if alone:
            chosen = part(map(_stem, pictures), split)
            pictures = [p for p in pictures if _stem(p) in chosen]
        self._pictures = pictures
        places = _image_places(root, self._instances.path)
        found = [_image(places, picture.file_name) for picture in pictures]
        missing = [p.file_name for p, f in zip(pictures, found, strict=True) if f is None]
        if missing:
            raise DataError(
                f"{self._instances.path}: {len(missing)} of {counted(len(pictures), 'image')} not "
                f"in {' or '.join(str(place) for place in places)}: {shortlist(missing)}; export "
                "with images, or put them there"
            )
        self._files = [file for file in found if file is not None]
        named = (f"{p.file_name} (id {p.id})" for p in pictures)
        refuse_shared(self._instances.path, zip(self._files, named, strict=True))
        categories = _categories(export.values())
        names = dict.fromkeys(n for n in categories.values() if n not in NO_OBJECTS)
        if len(names) > 254:
            raise DataError(f"{self._instances.path}: {len(names)} categories; expected up to 254")
        self.classes = voc_coloured(["background", *names])
        label_of = {name: label for label, name in enumerate(names, start=1)}
        label_of |= dict.fromkeys(BACKGROUND_NAMES, 0) | {IGNORE_NAME: IGNORE}
        self._label_of = {number: label_of[name] for number, name in categories.items()}
        annotated = [_stem(p) for instances in export.values() for p in instances.pictures]
        self.notes = (
            *self._instances.notes,
            *unlabelled_notes(root, annotated, "that no JSON file of the export names"),
        )

    def read_as(self, reading: Reading) -> Self:
        """The same pictures; with `unlabelled="ignore"` what no object covers is 255."""
        other = super().read_as(dataclasses.replace(reading, unlabelled="background"))
        if reading.unlabelled == "ignore":
            other._background = IGNORE
        return other

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        picture, name = self._pictures[index], self.file_name(index)
        image = read_image(self._files[index], name, self.stretch)
        size = image.shape[:2]
        labels = self._instances.paint(picture, self._label_of, size, self._background)
        return Sample(image, labels, name)

    def image_file(self, index: int) -> Path:
        """The image's file."""
        return self._files[index]

    def label_file(self, index: int) -> Path:
        """The JSON file of the split."""
        return self._instances.path

    def file_name(self, index: int) -> str:
        """The image's path in the data set's folder."""
        return self._files[index].as_posix().removeprefix(f"{self._root.as_posix()}/")

    def label_name(self, index: int) -> str:
        """The JSON file and the picture in it."""
        return f"{self._instances.path.name}: {self._pictures[index].file_name}"

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The files of the export; train and val where it has only one."""
        files = _files(Path(data_dir))
        return ("train", "val") if len(files) == 1 else tuple(files)


def _stem(picture: Picture) -> str:
    """Its name without folder and suffix."""
    return PurePosixPath(picture.file_name).stem


def _files(root: Path) -> dict[str, Path]:
    """Split -> JSON file."""
    roboflow = {p.parent.name: p for p in sorted(root.glob(f"*/{_ROBOFLOW}"))}
    cvat = sorted((root / "annotations").glob("*.json"))
    named = [path for path in cvat if path.name.startswith(_INSTANCES)]
    beside = [path for path in sorted(root.glob("*.json")) if _is_coco(path)]
    found = (
        roboflow
        or {path.stem.removeprefix(_INSTANCES): path for path in named}
        or {path.stem.removeprefix("_"): path for path in (*cvat, *beside) if _is_coco(path)}
    )
    return {split: found[name] for split, name in all_splits(found).items()}


def _is_coco(path: Path) -> bool:
    """Whether a JSON file seems to be of the COCO kind; all is said of it when it is read."""
    try:
        with open_file(path) as file:
            content = file.read()
    except OSError:
        return False
    return all(word in content for word in (b'"images"', b'"annotations"', b'"categories"'))


def _categories(export: Iterable[Instances]) -> dict[int, str]:
    """The categories of all files, in the order of their ids.

    Raises:
        DataError: two files have different names for an id.
    """
    found: dict[int, str] = {}
    kept: set[int] = set()
    for instances in export:
        for number, name in instances.categories.items():
            if found.setdefault(number, name) != name:
                raise DataError(
                    f"{instances.path}: category {number} is {name!r} and in another file of the "
                    f"export {found[number]!r}; export both splits from one project"
                )
        kept |= instances.categories.keys() - instances.groups
    return {number: found[number] for number in sorted(kept)}


def _image_places(root: Path, path: Path) -> list[Path]:
    """The folders in which the images of a JSON file may be."""
    subset = path.stem.removeprefix(_INSTANCES)
    places = [root / "images" / subset, root / "images", root / subset, path.parent, root]
    existing = [place for place in dict.fromkeys(places) if place.is_dir()]
    return existing or [root / "images"]


def _image(places: list[Path], name: str) -> Path | None:
    """An image by the path in the JSON file, or by its name alone: paths are another machine's."""
    for written in dict.fromkeys((name.lstrip("/"), PurePosixPath(name).name)):
        for place in places:
            if found := find_file(place / written):
                return found
    return None
