"""What the processes of a run hold while it goes on, and what of it grew."""

import contextlib
import dataclasses
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

MEMORY = 1.03
"""How much larger the resident memory may be at the end than it was at the beginning."""

SPARE = 8
"""How many more threads and files may be open: pools fill up late."""

EPOCH = 100
"""Steps of an epoch of the training runs: each ends with a validation, a checkpoint and a row."""

KEPT = 2
"""Checkpoints that the training runs keep."""

HISTORY = KEPT * 0.5 / 1024
"""MiB by which an epoch's row of figures may lengthen the checkpoints, which hold all rows."""


class Use(NamedTuple):
    """What a process holds: threads, open files, resident memory in MiB."""

    threads: int
    files: int
    mib: float


@dataclasses.dataclass(frozen=True)
class Row:
    """What all processes of a run held when `count` steps, pictures or requests were done.

    Attributes:
        count: how far the run was.
        seconds: since it began.
        uses: of its processes.
        disk: size of the checkpoints, MiB.
    """

    count: int
    seconds: float
    uses: tuple[Use, ...]
    disk: float = 0.0


def use_of(pid: int) -> Use:
    """What Linux says of a process.

    Raises:
        OSError: there is none with this number.
    """
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text(encoding="utf-8")
    named = dict(re.findall(r"^(Threads|VmRSS):\s+(\d+)", status, re.MULTILINE))
    files = sum(1 for _ in (process / "fd").iterdir())
    return Use(int(named["Threads"]), files, int(named.get("VmRSS", 0)) / 1024)


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def grown(rows: Sequence[Row], settled: int) -> list[str]:
    """What grew after the first row with `settled` or more; empty for nothing.

    Memory is compared at the end: on the way the allocator may hold for a while what it then gives
    back. Threads and files at their most.

    Raises:
        ValueError: there are fewer than three.
    """
    later = [row for row in rows if row.count >= settled]
    if len(later) < 3:
        raise ValueError(f"expected 3 rows after {settled}; received {[r.count for r in rows]}")
    begun = later.pop(0)
    found = []
    for number, first in enumerate(begun.uses):
        uses = [row.uses[number] for row in later]
        for name in ("threads", "files"):
            most = max(getattr(use, name) for use in uses)
            if most > getattr(first, name) + SPARE:
                found.append(f"{name} of process {number}: {getattr(first, name)} to {most}")
        if uses[-1].mib > first.mib * MEMORY:
            found.append(f"memory of process {number}: {first.mib:.0f} to {uses[-1].mib:.0f} MiB")
    disk = min(row.disk for row in later[-3:])  # one may be read while old and new are there
    history = HISTORY * (later[-1].count - begun.count) / EPOCH
    if disk > begun.disk * MEMORY + history:
        found.append(f"disk: {begun.disk:.1f} to {disk:.1f} MiB")
    return found


@dataclasses.dataclass(frozen=True)
class Run:
    """A command that is watched.

    Attributes:
        command: its words; its output goes to a file.
        count: gives how far it is.
        total: at how much it is over.
        disk: gives MiB of checkpoints.
        launched: the processes to watch are those that the command starts.
        drive: what it needs meanwhile from outside; is called in a thread with its log.
    """

    command: Sequence[str | Path]
    count: Callable[[], int]
    total: int
    disk: Callable[[], float] = lambda: 0.0
    launched: bool = False
    drive: Callable[[Path], None] | None = None


def watch(
    run: Run, log: Path, every: int, say: Callable[[str], None] = lambda line: None
) -> list[Row]:
    """Runs a command to its total and reads on the way what its processes hold.

    Args:
        run: the command.
        log: file for its output.
        every: count between two rows.
        say: is called with each row of the table.

    Raises:
        RuntimeError: the command failed; the message has the end of its output.
    """
    rows: list[Row] = []
    begun = time.monotonic()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(word) for word in run.command],
            stdout=output, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip
    try:
        if run.drive:
            threading.Thread(target=run.drive, args=(log,), daemon=True).start()
        while process.poll() is None:
            done = run.count()
            if done >= every * (len(rows) + 1):
                pids = children_of(process.pid) if run.launched else [process.pid]
                with contextlib.suppress(OSError):  # it ended just now
                    uses = tuple(map(use_of, pids))
                    rows.append(Row(done, time.monotonic() - begun, uses, run.disk()))
                    say(_line(rows[-1]))
            if done >= run.total and run.drive:
                break  # a server, which does not end by itself
            time.sleep(0.1)
        if (not run.drive and process.wait()) or not rows:
            raise RuntimeError(f"the run failed: {log.read_text()[-2000:]}")
    finally:
        process.terminate()  # kfcn-launch ends its workers
        process.wait()
    return rows


def _line(row: Row) -> str:
    values = [f"{u.threads:8} {u.files:6} {u.mib:8.0f}" for u in row.uses]
    return f"{row.count:7} {row.seconds:8.1f} {row.disk:9.2f} " + "   ".join(values)


HEAD = f"{'done':>7} {'seconds':>8} {'disk MiB':>9} "
HEAD_OF_EACH = f"{'threads':>8} {'files':>6} {'MiB':>8}"
