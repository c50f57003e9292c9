"""kfcn-launch: starts the workers of a multi-worker run on this machine."""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfcn.commands._cli import Parser, number
from kfcn.errors import WorkerLostError
from kfcn.machine import cores
from kfcn.place import VARIABLE, Place, read_place
from kfcn.training.interrupt import stop_signals

FINAL = (0, 1, 2, 129, 130, 143, 149)
"""Exit codes after which nothing is started again: done, a reported error, a wrong request,
stopped by SIGHUP, Ctrl-C, SIGTERM or (on Windows) SIGBREAK with its state saved."""

# A group of its own: Ctrl-C reaches the workers through us, and only once.
_APART: dict[str, Any] = (
    {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    if sys.platform == "win32"
    else {"start_new_session": True}
)

THREADS = "TF_NUM_INTRAOP_THREADS"
"""Environment variable with the threads that TensorFlow computes an operation with."""

GRACE = 20.0
"""Seconds between asking a worker to stop and killing it; a signal is answered after a step."""

LEFT = 5.0
"""Seconds in which the others may say that they cannot go on without the worker that was lost."""

SHOWN = 8
"""How many of the last lines of a worker are shown again where it crashes."""


@dataclasses.dataclass
class _Worker:
    """A worker of one attempt, and what is left of it.

    Attributes:
        number: of the worker.
        process: its process, with its output as a pipe.
        file: where it keeps its place.
        lines: the last ones that it printed.
    """

    number: int
    process: subprocess.Popen
    file: Path
    lines: collections.deque[str] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=SHOWN)
    )

    def pass_on(self) -> None:
        """Prints what it prints, behind its number."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            # Where the terminal is gone: a worker whose output nobody reads would wait, not save.
            with contextlib.suppress(OSError):
                print(f"[{self.number}] {line}", end="", flush=True)

    def __str__(self):
        return f"worker {self.number} ({_words(self.process.returncode)})"


@dataclasses.dataclass
class _Loss:
    """How a worker was lost."""

    worker: int
    code: int
    place: Place

    def repeats(self, other: "_Loss") -> bool:
        """Whether it is the same crash once more, which no restart cures."""
        same = (self.worker, self.code) == (other.worker, other.code)
        return same and self.place.is_near(other.place)


def parser() -> argparse.ArgumentParser:
    cli = Parser(
        prog="kfcn-launch",
        usage="kfcn-launch --workers N [--restarts R] -- COMMAND ...",
        description="Start N workers of COMMAND on this machine, with TF_CONFIG set for each. Each "
        "line of their output is printed after the worker's number. When one is lost, the others "
        "are stopped and all start again, on new ports, from the last checkpoint.",
    )
    cli.add_argument(
        "--workers", type=number(int, least=1), required=True, metavar="N", help="number of workers"
    )
    cli.add_argument(
        "--restarts",
        type=number(int, least=0),
        default=3,
        metavar="R",
        help="how many times to start again (3)",
    )
    cli.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    cli = parser()
    args = cli.parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        cli.error("received no command; expected -- COMMAND ... after the flags")
    return launch(command, args.workers, args.restarts)


def launch(command: Sequence[str], workers: int, restarts: int) -> int:
    """Runs the workers to their end and returns the exit code.

    0 when all are done. An error that a worker reported is not tried again, and neither is a run
    that a signal stopped; everything else counts as a lost worker. Where a worker is lost in the
    same way twice, one after the other, and at the same step, that is a crash: it is shown, and
    nothing is started again.
    """
    stopped = []

    def stop(number, frame):
        stopped.append(number)

    # The workers are in sessions of their own: a terminal that is closed tells us alone.
    before = {s: signal.signal(s, stop) for s in stop_signals()}
    try:
        losses: list[_Loss] = []
        for attempt in range(restarts + 1):
            with tempfile.TemporaryDirectory(prefix="kfcn-launch-") as folder:
                ended, lost = _run_once(command, workers, stopped, Path(folder))
                previous, losses = losses, _losses(lost)
            codes = [worker.process.returncode for worker in ended]
            if stopped:
                return 128 + stopped[0]
            if not any(codes):
                return 0
            reported = [code for code in codes if code in FINAL and code]
            if reported:
                return reported[0]
            again = f"starting all again ({attempt + 1} of {restarts})"
            repeated = [one for one in losses if any(map(one.repeats, previous))]
            if repeated:
                _show(repeated[0], ended[repeated[0].worker])
                return 1
            named = ", ".join(map(str, lost))
            _say(f"lost {named}; {again if attempt < restarts else 'no restart is left'}")
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _losses(lost: list[_Worker]) -> list[_Loss]:
    """The workers that were lost, and where; without those that ended because of another."""
    found = []
    for worker in lost:
        place, code = read_place(worker.file), worker.process.returncode
        if place and code != WorkerLostError.code:
            found.append(_Loss(worker.number, code, place))
    return found


def _show(loss: _Loss, worker: _Worker) -> None:
    """Says that a worker crashes at one place, what it printed last, and what to try."""
    _say(f"{worker} crashed twice {loss.place}; restarting will not help; its last lines:")
    for line in worker.lines:
        _say(f"  {line}")
    if loss.code == -getattr(signal, "SIGKILL", 9):
        hint = (
            "a smaller --batch-size or --crop, or fewer workers on this machine: the system kills "
            "processes that use up its memory (`dmesg` names them)"
        )
    elif loss.code < 0:
        hint = (
            "the command without kfcn-launch, which shows whether the crash needs several workers; "
            "if it does, report these lines, and train in one process (--cpu-replicas or all GPUs) "
            "meanwhile"
        )
    else:
        hint = "what these lines ask for"
    _say(f"try {hint}; the same command continues from the last checkpoint")


def _run_once(
    command: Sequence[str], count: int, stopped: list[int], folder: Path
) -> tuple[list[_Worker], list[_Worker]]:
    """Starts all workers and waits for them; gives all, and those that failed first."""
    addresses = _free_addresses(count)
    workers: list[_Worker] = []
    readers, lost = [], []
    try:
        for number in range(count):
            file = folder / str(number)
            workers.append(_Worker(number, _start(command, number, addresses, file), file))
            readers.append(threading.Thread(target=workers[-1].pass_on, daemon=True))
            readers[-1].start()
        processes = [worker.process for worker in workers]
        while any(process.poll() is None for process in processes):
            lost = [worker for worker in workers if worker.process.poll()]
            if stopped or lost:
                _end(processes, stopped)
                break
            time.sleep(0.1)
    finally:
        _kill([worker.process for worker in workers])
    for reader in readers:
        reader.join(timeout=5)
    return workers, lost or [worker for worker in workers if worker.process.returncode]


def _start(
    command: Sequence[str], worker: int, addresses: list[str], file: Path
) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", VARIABLE: str(file)}
    if len(addresses) > 1:
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
        environment["TF_CONFIG"] = json.dumps(config)
        # With a pool of all cores in each worker the pools would take them from one another.
        environment.setdefault(THREADS, str(max(1, cores() // len(addresses))))
    try:
        return subprocess.Popen(
            command, env=environment, errors="replace", bufsize=1,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", **_APART,
        )  # fmt: skip
    except OSError as error:
        raise SystemExit(f"kfcn-launch: error: {command[0]}: {error.strerror}") from error


def _end(processes: list[subprocess.Popen], stopped: list[int]) -> None:
    """Lets the workers end by themselves when they were asked to; kills what is left.

    After a loss the others cannot go on and only say so; after a signal they save first.
    """
    if stopped:
        for process in processes:
            _ask(process, stopped[0])
    until = time.monotonic() + (GRACE if stopped else LEFT)
    while time.monotonic() < until and any(process.poll() is None for process in processes):
        time.sleep(0.1)
    _kill(processes)


def _ask(process: subprocess.Popen, number: int) -> None:
    """Passes a signal on to a worker and whatever it has started, as long as it runs."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "win32":
                process.send_signal(signal.CTRL_BREAK_EVENT)
            else:
                os.killpg(process.pid, number)


def _kill(processes: list[subprocess.Popen]) -> None:
    """Ends the workers and whatever they have started, at once."""
    for process in processes:
        if sys.platform == "win32":
            process.kill()
        else:
            _ask(process, signal.SIGKILL)
        process.wait()


def _free_addresses(count: int) -> list[str]:
    """Addresses on this machine whose ports nobody uses at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for taken in sockets:
            taken.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{taken.getsockname()[1]}" for taken in sockets]


def _words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


def _say(text: str) -> None:
    print(f"kfcn-launch: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
