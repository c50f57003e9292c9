"""What the runtimes of programs share."""

import threading

import numpy as np

from kfcn.inference.runtime.program import Program


class ProgramNet:
    """A program on a runtime, a `Net`; it computes for one caller at a time.

    A runtime says how an output is computed (`run`).

    Args:
        program: what to compute.
    """

    name: str

    def __init__(self, program: Program):
        self.program = program
        self.classes, self.margin = program.classes, program.margin
        self._lock = threading.Lock()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 `(B, H, W, C)` for images uint8 or float32 `(B, H, W, 3)`, RGB 0..255."""
        with self._lock:
            return self.run(images, "logits")

    def labels(self, images: np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8 `(B, H, W)`, for images uint8 `(B, H, W, 3)`."""
        with self._lock:
            return self.run(images, "labels")

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """Computes an output.

        Args:
            images: uint8 or float32 `(B, H, W, 3)`.
            output: "logits" or "labels".
        """
        raise NotImplementedError
