"""One pass over a data set into sharded record files that TFDS reads, checked on the way.

Each shard is a task of its own: a process, or a worker of Apache Beam, looks at its pairs, writes
the shard aside and renames it. So a pass that was stopped goes on with the shards that are
missing, and the files are the same whoever wrote them.
"""

import concurrent.futures
import multiprocessing
import re
from collections.abc import Sequence
from pathlib import Path

from kfcn.data.audit.check import nothing_in
from kfcn.data.catalog import Source
from kfcn.data.feed.views import split_of
from kfcn.data.prepare.description import describe
from kfcn.data.prepare.plan import planned
from kfcn.data.prepare.shard import DONE, Shard, opened, write_shard
from kfcn.data.stretch import open_splits
from kfcn.errors import DataError, KfcnError, UsageError, WriteError, first_line, require
from kfcn.files import make_folder
from kfcn.machine import cores
from kfcn.outputs import Outputs

FORMATS = ("array_record", "tfrecord")


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
            f"{part!r}: expected whole splits, each of which is written to files of its name"
        )
    # TFDS names the files by the splits, and `all` is a word of its own there.
    if part := next((s for s in splits if s == "all" or not re.fullmatch(r"[\w-]+", s)), None):
        raise UsageError(
            f"split {part!r}: prepared data cannot have this name; expected letters, digits, _ and "
            "- (and not 'all'): rename its folder or list"
        )
    opened.cache_clear()  # the files may have changed since another pass of this process
    datasets = dict(zip(splits, open_splits(source, splits, progress), strict=True))
    if fault := next(filter(None, map(nothing_in, datasets.values())), None):
        raise DataError(fault)
    if stretch := next(iter(datasets.values())).stretch:
        source = source.stretched(stretch)
    out = make_folder(out).resolve()
    with Outputs(out).lock():
        shards = planned(out, source, datasets, format)
        make_folder(out / DONE)
        missing = [s for s in shards if not (s.done.is_file() and s.path.is_file())]
        total = sum(shard.end - shard.first for shard in shards)
        if beam is not None:
            _write_by_beam(missing, beam)
        else:
            _write_by_processes(missing, workers, total, progress)
        describe(out, source, datasets, shards)
    return out


def _write_by_processes(shards, workers: int | None, total: int, progress: bool) -> None:
    from tqdm import tqdm

    left = sum(shard.end - shard.first for shard in shards)
    bar = tqdm(
        total=total, initial=total - left, desc="prepare", unit="image",
        disable=None if progress else True,
    )  # fmt: skip
    workers = min(workers or cores(), len(shards))
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
