"""What the runtimes of programs share."""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np

from kfcn.inference.runtime.program import Program

_ALONE = 1_000_000
"""Pixels from which on images get all threads: their maps are large enough to share them well, and
too large to keep those of several."""


class ProgramNet:
    """A program on a runtime, a `Net`.

    Two threads that share one photograph wait for each other after each layer. Callers who compute
    one each do not, so that as many may call at once, each with its share of the threads.

    A runtime says how an output is computed (`run`).

    Args:
        program: what to compute.
        threads: to compute with.
        at_once: callers that compute at the same time, at most `threads`; others wait.
    """

    name: str

    def __init__(self, program: Program, threads: int, at_once: int = 1):
        self.program = program
        self.classes, self.margin = program.classes, program.margin
        self.threads, self.at_once = threads, min(at_once, threads)
        self._shares = _Shares(self.at_once)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 `(B, H, W, C)` for images uint8 or float32 `(B, H, W, 3)`, RGB 0..255."""
        return self._compute(images, "logits")

    def labels(self, images: np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8 `(B, H, W)`, for images uint8 `(B, H, W, 3)`."""
        return self._compute(images, "labels")

    def run(self, images: np.ndarray, output: str, threads: int) -> np.ndarray:
        """Computes an output; called by `at_once` threads at the same time.

        Args:
            images: uint8 or float32 `(B, H, W, 3)`.
            output: "logits" or "labels".
            threads: to compute with.
        """
        raise NotImplementedError

    def _compute(self, images, output):
        if images.dtype not in (np.uint8, np.float32):
            images = images.astype(np.float32)
        alone = np.prod(images.shape[:3]) >= _ALONE
        shares = self.at_once if alone else 1
        with self._shares.taken(shares):
            return self.run(images, output, -(-shares * self.threads // self.at_once))


class _Shares:
    """Shares of the processor, which callers wait for."""

    def __init__(self, count: int):
        self._free, self._changed = count, threading.Condition()

    @contextlib.contextmanager
    def taken(self, count: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify_all()
