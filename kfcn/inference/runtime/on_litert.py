"""Programs in LiteRT, by a TFLite model that is written for each size of image.

LiteRT's XNNPACK wants all sizes known, so that each size has a file (`tflite_graph`) and an
interpreter of its own. They are kept while there is room; a new one costs little more than what
XNNPACK takes to pack the weights.
"""

import collections

import numpy as np

from kfcn.inference.runtime.program import Program
from kfcn.inference.runtime.program_net import ProgramNet
from kfcn.inference.runtime.tflite_graph import TFLiteWriter
from kfcn.machine import release_memory

_KEPT_BYTES = 800_000_000
"""Memory of the sizes that are kept ready, but for the last one, which may take more."""
_RELEASED_AFTER = 16
"""How many of them are dropped before the system is given back what that left in pieces: what the
next size needs has to be fetched from it again."""


class LiteRTNet(ProgramNet):
    """A program in LiteRT, on CPUs.

    Args:
        program: what to compute.
        threads: that LiteRT may use.

    Raises:
        UnsupportedError: a step that TFLite has no operation for, or LiteRT is not installed.
    """

    name = "litert"

    def __init__(self, program: Program, threads: int):
        super().__init__(program)
        self._writer = TFLiteWriter(program)
        self._threads = threads
        self._ready: collections.OrderedDict[tuple, _Ready] = collections.OrderedDict()
        self._dropped = 0

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """By the model of the images' size, which is written where it is new."""
        return self._for((*images.shape[:3], images.dtype.name, output)).run(images)

    def _for(self, key):
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        used = sum(map(self._bytes, self._ready)) + self._bytes(key)
        while self._ready and used > _KEPT_BYTES:
            old, _ = self._ready.popitem(last=False)
            used -= self._bytes(old)
            self._dropped += 1
        if self._dropped >= _RELEASED_AFTER:
            release_memory()
            self._dropped = 0
        batch, height, width, dtype, output = key
        content = self._writer.write(batch, height, width, dtype, output)
        self._ready[key] = _Ready(content, self._threads)
        return self._ready[key]

    def _bytes(self, key):
        """Roughly the memory that a size takes.

        Its maps; the weights as the model has them and as XNNPACK packs them; and threads of its
        own, whose number a machine limits too.
        """
        return 200 * np.prod(key[:3]) + 2 * self._writer.weights_bytes + 1_000_000 * self._threads


class _Ready:
    """A model of one size, ready to run."""

    def __init__(self, content, threads):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def run(self, images):
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)
