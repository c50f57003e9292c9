"""Programs in LiteRT, by a TFLite model that is written for each size of image.

LiteRT's XNNPACK wants all sizes known, so that each size has a file (`tflite_graph`) and an
interpreter of its own. They are kept while there is room; a new one costs little more than what
XNNPACK takes to pack the weights.
"""

import collections
import contextlib
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kfcn.inference.runtime.program import Program
from kfcn.inference.runtime.program_net import ProgramNet
from kfcn.inference.runtime.tflite_graph import TFLiteWriter
from kfcn.machine import release_memory, without_notes

_KEPT_BYTES = 400_000_000
"""Memory of the sizes that are kept ready, but for the last one, which may take more."""
_RELEASED_AFTER = 128
"""How many of them are dropped before the system is given back what that left in pieces: what the
next size needs has to be fetched from it again."""


class LiteRTNet(ProgramNet):
    """A program in LiteRT, on CPUs.

    Args:
        program: what to compute.
        threads: that LiteRT may use.
        at_once: callers that share them (`ProgramNet`).

    Raises:
        UnsupportedError: a step that TFLite has no operation for, or LiteRT is not installed.
    """

    name = "litert"

    def __init__(self, program: Program, threads: int, at_once: int = 1):
        super().__init__(program, threads, at_once)
        self._writer = TFLiteWriter(program)
        self._ready: collections.OrderedDict[_Key, list[_Ready]] = collections.OrderedDict()
        """Those that nobody runs, the sizes that were seen last at the end."""
        self._dropped = 0
        self._lock = threading.Lock()

    def run(self, images: np.ndarray, output: str, threads: int) -> np.ndarray:
        """By a model of the images' size, which is written where none is free."""
        batch, height, width, _ = images.shape
        key = _Key(batch, height, width, images.dtype.name, output, threads)
        with self._lock:
            ready = self._free(key)
            content = None if ready else self._written(key)
        # XNNPACK packs the weights here, which takes the longest and need not keep others waiting.
        ready = ready or _Ready(content, threads)
        found = ready.run(images)
        with self._lock:
            self._ready.setdefault(key, []).append(ready)
            self._ready.move_to_end(key)
        return found

    def _free(self, key):
        ready = self._ready.get(key)
        if not ready:
            return None
        taken = ready.pop()
        if not ready:
            del self._ready[key]
        return taken

    def _written(self, key):
        used = self._bytes(key) + sum(
            len(ready) * self._bytes(old) for old, ready in self._ready.items()
        )
        while self._ready and used > _KEPT_BYTES:
            old, dropped = self._ready.popitem(last=False)
            used -= len(dropped) * self._bytes(old)
            self._dropped += len(dropped)
            del dropped
        if self._dropped >= _RELEASED_AFTER:
            release_memory()
            self._dropped = 0
        return self._writer.write(*key[:5])

    def _bytes(self, key):
        """Roughly the memory that a size takes.

        Its maps; the weights as the model has them and as XNNPACK packs them; and threads of its
        own, whose number a machine limits too.
        """
        maps = 200 * key.batch * key.height * key.width
        return maps + 2 * self._writer.weights_bytes + 1_000_000 * key.threads


class _Key(NamedTuple):
    """What a model is written for."""

    batch: int
    height: int
    width: int
    dtype: str
    output: str
    threads: int


_said, _saying = threading.Event(), threading.Lock()


@contextlib.contextmanager
def _without_the_first_note() -> Iterator[None]:
    """Leaves out LiteRT's "Created TensorFlow Lite XNNPACK delegate", which it says once."""
    if not _said.is_set():
        with _saying:
            if not _said.is_set():
                with without_notes():
                    yield
                _said.set()
                return
    yield


class _Ready:
    """A model of one size, ready to run."""

    def __init__(self, content, threads):
        from ai_edge_litert.interpreter import Interpreter

        with _without_the_first_note():
            self._interpreter = Interpreter(model_content=content, num_threads=threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def run(self, images):
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)
