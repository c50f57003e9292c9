"""What `kfcn-data prepare` has written, as a data set."""

import functools
import json
from pathlib import Path

import numpy as np

from kfcn.data.dataset import Counts
from kfcn.data.sets.records import RecordSet
from kfcn.errors import DataError, first_line
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
        super().__init__(self.name, split, _info(str(data_dir)), keys, classes)
        counted = card["splits"][split]
        self.notes = tuple(counted["notes"])
        self.counts = Counts(
            np.array(counted["pixels"], np.int64),
            np.array(counted["image_pixels"], np.int64),
            counted["ignored"],
            counted["images"],
        )

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The splits that were prepared; none before the pass is finished."""
        return tuple(_card(str(data_dir))["splits"]) if (Path(data_dir) / CARD).is_file() else ()


def _card(data_dir: str) -> dict:
    path = Path(data_dir) / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        card["classes"], card["palette"], card["splits"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)}); prepare it anew") from error
    return card


@functools.lru_cache(maxsize=4)
def _info(data_dir: str):
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(data_dir).info
    except Exception as error:  # TFDS raises whatever it meets in a damaged description
        raise DataError(
            f"{data_dir}: is no prepared data set ({first_line(error)}); prepare it anew"
        ) from error
