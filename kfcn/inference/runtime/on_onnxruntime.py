"""Programs in ONNX Runtime: one session for images of any size."""

import threading

import numpy as np

from kfcn.inference.runtime.onnx_graph import write_onnx
from kfcn.inference.runtime.program import Program, UnsupportedError
from kfcn.inference.runtime.program_net import ProgramNet


class OnnxRuntimeNet(ProgramNet):
    """A program in ONNX Runtime, on CPUs.

    Args:
        program: what to compute.
        threads: that ONNX Runtime may use.
        at_once: callers that share them (`ProgramNet`).

    Raises:
        UnsupportedError: ONNX Runtime is not installed (`pip install "kfcn[onnx]"`).
    """

    name = "onnxruntime"

    def __init__(self, program: Program, threads: int, at_once: int = 1):
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise UnsupportedError("ONNX Runtime is not installed") from error
        super().__init__(program, threads, at_once)
        self._onnxruntime = onnxruntime
        self._sessions = {}
        self._making = threading.Lock()

    def run(self, images: np.ndarray, output: str, threads: int) -> np.ndarray:
        """By the session of the images' type, which is made where it is new."""
        with self._making:
            session = self._session(images.dtype.name, output, threads)
        return session.run(None, {"image": images})[0]

    def _session(self, dtype, output, threads):
        key = dtype, output, threads
        if key not in self._sessions:
            options = self._onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            # Between two pictures threads that spin take the cores from those that decode and
            # write.
            options.add_session_config_entry("session.force_spinning_stop", "1")
            content = write_onnx(self.program, output, dtype=dtype)
            self._sessions[key] = self._onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[key]
