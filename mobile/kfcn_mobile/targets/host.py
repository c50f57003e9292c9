"""LiteRT's Python interpreter: on this machine, with which the other targets are compared."""

import os
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kfcn_mobile.bundle import Bundle, save_array
from kfcn_mobile.console import Say
from kfcn_mobile.runner import measure, run_apart
from kfcn_mobile.targets import Outcome, Target, Timing


def cores() -> int:
    """The cores that this process may use, which a container or `taskset` may have made fewer."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def make(argument: str, say: Say) -> list[Target]:
    """The target of this machine, with XNNPACK or (argument `built-in`) without."""
    return [Host("host:built-in", xnnpack=False) if argument else Host()]


class Interpreted(Target):
    """A Python that runs `kfcn_mobile.runner` in processes of its own.

    Whatever a file makes LiteRT do there, this process goes on and can say which file it was.
    """

    _folder: Path | None = None
    _python: tuple[str, ...] = (sys.executable,)
    _xnnpack = True

    def start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kfcn-images-"))

    def close(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _environment(self) -> dict[str, str]:
        return {}

    def _label(self, bundle: Bundle, path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
        """The label maps of the golden images, and what the runner says of its work."""
        assert self._folder is not None, "the target is not started"
        images, labels = self._folder / "images.npy", self._folder / "labels.npy"
        save_array(images, np.stack([golden.image for golden in bundle.golden]))
        labels.unlink(missing_ok=True)
        arguments = ["--images", str(images), "--labels", str(labels)]
        arguments += ["--built-in"] * (not self._xnnpack)
        figures = run_apart(path, arguments, self._python, self._environment(), self._where())
        return list(np.load(labels, allow_pickle=False)), figures

    def _where(self) -> str:
        """The target in messages about a file."""
        return self.name


class Host(Interpreted):
    """This machine.

    Args:
        name: as in the report.
        xnnpack: False runs LiteRT's built-in kernels, as an app does that leaves XNNPACK out.
    """

    def __init__(self, name: str = "host", xnnpack: bool = True):
        self.name, self._xnnpack = name, xnnpack

    def start(self) -> None:
        super().start()
        version = metadata.version("ai-edge-litert")
        count = f"{cores()} core{'s' * (cores() > 1)}"
        self.machine = f"{platform.system()} {platform.machine()}, {count}, LiteRT {version}"

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        path = bundle.path / model["file"]
        labels, figures = self._label(bundle, path)
        latency = [
            measure(path, threads, timing.runs, timing.warmup, self._xnnpack)
            for threads in timing.threads
            if timing.runs
        ]
        return Outcome(labels, latency, figures["kernels"])

    def _where(self) -> str:
        return ""
