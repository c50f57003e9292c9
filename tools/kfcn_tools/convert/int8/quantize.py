"""Full-integer and mixed files from a float32 file and the ranges of its tensors."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from kfcn_tools.convert.flatbuffer import packed, unpacked
from kfcn_tools.convert.int8.rounding import Rounded, with_rounded

# Where all calibration images gave zeros, the range is as narrow. XNNPACK aborts on the step of
# zero that it would have, and the biases of what reads the tensor would overflow.
NOTHING = 1e-6


@dataclass(frozen=True)
class Quantizable:
    """A float32 `.tflite` file and what int8 needs to know about it.

    Attributes:
        content: the file.
        ranges: (low, high) of its tensors by name, low <= 0 <= high.
        rounded: weights, as `rounding.round_weights` gives them; others go to the nearest.
    """

    content: bytes
    ranges: dict[str, tuple[float, float]]
    rounded: dict[str, Rounded]


def quantize_int8(source: Quantizable, keep_float: Collection[str] = ()) -> bytes:
    """Quantises weights (by output channel) and activations to int8.

    Args:
        source: what to quantise.
        keep_float: names of the output tensors of the operations that stay float32.

    Returns:
        The quantised file's content. Its input and output are those of the float file: uint8
        stays uint8, and scores leave it as float32.
    """
    from litert_quantizer import qtyping, quantizer, recipe

    work = quantizer.Quantizer(with_rounded(source.content, source.rounded, leave=keep_float))
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    for name in keep_float:
        work.update_quantization_recipe(
            # The quantizer searches its expressions in all output names joined by ";".
            regex="^" + re.escape(name) + "(;|$)",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key="no_quantize",
        )
    statistics = {}
    for name, ends in source.ranges.items():
        low, high = ends if ends[1] - ends[0] > NOTHING else (0.0, 1.0)
        statistics[name] = {
            "min": np.full((1, 1, 1, 1), low, np.float32),
            "max": np.full((1, 1, 1, 1), high, np.float32),
        }
    # It reports each step on both outputs and by warnings; errors come as exceptions.
    quiet = io.StringIO()
    with (
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        logging.getLogger("absl").setLevel(logging.ERROR)
        result = work.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return _finished(bytes(result.quantized_model))


def _finished(content: bytes) -> bytes:
    """The quantizer's file, made to suit every reader."""
    model = unpacked(content)
    for code in model.operatorCodes:
        # The quantizer leaves this older field at 0 in the codes that it adds, which is ADD. LiteRT
        # does not look at it; OpenVINO and tf2onnx do, and stop at the first QUANTIZE.
        code.deprecatedBuiltinCode = min(max(code.builtinCode, code.deprecatedBuiltinCode), 127)
    _dequantize_output(model)
    return packed(model, len(content))


def _dequantize_output(model) -> None:
    """Lets scores leave the file as float32: nobody then needs to know their step.

    The quantizer can be asked for it (`no_quantize` for OUTPUT) and leaves an output behind slices
    as int8 all the same.
    """
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = model.subgraphs
    (output,) = graph.outputs
    if graph.tensors[output].type != schema.TensorType.INT8:
        return
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2  # the first that takes int8
    model.operatorCodes.append(code)
    scores = schema.TensorT()
    scores.name = graph.tensors[output].name + b"_float"
    scores.shape, scores.type = graph.tensors[output].shape, schema.TensorType.FLOAT32
    scores.shapeSignature = graph.tensors[output].shapeSignature
    graph.tensors.append(scores)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [output], [len(graph.tensors) - 1]
    graph.operators.append(operator)
    graph.outputs = [len(graph.tensors) - 1]
    for signature in model.signatureDefs:
        for made in signature.outputs:
            made.tensorIndex = len(graph.tensors) - 1
