"""COCO 2017 (or 2014): label maps from the outlines of objects, in COCO's classes or VOC's.

T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context" (ECCV 2014).
"""

import functools
from pathlib import Path

import numpy as np

from kfcn.data.dataset import Dataset, Sample
from kfcn.data.formats.coco import Instances, Picture
from kfcn.data.formats.images import read_image, read_size
from kfcn.data.formats.text import read_json
from kfcn.data.sets import voc
from kfcn.errors import DataError, UsageError
from kfcn.labels import voc_coloured

# COCO's ids of the 20 classes of VOC, in VOC's order (couch is VOC's sofa, tv its tvmonitor, ...).
VOC_IDS = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
LEAST_AREA = 1000
"""torchvision keeps a training image when the areas of its VOC objects add up to more."""
LEAST_PIXELS = 200
"""CRF-RNN (Zheng et al. 2015, section 7) keeps one when they cover at least so many pixels."""


class Coco(Dataset):
    """`annotations/instances_SPLIT2017.json` with `SPLIT2017/*.jpg`.

    The classes are background and COCO's 80, in the order of COCO's ids. With `classes="voc"`
    they are VOC's 21, and training images with little of them are left out as torchvision does
    (`LEAST_AREA`); with "voc-200" as the CRF-RNN paper does (`LEAST_PIXELS`). Validation images
    are never left out. Objects in front of others are drawn over them, the smaller over the
    larger (torchvision ignores where they overlap), and a crowd is labelled with its class.
    """

    name = "coco"
    layout = (
        "annotations/instances_train2017.json, train2017/, and the same for val, from "
        "annotations_trainval2017.zip, train2017.zip and val2017.zip of cocodataset.org"
    )
    class_choices = ("voc", "voc-200")

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0, classes: str | None = None):
        root = Path(data_dir)
        found = _find(root, split)
        if found is None:
            raise UsageError(
                f"{root}: no instances file and image folder of the split {split!r} of coco"
            )
        file, self._images = found
        self._root, self.split = root, split
        self._instances = Instances(file)
        self._pictures = self._instances.pictures
        ids = tuple(self._instances.categories)
        if classes is None:
            names = ("background", *self._instances.categories.values())
            self.classes = voc_coloured(names)
        elif classes in self.class_choices:
            self.classes, ids = voc.CLASSES, VOC_IDS
            if split == "train":
                self._leave_out(classes)
        else:
            raise UsageError(
                f"coco has no classes {classes!r}; expected {' or '.join(self.class_choices)}, or "
                "none for COCO's own"
            )
        self.notes += self._instances.notes
        self._label_of = {category: label for label, category in enumerate(ids, start=1)}

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """Those of train and val whose JSON file and folder exist."""
        return tuple(split for split in ("train", "val") if _find(Path(data_dir), split))

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        image = read_image(self.image_file(index), self.file_name(index), self.stretch)
        labels = self._instances.paint(self._pictures[index], self._label_of, image.shape[:2])
        return Sample(image, labels, self.file_name(index))

    def image_file(self, index: int) -> Path:
        """The image's file."""
        return self._images / self._pictures[index].file_name

    def label_file(self, index: int) -> Path:
        """The JSON file of the split."""
        return self._instances.path

    def file_name(self, index: int) -> str:
        """Such as `train2017/000000000009.jpg`."""
        return self.image_file(index).relative_to(self._root).as_posix()

    def label_name(self, index: int) -> str:
        """The JSON file and the picture in it."""
        return f"{self._instances.path.name}: {self._pictures[index].file_name}"

    def joints(self, index: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """The joints of the people in a picture, for overlays.

        Returns:
            int64 `(people, 17, 3)` of x, y and visibility (0 not labelled, 1 hidden, 2 seen),
            and the pairs of joints that a skeleton connects. Nobody where the split has no
            `person_keypoints` file.
        """
        people, skeleton = self._people
        found = people.get(self._pictures[index].id, [])
        return np.array(found, np.int64).reshape(-1, 17, 3), skeleton

    @functools.cached_property
    def _people(self) -> tuple[dict[int, list], list[tuple[int, int]]]:
        name = self._instances.path.name.replace("instances_", "person_keypoints_")
        path = self._instances.path.with_name(name)
        if not path.is_file():
            return {}, []
        content = read_json(path)
        people: dict[int, list] = {}
        try:
            skeleton = [(a - 1, b - 1) for a, b in content["categories"][0]["skeleton"]]
            for person in content["annotations"]:
                if person["num_keypoints"]:
                    people.setdefault(person["image_id"], []).append(person["keypoints"])
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"{path}: is not a COCO keypoints file ({error})") from error
        return people, skeleton

    def _leave_out(self, classes: str) -> None:
        """Keeps the training images that hold enough of VOC's classes, and says how many."""
        everything = self._pictures
        by_area = [p for p in everything if self._area(p) > LEAST_AREA]
        by_pixels = [p for p in everything if self._covered(p)]
        self._pictures = by_pixels if classes == "voc-200" else by_area
        self.notes = (
            f"coco/{self.split} in VOC's classes: kept {len(self._pictures)} of {len(everything)} "
            f"images; torchvision's filter (objects of more than {LEAST_AREA} pixels in all) keeps "
            f"{len(by_area)}, the CRF-RNN paper's (at least {LEAST_PIXELS} labelled pixels) "
            f"{len(by_pixels)}",
        )

    def _area(self, picture: Picture) -> float:
        found = self._instances.outlines(picture)
        return sum(o.area or 0.0 for o in found if o.category in VOC_IDS)

    def _covered(self, picture: Picture) -> bool:
        found = self._instances.outlines(picture)
        areas = [o.area or 0.0 for o in found if o.category in VOC_IDS]
        # Outlines need not be painted where there can be no doubt; `area` may be a little off.
        if not areas or max(areas) >= 2 * LEAST_PIXELS:
            return bool(areas)
        size = read_size(self._images / picture.file_name)
        return self._instances.pixels(picture, VOC_IDS, size) >= LEAST_PIXELS


def _find(root: Path, split: str) -> tuple[Path, Path] | None:
    """The JSON file and the folder of images of a split."""
    for year in ("2017", "2014"):
        file = root / "annotations" / f"instances_{split}{year}.json"
        for folder in (root / f"{split}{year}", root / "images" / f"{split}{year}"):
            if file.is_file() and folder.is_dir():
                return file, folder
    return None
