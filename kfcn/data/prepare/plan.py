"""What a pass is: which pictures in how many shards, kept in a file to go on with."""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kfcn.data.catalog import Source
from kfcn.data.dataset import Dataset, spread
from kfcn.data.prepare.shard import Shard, encoded
from kfcn.errors import DataError, UsageError, first_line
from kfcn.files import read_object, write_json
from kfcn.outputs import LOCK

SHARD_BYTES = 64 << 20
"""About the size of a shard: large enough to be read in one go, small enough to be done again."""
_PLAN = "plan.json"


def planned(out: Path, source: Source, datasets, format: str) -> list[Shard]:
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
    plan = json.loads(json.dumps(plan))  # as it is read again, where a pair of numbers is a list
    file = out / _PLAN
    if file.is_file():
        stored, shards = _stored_plan(file, datasets)
        if stored != plan:
            changed = [key for key in plan if plan[key] != stored.get(key)]
            raise UsageError(
                f"{out} holds another pass (other {', '.join(changed)}); continue with "
                "what it was started with, or choose another --out"
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
    few = spread(len(dataset), 8)
    size = np.mean([sum(map(len, encoded(dataset, index)[:2])) for index in few])
    return int(np.clip(np.ceil(size * len(dataset) / SHARD_BYTES), 1, len(dataset)))
