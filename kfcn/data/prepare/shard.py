"""A shard: a file of records, and the note of what was counted in it."""

import dataclasses
import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kfcn.data.audit.check import counted_sample
from kfcn.data.catalog import Source
from kfcn.data.dataset import Counts, Dataset
from kfcn.data.formats.images import stored_as_read
from kfcn.errors import DataError, first_line
from kfcn.files import aside, read_object, write_json

TITLE = "kfcn_prepared"
DONE = "done"


@dataclasses.dataclass(frozen=True)
class Shard:
    """A task: the pairs `first` to `end` of a split, into one file."""

    source: Source
    out: str
    split: str
    number: int
    shards: int
    first: int
    end: int
    format: str

    @property
    def path(self) -> Path:
        name = f"{TITLE}-{self.split}.{self.format}-{self.number:05d}-of-{self.shards:05d}"
        return Path(self.out) / name

    @property
    def done(self) -> Path:
        """The note that says that the shard is whole, and what was counted in it."""
        return Path(self.out) / DONE / f"{self.split}-{self.number:05d}.json"


def write_shard(shard: Shard) -> int:
    """Looks at the pairs of a shard and writes them; returns how many there are."""
    dataset = opened(shard.source, shard.split)
    counts = Counts.nothing(len(dataset.classes))
    with aside(shard.path) as temporary, _Writer(temporary, shard.format) as write:
        for index in range(shard.first, shard.end):
            image, labels, name, histogram = encoded(dataset, index)
            counts = counts.add(histogram)
            write(_serialized(image, labels, name))
    note = {
        "pixels": counts.pixels.tolist(),
        "image_pixels": counts.image_pixels.tolist(),
        "ignored": counts.ignored,
        "images": counts.images,
        "bytes": shard.path.stat().st_size,
    }
    write_json(shard.done, note)
    return counts.images


def read_note(file: Path, classes: int) -> dict[str, Any]:
    """What was counted in a shard."""
    try:
        note = read_object(file)
        counts = [note.get(name) for name in ("images", "bytes", "ignored")]
        for name in ("pixels", "image_pixels"):
            if not isinstance(note.get(name), list) or len(note[name]) != classes:
                raise ValueError(f"no {name} of {classes} classes")
            counts += note[name]
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError("invalid counts")
    except ValueError as error:
        raise DataError(
            f"{file} is damaged ({first_line(error)}); remove it, and its shard is written again"
        ) from error
    return note


def _serialized(image: bytes, labels: bytes, name: str) -> bytes:
    """A record as TFDS reads it; the same bytes in every process."""
    from tensorflow.train import Example

    values = {"image": io.BytesIO(image), "segmentation_mask": io.BytesIO(labels)}
    record = features().serialize_example({**values, "file_name": name})
    # Protocol buffers keep a map in an order that changes from process to process.
    return Example.FromString(record).SerializeToString(deterministic=True)


@functools.cache
def features():
    """What a record holds, as TFDS describes it."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
            "file_name": tfds.features.Text(),
        }
    )


@functools.lru_cache(maxsize=2)
def opened(source: Source, split: str) -> Dataset:
    """The split, opened once in each process (the outlines of COCO take a while to read)."""
    return source.open(split)


def encoded(dataset: Dataset, index: int) -> tuple[bytes, bytes, str, np.ndarray]:
    """One pair as it is stored: image file, label PNG, name; and its counts of labels.

    Raises:
        DataError: the pair cannot be used.
    """
    sample, histogram = counted_sample(dataset, index)
    file = dataset.image_file(index) if dataset.page(index) is None else None
    image = file.read_bytes() if file is not None and stored_as_read(file) else _png(sample.image)
    return image, _png(sample.labels), sample.name, histogram


def _png(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG", compress_level=4)
    return content.getvalue()


class _Writer:
    """A record file that is open for writing; gives the function that takes a record."""

    def __init__(self, path: Path, format: str):
        if format == "array_record":
            from array_record.python.array_record_module import ArrayRecordWriter

            # A group a record: pictures are read one by one, in any order.
            self._file = ArrayRecordWriter(str(path), "group_size:1")
        else:
            import tensorflow as tf

            self._file = tf.io.TFRecordWriter(str(path))

    def __enter__(self):
        return self._file.write

    def __exit__(self, *error):
        self._file.close()
