"""OpenVINO's files, in floats and in 8 bits."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from kfcn_mobile.targets.exported import open_openvino

from kfcn.errors import KfcnError
from kfcn_tools.export.net import Net, Run
from kfcn_tools.export.onnx_file import onnx_content

FILE, INT8_FILE = "model.xml", "model_int8.xml"
# NNCF 3.4 crashes in a process that has loaded TensorFlow.
_ALONE = """
import sys

import nncf
import numpy as np
import openvino

images = np.load(sys.argv[2], allow_pickle=False)
quantized = nncf.quantize(
    openvino.Core().read_model(sys.argv[1]),
    nncf.Dataset([image[None] for image in images]),
    preset=nncf.QuantizationPreset.MIXED,
    subset_size=len(images),
)
openvino.save_model(quantized, sys.argv[3], compress_to_fp16=False)
"""


def write(net: Net, folder: Path) -> dict[str, str]:
    """Writes `model.xml` and `model.bin`; `rt_info` names classes and colours.

    Raises:
        KfcnError: the net has a layer that cannot be written, such as a CRF.
    """
    import openvino

    model = openvino.Core().read_model(onnx_content(net), b"")
    _describe(model, net)
    # Its default of half precision would save space and move labels.
    openvino.save_model(model, folder / FILE, compress_to_fp16=False)
    return {"float32": FILE}


def opened(net: Net, folder: Path, file: str) -> Run:
    """Runs a file on the CPU, in 32-bit floats where it has any."""
    run = open_openvino(folder / file)
    return lambda batches: [run(images, net.output) for images in batches]


def quantize(net: Net, folder: Path, file: str, images: Sequence[np.ndarray]) -> dict[str, str]:
    """Writes `model_int8.xml` and `.bin` by NNCF's quantisation after training.

    Args:
        net: what the float file was made from.
        folder: where it is.
        file: the float file.
        images: uint8 (H, W, 3), of one size, from the training split.
    """
    import openvino

    with tempfile.TemporaryDirectory(prefix="kfcn-export-") as temporary:
        given, made = Path(temporary) / "images.npy", Path(temporary) / "made.xml"
        np.save(given, np.stack(images), allow_pickle=False)
        command = [sys.executable, "-c", _ALONE, str(folder / file), str(given), str(made)]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise KfcnError(f"NNCF cannot quantise the net: {reason}")
        quantized = openvino.Core().read_model(made)
        _describe(quantized, net)
        openvino.save_model(quantized, folder / INT8_FILE, compress_to_fp16=False)
    return {"int8": INT8_FILE}


def _describe(model, net: Net) -> None:
    """Puts names, colours and origin where OpenVINO's own tools look for them."""
    # Its Model API splits names at spaces; `kfcn` has them as they are.
    names = " ".join(name.replace(" ", "_") for name in net.classes.names)
    model.set_rt_info(names, ["model_info", "labels"])
    model.set_rt_info(net.card, ["model_info", "kfcn"])
