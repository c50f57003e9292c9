"""A .tflite file in LiteRT, converted naively or by kfcn; inference of one image only.

    python -m kfcn_tools.benchmarks.nets.litert_nets '{"net": "naive", ...}'

writes the file, which needs TensorFlow; the process that is measured then does not load it.
"""

import json
import sys
from pathlib import Path

import numpy as np

from kfcn.machine import cores
from kfcn_tools.litert import open_interpreter


class Net:
    """An interpreter; the interface is that of `keras_nets.Net`."""

    def __init__(self, spec: dict):
        import ai_edge_litert

        self.interpreter = open_interpreter(Path(spec["file"]), threads=cores())
        (given,) = self.interpreter.get_input_details()
        (self._output,) = (d["index"] for d in self.interpreter.get_output_details())
        image = np.random.default_rng(0).uniform(0, 255, given["shape"])
        self._input, self._image = given["index"], image.astype(given["dtype"])
        self.versions = {"ai-edge-litert": ai_edge_litert.__version__}
        self.parameters = None  # the file does not say

    def infer(self, count: int) -> None:
        """What the file gives for a batch, which must be one image."""
        assert count == 1
        self.interpreter.set_tensor(self._input, self._image)
        self.interpreter.invoke()
        self.interpreter.get_tensor(self._output)


def write(spec: dict) -> None:
    """Converts FCN-8s to `spec["file"]`: "naive" without any care, else as kfcn does."""
    import keras

    from kfcn.nets import architectures
    from kfcn_tools.benchmarks.convert import BASELINE, naive_files
    from kfcn_tools.convert.fix_size import fix_size
    from kfcn_tools.convert.tflite import export_tflite

    keras.utils.set_random_seed(0)
    model = architectures.build("fcn8s", spec["classes"], spec["backbone"])
    if spec["net"] == "naive":
        content = naive_files(model, spec["size"])[BASELINE]
    else:
        content = export_tflite(fix_size(model, *spec["size"]), "float32")
    Path(spec["file"]).write_bytes(content)


if __name__ == "__main__":
    write(json.loads(sys.argv[1]))
