"""This machine, through LiteRT's Python interpreter: what the other targets are compared with."""

import os
import platform
from importlib import metadata

from kfcn_mobile.bundle import Bundle
from kfcn_mobile.runner import Segmenter, measure
from kfcn_mobile.targets import Outcome, Target, Timing


class Host(Target):
    """The process's own machine.

    Args:
        name: as in the report.
        xnnpack: False runs LiteRT's built-in kernels, as an app does that leaves XNNPACK out.
    """

    def __init__(self, name: str = "host", xnnpack: bool = True):
        self.name, self._xnnpack = name, xnnpack

    def start(self) -> None:
        version = metadata.version("ai-edge-litert")
        self.machine = (
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, LiteRT {version}"
        )

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        path = bundle.path / model["file"]
        segmenter = Segmenter(path, bundle.size, xnnpack=self._xnnpack)
        labels = [segmenter.run(golden.image) for golden in bundle.golden]
        kernels = segmenter.kernels
        del segmenter
        latency = [
            measure(path, threads, timing.runs, timing.warmup, self._xnnpack)
            for threads in timing.threads
            if timing.runs
        ]
        return Outcome(labels, latency, kernels)
