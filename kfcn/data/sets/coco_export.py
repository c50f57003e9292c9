"""COCO JSON as annotation programs export it, as `--data folder`."""

from pathlib import Path

from kfcn.data.formats.coco import Instances
from kfcn.data.formats.labelme import BACKGROUND_NAMES
from kfcn.data.sets.coco import Coco
from kfcn.data.sets.folder import Folder
from kfcn.data.sets.pairs import held_out
from kfcn.errors import DataError, shortlist
from kfcn.labels import voc_coloured


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
                f"{self._images}: {shortlist(missing)}; export with images, or put them there"
            )
        names = [n for n in self._instances.categories.values() if n not in BACKGROUND_NAMES]
        self.classes = voc_coloured(["background", *names])
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
