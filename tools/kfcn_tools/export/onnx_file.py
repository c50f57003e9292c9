"""An ONNX file, and one in 8 bits: for ONNX Runtime and most others."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from kfcn_mobile.targets.exported import open_onnxruntime

from kfcn.errors import KfcnError
from kfcn.inference.runtime.from_keras import program_of
from kfcn.inference.runtime.onnx_graph import write_onnx
from kfcn.inference.runtime.program import UnsupportedError
from kfcn_tools.export.net import Net, Run

FILE, INT8_FILE = "model.onnx", "model_int8.onnx"


def write(net: Net, folder: Path) -> dict[str, str]:
    """Writes `model.onnx`; its `metadata_props` name classes and colours.

    Raises:
        KfcnError: the net has a layer that cannot be written, such as a CRF.
    """
    properties = {
        "classes": json.dumps(list(net.classes.names), ensure_ascii=False),
        "palette": json.dumps([list(colour) for colour in net.classes.palette]),
        "kfcn": net.card,
    }
    (folder / FILE).write_bytes(onnx_content(net, properties))
    return {"float32": FILE}


def onnx_content(net: Net, properties: Mapping[str, str] | None = None) -> bytes:
    """The content of an ONNX file with these `metadata_props`.

    Raises:
        KfcnError: the net has a layer that cannot be written, such as a CRF.
    """
    try:
        program = program_of(net.model)
    except UnsupportedError as error:
        raise KfcnError(f"{error}: cannot be written as ONNX; saved_model can hold it") from error
    return write_onnx(program, net.output, properties)


def opened(net: Net, folder: Path, file: str) -> Run:
    """Runs a file in ONNX Runtime, on the CPU."""
    run = open_onnxruntime(folder / file)
    return lambda batches: [run(images, net.output) for images in batches]


def quantize(net: Net, folder: Path, file: str, images: Sequence[np.ndarray]) -> dict[str, str]:
    """Writes `model_int8.onnx` by ONNX Runtime's static quantisation (QDQ).

    Args:
        net: what the float file was made from.
        folder: where it is.
        file: the float file.
        images: uint8 (H, W, 3), of one size, from the training split.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self):
            self._images = iter(images)

        def get_next(self):
            image = next(self._images, None)
            return None if image is None else {"image": image[None]}

    # It advises a pass that this graph has had: norms are folded, and shapes are open for good.
    logging.getLogger().addFilter(_no_advice)
    try:
        quantize_static(
            str(folder / file),
            str(folder / INT8_FILE),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            # Without VNNI pairs of products are added in 16 bits, which 8-bit weights overflow.
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
    finally:
        logging.getLogger().removeFilter(_no_advice)
    return {"int8": INT8_FILE}


# What takes the time. Enlarging in 8 bits would round the logits that decide.
QUANTIZED = ["Conv", "Add", "Clip", "Relu", "MaxPool", "Mul", "GlobalAveragePool"]


def _no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()
