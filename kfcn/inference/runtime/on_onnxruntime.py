"""Programs in ONNX Runtime: one session for images of any size."""

import numpy as np

from kfcn.inference.runtime.onnx_graph import write_onnx
from kfcn.inference.runtime.program import Program, UnsupportedError
from kfcn.inference.runtime.program_net import ProgramNet


class OnnxRuntimeNet(ProgramNet):
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
        super().__init__(program)
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        # Between two pictures threads that spin take the cores from those that decode and write.
        self._options.add_session_config_entry("session.force_spinning_stop", "1")
        self._new_session = onnxruntime.InferenceSession
        self._sessions = {}

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """By the session of the images' type, which is made where it is new."""
        key = images.dtype.name, output
        if key not in self._sessions:
            content = write_onnx(self.program, output, dtype=images.dtype.name)
            self._sessions[key] = self._new_session(
                content, self._options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[key].run(None, {"image": images})[0]
