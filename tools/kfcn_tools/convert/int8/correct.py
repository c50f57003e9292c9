"""Bias correction for int8 weights (Nagel et al. 2019, arXiv 1906.04721, section 4.2).

Rounding a weight to int8 shifts the mean of the outputs it contributes to: with W + e in place of
W, the output is E[e x] off on average, the same for every image. The shift is known and goes into
the bias. It matters most where large weights of both signs nearly cancel each other, as in the
first depthwise convolution of MobileNetV2.
"""

from collections.abc import Iterable

import keras
import numpy as np

from kfcn_tools.convert.int8.channels import is_depthwise, plain_convolution

# An int8 convolution holds its bias as int32, in steps of (input step * weight step). Channels
# whose weights are all but zero would need more: 2^26 steps leave room for the sum itself.
BIAS_STEPS = 2.0**26
# ReLU6 tensors have a step of 6 / 255, most others a larger one.
INPUT_STEP = 0.01


def bias_shifts(content: bytes, means: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far rounding the weights to int8 moves the mean of each convolution's outputs.

    Args:
        content: a float32 `.tflite` file.
        means: of its tensors' channels, as in `kfcn_tools.convert.int8.ranges.Statistics`.

    Returns:
        float64 (C,) by the name of the convolution's output tensor, to be subtracted from its
        bias. Zero padding is left out of the means: it touches the outermost pixels only.
    """
    graph = _graph(content)
    shifts = {}
    for operator, (source, weights, _), output in _convolutions(graph):
        if (mean := means.get(_name(graph, source))) is None:
            continue
        kernel = _constant(graph, weights).astype(np.float64)
        # A kernel is (out, kh, kw, in), a depthwise one (1, kh, kw, channel).
        depthwise = operator == "DEPTHWISE_CONV_2D"
        error = rounded(kernel, axis=-1 if depthwise else 0) - kernel
        shift = error.sum((0, 1, 2)) * mean if depthwise else error.sum((1, 2)) @ mean
        shifts[_name(graph, output)] = shift
    return shifts


def shift_biases(
    content: bytes, shifts: dict[str, np.ndarray], leave: Iterable[str] = ()
) -> bytearray:
    """A copy of a float32 `.tflite` file with the biases corrected.

    In float the copy is off by what was corrected: it is only meant to be quantised.

    Args:
        content: the file.
        shifts: what `bias_shifts` gave.
        leave: output tensors of convolutions that stay in float32 and keep their bias.
    """
    copy, leave = bytearray(content), set(leave)
    graph = _graph(copy)
    for _, (_, _, bias), output in _convolutions(graph):
        name = _name(graph, output)
        if name in shifts and name not in leave:
            # The array is a view: it writes into the copy.
            values = _constant(graph, bias)
            values -= shifts[name].astype(np.float32)
    return copy


def rounded(kernel: np.ndarray, axis: int) -> np.ndarray:
    """A kernel as int8 holds it: symmetric, a step size for each output channel (`axis`)."""
    others = tuple(a for a in range(kernel.ndim) if a != axis % kernel.ndim)
    step = np.abs(kernel).max(others, keepdims=True) / 127
    step = np.where(step > 0, step, 1)
    return np.round(kernel / step) * step


def revive_dead_channels(model: keras.Model) -> dict[str, int]:
    """Gives channels whose weights are all but zero a weight that int8 can work with, in place.

    Pretrained nets have channels that no input reaches: weights near 1e-20 and a bias. The step
    of such a channel's bias follows from its weights and would be so small that the bias
    overflows int32 and is lost. One weight of about a hundred-thousandth of the bias keeps it.

    Returns:
        The number of such channels, by convolution.
    """
    revived = {}
    for conv in model.layers:
        if not plain_convolution(conv) or not conv.use_bias:
            continue
        kernel, bias = conv.get_weights()
        # (taps, input, output channel); a depthwise kernel's own channel is its output channel.
        shape = (-1, 1, len(bias)) if is_depthwise(conv) else (-1, kernel.shape[2], len(bias))
        taps = kernel.reshape(shape)
        floor = 127 * np.abs(bias) / (BIAS_STEPS * INPUT_STEP)
        dead = np.abs(taps).max((0, 1)) < floor
        if dead.any():
            taps[0, 0, dead] = floor[dead]
            conv.set_weights([taps.reshape(kernel.shape), bias])
            revived[conv.name] = int(dead.sum())
    return revived


def _graph(content):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    return model, model.Subgraphs(0)


def _convolutions(graph):
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    kinds = {
        BuiltinOperator.CONV_2D: "CONV_2D",
        BuiltinOperator.DEPTHWISE_CONV_2D: "DEPTHWISE_CONV_2D",
    }
    model, subgraph = graph
    for i in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        if code in kinds and operator.InputsLength() == 3 and operator.Inputs(2) >= 0:
            yield kinds[code], [operator.Inputs(k) for k in range(3)], operator.Outputs(0)


def _name(graph, tensor: int) -> str:
    return graph[1].Tensors(tensor).Name().decode()


def _constant(graph, tensor: int) -> np.ndarray:
    """A constant float32 tensor, as a view into the file's bytes."""
    model, subgraph = graph
    details = subgraph.Tensors(tensor)
    values = model.Buffers(details.Buffer()).DataAsNumpy()
    return values.view(np.float32).reshape(details.ShapeAsNumpy())
