"""This machine, through LiteRT's Python interpreter: what the other targets are compared with."""

import os
import platform
from importlib import metadata

from kfcn_mobile.bundle import Bundle
from kfcn_mobile.runner import Segmenter, measure
from kfcn_mobile.targets import Outcome, Target, Timing


class Host(Target):
    """The process's own machine."""

    def __init__(self, name: str = "host"):
        self.name = name

    def start(self) -> None:
        version = metadata.version("ai-edge-litert")
        self.machine = (
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, LiteRT {version}"
        )

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        path = bundle.path / model["file"]
        segmenter = Segmenter(path, bundle.size)
        labels = [segmenter.run(golden.image) for golden in bundle.golden]
        del segmenter
        latency = [
            measure(path, threads, timing.runs, timing.warmup)
            for threads in timing.threads
            if timing.runs
        ]
        return Outcome(labels, latency)
