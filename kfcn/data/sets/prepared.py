"""What `kfcn-data prepare` has written, as a data set."""

from pathlib import Path
from typing import Self

import numpy as np

from kfcn.data.dataset import Counts
from kfcn.data.formats.text import read_json
from kfcn.data.sets.records import RecordSet
from kfcn.errors import DataError, UsageError, first_line
from kfcn.files import until_changed
from kfcn.labels import Classes

CARD = "kfcn.json"


class Prepared(RecordSet):
    """Record files with the classes of the data set that they were made of.

    Every pair was looked at when it was written, so that `kfcn.data.check` is done at once.
    """

    name = "prepared"
    layout = "what kfcn-data prepare has written (kfcn.json, dataset_info.json, record files)"

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        card = _card(str(data_dir))
        classes = Classes(tuple(card["classes"]), tuple(tuple(c) for c in card["palette"]))
        keys = ("image", "segmentation_mask", "file_name")
        info = _info(Path(data_dir) / "dataset_info.json")
        super().__init__(self.name, split, info, keys, classes)
        counted = card["splits"][split]
        self.notes = tuple(counted["notes"])
        self.stretch = tuple(card["stretch"]) if card.get("stretch") else None
        self.counts = Counts(
            np.array(counted["pixels"], np.int64),
            np.array(counted["image_pixels"], np.int64),
            counted["ignored"],
            counted["images"],
        )

    def _stretched(self, stretch: tuple[int, int] | None) -> Self:
        """Itself: its pictures were stretched when they were written."""
        if stretch and self.stretch and tuple(stretch) != self.stretch:
            raise UsageError(
                f"prepared: what was stored as {self.stretch[0]} to {self.stretch[1]} became 0 to "
                f"255 when its pictures were written; expected {stretch[0]} to {stretch[1]}, as "
                "the net was trained: prepare this split together with the training split"
            )
        return self

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The splits that were prepared; none before the pass is finished."""
        return tuple(_card(str(data_dir))["splits"]) if (Path(data_dir) / CARD).is_file() else ()


def _card(data_dir: str) -> dict:
    path = Path(data_dir) / CARD
    try:
        card = read_json(path)
        if fault := _fault(card):
            raise DataError(fault)
    except DataError as error:
        raise DataError(
            f"{path}: cannot be read ({first_line(error)}); prepare it again"
        ) from error
    return card


def _fault(card: dict) -> str | None:
    """What is wrong with a card, in words; None if it is what `kfcn-data prepare` writes."""
    names, palette, splits = (card.get(key) for key in ("classes", "palette", "splits"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return "no list of classes"
    if not isinstance(palette, list) or len(palette) != len(names):
        return "no colour for each class"
    if not all(_integers(colour, 3, 255) for colour in palette):
        return "a colour that is not red, green, blue"
    if not isinstance(splits, dict) or not splits:
        return "no splits"
    for counted in splits.values():
        if (
            not isinstance(counted, dict)
            or not _integers([counted.get("ignored"), counted.get("images")], 2)
            or not all(_integers(counted.get(k), len(names)) for k in ("pixels", "image_pixels"))
            or not isinstance(counted.get("notes"), list)
        ):
            return "invalid counts"
    stretch = card.get("stretch")
    if stretch and not (isinstance(stretch, list) and [type(v) for v in stretch] == [int, int]):
        return "a stretch that is not two numbers"
    return None


def _integers(values, count: int, most: int = 2**62) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) is int and 0 <= value <= most for value in values)
    )


@until_changed
def _info(description: Path):
    import tensorflow_datasets as tfds

    folder = str(description.parent)
    try:
        return tfds.builder_from_directory(folder).info
    except Exception as error:  # TFDS raises whatever it meets in a damaged description
        raise DataError(
            f"{folder}: is not a prepared data set ({first_line(error)}); prepare it again"
        ) from error
