"""OpenVINO's files, in floats and in 8 bits."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from kfcn_mobile.targets.exported import open_openvino

from kfcn.errors import first_line
from kfcn_tools.export.net import Net, Run
from kfcn_tools.export.onnx_file import onnx_content

FILE, INT8_FILE = "model.xml", "model_int8.xml"


def write(net: Net, folder: Path) -> dict[str, str]:
    """Writes `model.xml` and `model.bin`; `rt_info` names classes and colours.

    Raises:
        KfcnError: the net has a layer that cannot be written, such as a CRF.
    """
    import openvino

    model = openvino.Core().read_model(onnx_content(net), b"")
    _describe(model, net)
    _save(model, folder / FILE)
    return {"float32": FILE}


def opened(net: Net, folder: Path, file: str) -> Run:
    """Runs a file on the CPU, in 32-bit floats where it has any."""
    run = open_openvino(folder / file)
    return lambda batches: [run(images, net.output) for images in batches]


def quantize(net: Net, folder: Path, file: str, images: Sequence[np.ndarray]) -> dict[str, str]:
    """Writes `model_int8.xml` and `.bin` by NNCF's quantisation after training, for one size.

    Args:
        net: what the float file was made from.
        folder: where it is.
        file: the float file.
        images: uint8 (H, W, 3), of the size that the file is for, from the training split.
    """
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(folder / file)
    # With open sizes OpenVINO 2026.4 computes convolutions in 8 bits wrongly, or crashes, once a
    # size needs other padding than the one before.
    model.reshape([-1, *images[0].shape])
    quantized = nncf.quantize(
        model,
        nncf.Dataset([image[None] for image in images]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        # Without VNNI pairs of products are added in 16 bits, which 8-bit weights overflow.
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE
        ),
        # Enlarging in 8 bits would round the logits that decide.
        ignored_scope=nncf.IgnoredScope(types=["Interpolate"], validate=False),
    )
    _describe(quantized, net)
    _save(quantized, folder / INT8_FILE)
    return {"int8": INT8_FILE}


def _save(model, file: Path) -> None:
    """Writes a model.

    Raises:
        OSError: it could not be written.
    """
    import openvino

    try:
        # Its default of half precision would save space and move labels.
        openvino.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:  # of C++ streams, which do not say why
        raise OSError(f"OpenVINO says {first_line(error)!r}; is the disk full?") from error


def _describe(model, net: Net) -> None:
    """Puts names, colours and origin where OpenVINO's own tools look for them."""
    # Its Model API splits names at spaces; `kfcn` has them as they are.
    names = " ".join(name.replace(" ", "_") for name in net.classes.names)
    model.set_rt_info(names, ["model_info", "labels"])
    model.set_rt_info(net.card, ["model_info", "kfcn"])
