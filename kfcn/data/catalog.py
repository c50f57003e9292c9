"""The table of data sets, and how one is opened by its name.

A row imports no reader: `--help`, checks and documentation read the table without NumPy.
"""

import contextlib
import dataclasses
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfcn.data.grouping import Grouping, groups_classes
from kfcn.data.reading import AS_USUAL, Reading
from kfcn.errors import UsageError, first_line, shortlist

if TYPE_CHECKING:
    from kfcn.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        readers: "module:class" of `kfcn.data.sets`. A folder may be of several kinds: the first
            that finds a split in it reads it, and the first of all says what is expected.
        about: a line for help and documentation.
        splits: which ones there are, in words.
        classes: its own choices of `--classes`, in words; empty where it has one set of classes.
        folder: whether it is read from one.
        tfds: its name in tensorflow_datasets, which downloads it where no folder holds it.
    """

    readers: tuple[str, ...]
    about: str
    splits: str = "train, val, test"
    classes: str = ""
    folder: bool = True
    tfds: str | None = None

    @property
    def reader(self) -> Any:
        """The class of the first reader, a `Dataset`."""
        return pkgutil.resolve_name(self.readers[0])

    def reader_of(self, data_dir: str | Path | None) -> Any:
        """The class that reads this folder, a `Dataset`."""
        if len(self.readers) == 1 or data_dir is None:
            return self.reader
        kinds = map(pkgutil.resolve_name, self.readers)
        return next((kind for kind in kinds if kind.splits(data_dir)), self.reader)


DATASETS = {
    "scenes": Row(
        ("kfcn.data.sets.scenes:Scenes",),
        "toys on a floor, drawn by the program; the seed chooses the pictures",
        folder=False,
    ),
    "camvid": Row(
        ("kfcn.data.sets.camvid:CamVid",),
        "road scenes, 11 classes",
        "train, val, test; parts of train: fit, held",
    ),
    "folder": Row(
        (
            "kfcn.data.sets.folder:Folder",
            "kfcn.data.sets.cvat:MaskExport",
            "kfcn.data.sets.cvat_images:CvatImages",
            "kfcn.data.sets.coco_export:CocoExport",
            "kfcn.data.sets.labelme:Labelme",
            "kfcn.data.sets.beside:Beside",
        ),
        "your own pictures, or an export of labelme or CVAT as it is",
        "its own, or a tenth is val",
    ),
    "voc": Row(
        ("kfcn.data.sets.voc:VOC",),
        "PASCAL VOC 2012, 20 classes and background; with SBD's labels where they are there",
        "train, val, trainval; with SBD train_aug; with VOC 2011's list seg11valid",
    ),
    "coco": Row(
        ("kfcn.data.sets.coco:Coco",),
        "COCO 2017, 80 classes and background",
        "train, val",
        classes="voc or voc-200 (VOC's 21 classes)",
    ),
    "ade20k": Row(
        ("kfcn.data.sets.ade20k:ADE20K",),
        "ADE20K scene parsing, 150 classes; downloaded without --data-dir",
        "train, val",
        tfds="scene_parse150",
    ),
    "cityscapes": Row(("kfcn.data.sets.cityscapes:Cityscapes",), "Cityscapes, the 19 train ids"),
    "pet": Row(
        ("kfcn.data.sets.pet:Pet",),
        "Oxford-IIIT Pet, pet and background; downloaded without --data-dir",
        "train, val (a tenth of trainval), trainval, test",
        tfds="oxford_iiit_pet",
    ),
    "nyudv2": Row(
        ("kfcn.data.sets.nyudv2:NYUDv2Folder", "kfcn.data.sets.nyudv2:NYUDv2"),
        "NYU Depth v2 in colour, the 40 classes of Gupta et al.",
        "train, val, trainval, test",
    ),
    "prepared": Row(
        ("kfcn.data.sets.prepared:Prepared",),
        "record files that kfcn-data prepare has written",
        "its own",
    ),
}
_TFDS = "tfds:"
NAMES = (*DATASETS, f"{_TFDS}NAME")

CLASSES = {name: row.classes for name, row in DATASETS.items() if row.classes} | {
    NAMES[-1]: "a classes.txt"
}
"""Data set -> its own choices of classes, in words."""
CLASSES_HELP = (
    "which classes, such as person,cat,dog: the rest becomes background, or 255 with rest=ignore; "
    "or a file with lines such as `animal = cat, dog` and `ignore = sky`; "
    + "; ".join(f"of {name} also {text}" for name, text in CLASSES.items())
)


def is_name(name: str) -> bool:
    """Whether it is one of `NAMES`; `tfds:` may be followed by any name."""
    return name in DATASETS or (name.startswith(_TFDS) and name != _TFDS)


@dataclasses.dataclass(frozen=True)
class Source:
    """What names a data set: enough to open its splits again, in whatever process.

    The fields are the arguments of `load`. Where `reading` is None files are read as usual, and
    for a net as its training read them.
    """

    name: str
    data_dir: str | Path | None = None
    seed: int = 0
    classes: str | None = None
    reading: Reading | None = None

    @property
    def as_read(self) -> Reading:
        """How the files are read where no net says more."""
        return self.reading or AS_USUAL

    @property
    def file_name(self) -> str:
        """The name as a part of a file's name: `tfds:NAME` has a colon, which Windows refuses."""
        return self.name.replace(":", "-").replace("/", "-")

    def open(self, split: str) -> "Dataset":
        """Opens one split (`load`)."""
        return load(self.name, split, self.data_dir, self.seed, self.classes, self.as_read)

    def open_for(self, card: Mapping[str, Any] | None, split: str) -> "Dataset":
        """Opens one split in the classes that a net was trained for, read as its training read it.

        The classes are those of this source where it chooses some, and its own where they are the
        net's already; else what the net's card says of them.

        Args:
            card: of the net; None where it has none.
            split: the split.

        Raises:
            UsageError: as `load`; or the data set lacks what the classes of the net were made of.
        """
        if self.reading is None:
            return dataclasses.replace(self, reading=Reading.of_card(card)).open_for(card, split)
        dataset = self.open(split)
        if card is None or self.classes is not None or not card.get("grouping"):
            return dataset
        if dataset.classes.names == tuple(card["classes"]):
            return dataset
        try:
            return dataclasses.replace(self, classes=card["grouping"]).open(split)
        except UsageError as error:  # names `classes`, which nobody gave
            raise UsageError(
                f"the net was trained for {shortlist(card['classes'])}; {dataset.name} has "
                f"{shortlist(dataset.classes.names)}: name those that are the net's with "
                "--classes, or choose other data"
            ) from error

    def stretched(self, stretch: tuple[int, int] | None) -> "Source":
        """The same with another stretch of pictures of more than 8 bits (`kfcn.data.Reading`)."""
        reading = dataclasses.replace(self.as_read, stretch=stretch)
        return dataclasses.replace(self, reading=reading)

    def anywhere(self) -> "Source":
        """The same in any folder and process: an absolute folder, classes without their file."""
        folder = None if self.data_dir is None else str(Path(self.data_dir).resolve())
        return Source(self.name, folder, self.seed, self.chosen_classes(), self.as_read)

    def chosen_classes(self) -> str | None:
        """`classes` with a file replaced by what it says.

        Raises:
            UsageError: no such file, one that is no UTF-8, or a text that names no classes.
        """
        text, file = self.classes, None
        if text is None or text in _own_choices(self.name):
            return text
        if is_path(text):
            try:
                content = Path(text).read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"classes {text}: cannot be read ({first_line(error)})") from error
            if not content.strip():
                raise UsageError(f"classes {text}: the file is empty; expected a name in each line")
            if self.name.startswith(_TFDS) and not groups_classes(content):
                return str(Path(text).resolve())  # a classes.txt with the names of its classes
            text, file = content, text
        return str(Grouping.parse(text, file))

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that exist (`splits`)."""
        return splits(self.name, self.data_dir)

    def usual_splits(self) -> tuple[str, ...]:
        """Those of train, val and test that exist; all splits where none of these does."""
        found = self.splits()
        return tuple(split for split in ("train", "val", "test") if split in found) or found


def load(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    seed: int = 0,
    classes: str | None = None,
    reading: Reading = AS_USUAL,
) -> "Dataset":
    """Opens one split of a data set; nothing is decoded yet.

    Args:
        name: one of `NAMES`; `tfds:NAME` is any data set of tensorflow_datasets with an image and
            a mask.
        split: one of `splits(name, data_dir)`, or of the data set's `parts`; or a part of such as
            "train[0/5]" (`kfcn.data.feed.views.split_of`).
        data_dir: the folder of a data set made of files; None for `scenes`, and for what TFDS
            downloads (ade20k, pet, tfds:NAME), where it is TFDS' own folder.
        seed: which pictures `scenes` draws; the data sets made of files do not look at it.
        classes: which classes, and what becomes of the others: a list or file as
            `kfcn.data.grouping` describes it, or a choice of the data set's own ("voc" and
            "voc-200" for coco; a classes.txt for tfds:NAME).
        reading: how the files are read, where there is a choice.

    Raises:
        UsageError: an unknown name or split, or no such folder; the message says what exists. An
            optional package that the data set needs is missing.
        DataError: images and label maps that do not match, or a bad `classes.txt`.
    """
    from kfcn.data.feed.views import split_of  # brings NumPy

    own, part = split_of(split)
    return part(_opened(Source(name, data_dir, seed, classes, reading), own))


def _opened(source: Source, split: str) -> "Dataset":
    name, data_dir = source.name, source.data_dir
    known = splits(name, data_dir)
    if name in DATASETS:
        known += DATASETS[name].reader.parts
    if split not in known:
        place = f" in {data_dir}" if data_dir is not None else ""
        raise UsageError(
            f"{name} has no split {split!r}{place}; expected one of: {', '.join(known)}"
        )
    chosen = source.chosen_classes()
    own = chosen is None or chosen in _own_choices(name) or is_path(chosen)
    tfds_name = _tfds_name(name, data_dir)
    if tfds_name:
        from kfcn.data.sets.tfds_set import TfdsSet

        dataset = TfdsSet(tfds_name, split, data_dir, chosen if own else None)
    else:
        more = {"classes": chosen} if own and chosen else {}
        dataset = DATASETS[name].reader_of(data_dir)(split, data_dir, source.seed, **more)
    dataset = dataset.read_as(source.as_read)
    if own or chosen is None:
        return dataset
    from kfcn.data.regrouped import Regrouped

    try:
        return Regrouped(dataset, Grouping.parse(chosen))
    except UsageError as error:
        choices = ", ".join(_own_choices(name))
        raise UsageError(f"{error}; or {choices}" if choices else str(error)) from error


def _own_choices(name: str) -> tuple[str, ...]:
    """What the data set itself takes for `classes`."""
    row = DATASETS.get(name)
    return row.reader.class_choices if row and row.classes else ()


def is_path(text: str) -> bool:
    """Whether `classes` names a file, and does not say them itself."""
    with contextlib.suppress(OSError):  # a list may be longer than the name of a file
        if Path(text).is_file():
            return True
    return text.endswith(".txt") and not set(text) & set(",;=\n")


def check_place(name: str, data_dir: str | Path | None) -> None:
    """Makes sure that there is a folder where the data set is read from one; nothing is opened.

    Raises:
        UsageError: an unknown name, or a folder that is missing, not there or not wanted.
    """
    if not is_name(name):
        raise UsageError(f"unknown data set {name!r}; expected one of: {', '.join(NAMES)}")
    entry = DATASETS.get(name)
    if entry is None or (entry.tfds and data_dir is None):  # TFDS has a folder of its own
        return
    if not entry.folder and data_dir is not None:
        raise UsageError(
            f"{name} is drawn by the program and takes no folder; received {data_dir}: name what "
            "it holds, such as --data folder for your own pictures"
        )
    if entry.folder:
        layout = entry.reader.layout
        if data_dir is None:
            raise UsageError(
                f"{name} is read from a folder; name it with --data-dir DIR; it must hold {layout}"
            )
        if not Path(data_dir).is_dir():
            raise UsageError(f"{data_dir}: no such folder; expected the one with {layout}")


def splits(name: str, data_dir: str | Path | None = None) -> tuple[str, ...]:
    """Names of the splits that exist.

    Raises:
        UsageError: an unknown name, or a folder that is missing, not there, not wanted or that
            holds something else; the message says what belongs where.
    """
    check_place(name, data_dir)
    tfds_name = _tfds_name(name, data_dir)
    if tfds_name is not None:
        from kfcn.data.sets import tfds_set

        return tfds_set.splits(tfds_name, data_dir)
    entry = DATASETS[name]
    found = entry.reader_of(data_dir).splits(data_dir)
    if not found:
        raise UsageError(f"{data_dir} does not hold {name}; expected {entry.reader.layout}")
    return found


def _tfds_name(name: str, data_dir: str | Path | None) -> str | None:
    """What TFDS calls the data set, where it is TFDS that reads it."""
    if name.startswith(_TFDS):
        return name.removeprefix(_TFDS)
    entry = DATASETS[name]
    if entry.tfds is None or (data_dir is not None and entry.reader.splits(data_dir)):
        return None
    return entry.tfds if data_dir is None or (Path(data_dir) / entry.tfds).is_dir() else None
