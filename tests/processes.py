"""Training runs in processes of their own, for what must be killed, and for several workers."""

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

BIN = Path(sys.executable).parent
LIMIT = 240.0
"""Seconds until a process is killed with all that it has started."""


def train_command(pairs, run_dir, *more):
    """A run of seconds: eight small convolutions with batch normalisation, 3 steps an epoch."""
    flags = {
        "data": "folder", "data-dir": pairs, "arch": "convnet", "batch-size": 4, "epochs": 2,
        "learning-rate": 1e-3, "run-dir": run_dir,
    }  # fmt: skip
    named = [part for name, value in flags.items() for part in (f"--{name}", value)]
    return [
        str(x) for x in (BIN / "kfcn-train", *named, "--crop", 32, 40, "--deterministic", *more)
    ]


EACH_STEP = ("--save-minutes", 0)
"""Flags with which a run saves its state after each step."""


def launch_command(command, workers=2, restarts=0):
    head = [BIN / "kfcn-launch", "--workers", workers, "--restarts", restarts, "--"]
    return [str(x) for x in (*head, *command)]


@contextlib.contextmanager
def small_disk(folder, size, *options):
    """A new folder on a file system of its own, of so many bytes; `options` are of umount."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", *options, folder], check=True)


@contextlib.contextmanager
def signalled(owner, method, number, when=lambda self: True):
    """Within it this process gets a signal when `method` begins and `when` says so of `self`."""
    original = getattr(owner, method)

    def interrupted(self, *args, **kwargs):
        if when(self):
            signal.raise_signal(number)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, interrupted)
        yield


class Process:
    """A command whose output is collected, and whose whole group ends with the test."""

    def __init__(self, command, log, **environment):
        self.log = Path(log)
        with self.log.open("w") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **environment},
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            children = list(self.children())
            os.killpg(self._process.pid, signal.SIGKILL)
            for child in children:  # kfcn-launch gives each worker a session of its own
                with _gone():
                    os.killpg(child, signal.SIGKILL)
        self._process.wait(timeout=30)

    def children(self):
        listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in listed.read_text().split()]

    def send(self, number, child=None):
        os.kill(self._process.pid if child is None else self.children()[child], number)

    def wait(self, limit=LIMIT):
        return self._process.wait(timeout=limit)

    def until(self, condition, limit=LIMIT):
        """Waits until `condition()` holds; the process must still run then."""
        end = time.monotonic() + limit
        while not condition():
            assert self._process.poll() is None, f"ended before: {self.output}"
            assert time.monotonic() < end, f"waited {limit} s: {self.output}"
            time.sleep(0.02)

    @property
    def output(self):
        return self.log.read_text()


def _gone():
    return contextlib.suppress(ProcessLookupError)


def finish(command, log, **environment):
    """Runs a command to its end; returns the exit code and the output."""
    with Process(command, log, **environment) as process:
        return process.wait(), process.output


def finish_here(command):
    """As `finish`, but in this process, which has TensorFlow already: what a command says and does.

    Not for what depends on how a process starts or ends.
    """
    name = Path(command[0]).name.removeprefix("kfcn-").replace("-", "_")
    main = importlib.import_module(f"kfcn.commands.{name}").main
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        return main(command[1:]), said.getvalue()


def checkpoints(run_dir):
    return sorted((Path(run_dir) / "checkpoints").glob("step-*.npz"))


def newest(run_dir):
    """The step of the last checkpoint; 0 where there is none."""
    found = checkpoints(run_dir)
    return int(found[-1].stem[5:]) if found else 0


def load(path):
    """Note and arrays of a checkpoint."""
    with np.load(path) as archive:
        arrays = [archive[name] for name in archive.files if name != "note"]
        return json.loads(archive["note"].tobytes()), arrays


def difference(a, b):
    """Greatest absolute difference between the variables of two checkpoints."""
    (_, first), (_, second) = load(a), load(b)
    assert len(first) == len(second) > 40
    return max(
        float(np.abs(x.astype(np.float64) - y.astype(np.float64)).max())
        for x, y in zip(first, second, strict=True)
    )
