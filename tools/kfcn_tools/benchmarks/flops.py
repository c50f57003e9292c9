"""Floating-point operations of a net, from the shapes of its convolutions and matrix products."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def count_flops(model: "keras.Model", size: tuple[int, int]) -> int:
    """Operations of one image in the forward pass; a multiplication and an addition are two.

    Counted are convolutions, transposed ones too, and matrix products, in the graph as TensorFlow
    runs it: a dilated convolution that is carried out on parts of the map counts as those.

    Args:
        model: takes float32 (B, H, W, 3).
        size: H and W.

    Raises:
        ValueError: a shape in the graph is not known before it runs.
    """
    import tensorflow as tf

    function = tf.function(lambda image: model(image, training=False))
    graph = function.get_concrete_function(tf.TensorSpec((1, *size, 3), tf.float32)).graph
    return sum(map(_flops, graph.get_operations()))


def _flops(operation) -> int:
    kind = operation.type
    if kind in ("Conv2D", "DepthwiseConv2dNative"):
        # Each output value is a sum over kernel height, width and, unless depthwise, depth.
        height, width, depth, _ = _shape(operation.inputs[1])
        products = height * width * (depth if kind == "Conv2D" else 1)
        return 2 * products * math.prod(_shape(operation.outputs[0]))
    if kind == "Conv2DBackpropInput":  # the transposed convolution: from the other side
        height, width, depth, _ = _shape(operation.inputs[1])
        return 2 * height * width * depth * math.prod(_shape(operation.inputs[2]))
    if kind in ("MatMul", "BatchMatMulV2"):
        transposed = operation.get_attr("transpose_a" if kind == "MatMul" else "adj_x")
        inner = _shape(operation.inputs[0])[-2 if transposed else -1]
        return 2 * inner * math.prod(_shape(operation.outputs[0]))
    return 0


def _shape(tensor) -> list[int]:
    shape = tensor.shape.as_list()
    if None in shape:
        raise ValueError(f"{tensor.name} has the shape {shape}; expected it to be known")
    return shape
