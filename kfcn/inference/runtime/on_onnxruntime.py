"""Programs in ONNX Runtime: one session for images of any size."""

import threading

import numpy as np

from kfcn.inference.runtime.onnx_graph import write_onnx
from kfcn.inference.runtime.program import Program, UnsupportedError


class OnnxRuntimeNet:
    """A program in ONNX Runtime, on CPUs.

    Args:
        program: what to compute.
        threads: that ONNX Runtime may use.

    Raises:
        UnsupportedError: ONNX Runtime is not installed (`pip install "kfcn[onnx]"`).
    """

    name = "onnxruntime"

    def __init__(self, program: Program, threads: int):
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise UnsupportedError("ONNX Runtime is not installed") from error
        self.classes, self.margin = program.classes, program.margin
        self.program = program
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        # Between two pictures threads that spin take the cores from those that decode and write.
        self._options.add_session_config_entry("session.force_spinning_stop", "1")
        self._new_session = onnxruntime.InferenceSession
        self._sessions = {}
        self._lock = threading.Lock()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 `(B, H, W, C)` for images uint8 or float32 `(B, H, W, 3)`, RGB 0..255."""
        return self._run(images, "logits")

    def labels(self, images: np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8 `(B, H, W)`, for images uint8 `(B, H, W, 3)`."""
        return self._run(images, "labels")

    def _run(self, images, output):
        key = images.dtype.name, output
        with self._lock:
            if key not in self._sessions:
                content = write_onnx(self.program, output, dtype=images.dtype.name)
                self._sessions[key] = self._new_session(
                    content, self._options, providers=["CPUExecutionProvider"]
                )
            return self._sessions[key].run(None, {"image": images})[0]
