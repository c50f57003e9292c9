"""One pass over a data set into sharded record files that TFDS reads, checked on the way.

Each shard is a task of its own: a process, or a worker of Apache Beam, looks at its pairs, writes
the shard aside and renames it. So a pass that was stopped goes on with the shards that are
missing, and the files are the same whoever wrote them.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import itertools
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kfcn.data.audit.check import counted_sample, nothing_in
from kfcn.data.catalog import Source
from kfcn.data.dataset import Counts, Dataset
from kfcn.data.feed.views import split_of
from kfcn.data.formats.images import stored_as_read
from kfcn.data.sets.prepared import CARD
from kfcn.data.stretch import open_splits
from kfcn.errors import DataError, KfcnError, UsageError, WriteError, first_line, require
from kfcn.files import aside, make_folder, read_object, write_json, writing
from kfcn.outputs import LOCK, Outputs

FORMATS = ("array_record", "tfrecord")
SHARD_BYTES = 64 << 20
"""About the size of a shard: large enough to be read in one go, small enough to be done again."""
TITLE = "kfcn_prepared"
_PLAN, _DONE = "plan.json", "done"


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
        return Path(self.out) / _DONE / f"{self.split}-{self.number:05d}.json"


def prepare(
    source: Source,
    out: Path | str,
    splits: Sequence[str] | None = None,
    format: str = "array_record",
    workers: int | None = None,
    beam: Sequence[str] | None = None,
    progress: bool = False,
) -> Path:
    """Writes a data set as record files; `--data prepared --data-dir OUT` trains from them.

    The pictures keep the bytes of their JPEG or PNG files where any decoder reads those as kfcn
    does, so that the batches are the same as from the folder. Labels are grey PNG with the class
    indices.

    Args:
        source: the data set.
        out: folder to write to; one that holds a part of the same pass is gone on with.
        splits: None for those of train, val and test that exist, or else all.
        format: "array_record" or "tfrecord".
        workers: processes; None for one a core.
        beam: flags of Apache Beam, which then does the work; None for processes of this machine.
        progress: show a progress bar.

    Returns:
        The folder.

    Raises:
        UsageError: a folder that holds something else or that another command writes to, unknown
            names, Beam not installed.
        DataError: a pair that cannot be used, in the words of `kfcn.data.check`.
        WriteError: the disk is full, or the folder may not be written to.
    """
    if format not in FORMATS:
        raise UsageError(f"format {format!r}: expected {' or '.join(FORMATS)}")
    source = source.anywhere()  # for workers that run elsewhere
    splits = splits or source.usual_splits()
    if part := next((split for split in splits if split_of(split)[0] != split), None):
        raise UsageError(
            f"{part!r}: expected whole splits, of which each becomes files of its name"
        )
    datasets = dict(zip(splits, open_splits(source, splits, progress), strict=True))
    if fault := next(filter(None, map(nothing_in, datasets.values())), None):
        raise DataError(fault)
    if stretch := next(iter(datasets.values())).stretch:
        reading = dataclasses.replace(source.as_read, stretch=stretch)
        source = dataclasses.replace(source, reading=reading)
    out = make_folder(out).resolve()
    with Outputs(out).lock():
        shards = _planned(out, source, datasets, format)
        make_folder(out / _DONE)
        missing = [s for s in shards if not (s.done.is_file() and s.path.is_file())]
        total = sum(shard.end - shard.first for shard in shards)
        if beam is not None:
            _write_by_beam(missing, beam)
        else:
            _write_by_processes(missing, workers, total, progress)
        _finish(out, source, datasets, shards)
    return out


def _stored_plan(file: Path, splits: Iterable[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """The plan of a pass that was begun, and how many shards its splits have."""
    try:
        plan = read_object(file)
        shards = plan.pop("shards", None)
        if not isinstance(shards, dict) or any(
            type(shards.get(split, 1)) is not int or not 1 <= shards.get(split, 1) <= 10**6
            for split in splits
        ):
            raise ValueError("no number of shards for each split")
    except ValueError as error:
        raise DataError(f"{file} is damaged ({first_line(error)}); choose another --out") from error
    return plan, shards


def _planned(out: Path, source: Source, datasets, format: str) -> list[Shard]:
    """The shards of the pass, the same ones when it is started again."""
    classes = next(iter(datasets.values())).classes
    plan = {
        "source": {**dataclasses.asdict(source), "reading": source.as_read.as_dict()},
        "format": format,
        "classes": list(classes.names),
        "palette": [list(colour) for colour in classes.palette],
        "splits": {
            split: {"images": len(dataset), "files": _files_hash(dataset)}
            for split, dataset in datasets.items()
        },
    }
    file = out / _PLAN
    if file.is_file():
        stored, shards = _stored_plan(file, datasets)
        if stored != plan:
            changed = [key for key in plan if plan[key] != stored.get(key)]
            raise UsageError(
                f"{out} holds another pass (other {', '.join(changed)}); go on with what it was "
                "started with, or choose another --out"
            )
    elif any(path.name != LOCK for path in out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no prepared data; choose another --out")
    else:
        shards = {split: _shard_count(dataset) for split, dataset in datasets.items()}
        write_json(file, {**plan, "shards": shards})
    tasks = []
    for split, dataset in datasets.items():
        edges = np.linspace(0, len(dataset), shards[split] + 1).astype(int).tolist()
        for number, (first, end) in enumerate(itertools.pairwise(edges)):
            tasks.append(Shard(source, str(out), split, number, shards[split], first, end, format))
    return tasks


def _files_hash(dataset: Dataset) -> str:
    """A hash of all files: other pictures, or labels corrected meanwhile, are another pass.

    Of each its name, size and time of change: a mask that is not compressed keeps its size.
    """
    state = functools.cache(_state)  # of some sets all labels lie in one file
    found = hashlib.sha256()
    for index in range(len(dataset)):
        files = state(dataset.image_file(index)), state(dataset.label_file(index))
        found.update(repr((dataset.file_name(index), files)).encode())
    return found.hexdigest()[:16]


def _state(file: Path | None) -> tuple[int, int] | None:
    try:
        status = None if file is None else file.stat()
    except OSError:  # said when it is read
        return None
    return None if status is None else (status.st_size, status.st_mtime_ns)


def _shard_count(dataset: Dataset) -> int:
    """Shards of about `SHARD_BYTES`, judged by a few pictures; no more shards than pictures."""
    spread = np.linspace(0, len(dataset) - 1, min(8, len(dataset))).astype(int).tolist()
    size = np.mean([sum(map(len, _encoded(dataset, index)[:2])) for index in spread])
    return int(np.clip(np.ceil(size * len(dataset) / SHARD_BYTES), 1, len(dataset)))


def _write_by_processes(shards, workers: int | None, total: int, progress: bool) -> None:
    from tqdm import tqdm

    left = sum(shard.end - shard.first for shard in shards)
    bar = tqdm(
        total=total, initial=total - left, desc="prepare", unit="image",
        disable=None if progress else True,
    )  # fmt: skip
    workers = min(workers or os.cpu_count() or 1, len(shards))
    with bar:
        if workers < 2:
            for shard in shards:
                bar.update(write_shard(shard))
            return
        # Started anew and not forked: TensorFlow's threads do not live through a fork.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
            try:
                waiting = [pool.submit(write_shard, shard) for shard in shards]
                for done in concurrent.futures.as_completed(waiting):
                    bar.update(done.result())
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _write_by_beam(shards: list[Shard], flags: Sequence[str]) -> None:
    require("apache_beam", "--beam", "beam")
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(list(flags), save_main_session=False)
    try:
        with beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | "shards" >> beam.Create(shards)
                | "spread" >> beam.Reshuffle()
                | "write" >> beam.Map(write_shard)
            )
    except Exception as error:  # Beam wraps what a worker raised into errors of its runners
        for kind in (DataError, WriteError):
            if lines := str(error).partition(f"{kind.__name__}: ")[2].splitlines():
                raise kind(lines[0].split(" [while running")[0]) from error
        raise KfcnError(f"Beam failed: {first_line(error)}") from error


def write_shard(shard: Shard) -> int:
    """Looks at the pairs of a shard and writes them; returns how many there are."""
    dataset = _opened(shard.source, shard.split)
    counts = Counts.nothing(len(dataset.classes))
    with aside(shard.path) as temporary, _Writer(temporary, shard.format) as write:
        for index in range(shard.first, shard.end):
            image, labels, name, histogram = _encoded(dataset, index)
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


def _serialized(image: bytes, labels: bytes, name: str) -> bytes:
    """A record as TFDS reads it; the same bytes in every process."""
    from tensorflow.train import Example

    values = {"image": io.BytesIO(image), "segmentation_mask": io.BytesIO(labels)}
    record = _features().serialize_example({**values, "file_name": name})
    # Protocol buffers keep a map in an order that changes from process to process.
    return Example.FromString(record).SerializeToString(deterministic=True)


@functools.lru_cache(maxsize=2)
def _opened(source: Source, split: str) -> Dataset:
    """The split, opened once in each process (the outlines of COCO take a while to read)."""
    return source.open(split)


def _encoded(dataset: Dataset, index: int) -> tuple[bytes, bytes, str, np.ndarray]:
    """One pair as it is stored: image file, label PNG, name; and its counts of labels.

    Raises:
        DataError: the pair cannot be used.
    """
    sample, histogram = counted_sample(dataset, index)
    file = dataset.image_file(index)
    image = file.read_bytes() if file is not None and stored_as_read(file) else _png(sample.image)
    return image, _png(sample.labels), sample.name, histogram


def _png(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG", compress_level=4)
    return content.getvalue()


@functools.cache
def _features():
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
            "file_name": tfds.features.Text(),
        }
    )


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


def _note(file: Path, classes: int) -> dict[str, Any]:
    """What was counted in a shard."""
    try:
        note = read_object(file)
        counts = [note.get(name) for name in ("images", "bytes", "ignored")]
        for name in ("pixels", "image_pixels"):
            if not isinstance(note.get(name), list) or len(note[name]) != classes:
                raise ValueError(f"no {name} of {classes} classes")
            counts += note[name]
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError("counts that are none")
    except ValueError as error:
        raise DataError(
            f"{file} is damaged ({first_line(error)}); remove it, and its shard is written again"
        ) from error
    return note


def _finish(out: Path, source: Source, datasets, shards: list[Shard]) -> None:
    """Writes what TFDS and kfcn want to know of the files."""
    import tensorflow_datasets as tfds

    infos, counted = [], {}
    for split, dataset in datasets.items():
        notes = [_note(s.done, len(dataset.classes)) for s in shards if s.split == split]
        template = tfds.core.ShardedFileTemplate(
            data_dir=out, dataset_name=TITLE, split=split, filetype_suffix=shards[0].format
        )
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[note["images"] for note in notes],
                num_bytes=sum(note["bytes"] for note in notes),
                filename_template=template,
            )
        )
        counted[split] = {
            "pixels": np.sum([note["pixels"] for note in notes], axis=0).tolist(),
            "image_pixels": np.sum([note["image_pixels"] for note in notes], axis=0).tolist(),
            "ignored": sum(note["ignored"] for note in notes),
            "images": sum(note["images"] for note in notes),
            "notes": list(dataset.notes),
        }
    with writing(out / "dataset_info.json"):
        tfds.folder_dataset.write_metadata(
            data_dir=out,
            features=_features(),
            split_infos=infos,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=out, dataset_name=TITLE, filetype_suffix=shards[0].format
            ),
            version="1.0.0",
            check_data=False,
        )
    classes = next(iter(datasets.values())).classes
    write_json(
        out / CARD,
        {
            "source": source.name,
            "stretch": source.as_read.stretch,
            "classes": list(classes.names),
            "palette": [list(colour) for colour in classes.palette],
            "splits": counted,
        },
    )
