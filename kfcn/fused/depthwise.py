"""Depthwise convolutions of the training step: their padding, and the gradients of their kernels.

A layer that pads before a strided convolution copies the largest maps of MobileNetV2 and
EfficientNet, and the copies are kept for the gradient. At the sizes of most crops its padding is
that of "same", which the convolution does by itself.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras

from kfcn.graph import hand_on, inputs, is_plain, is_stock, producer, readers, times_called
from kfcn.machine import onednn_is_on, onednn_lacks_avx512

Pads = tuple[tuple[int, int], tuple[int, int]]  # rows above and below, columns left and right
NONE: Pads = ((0, 0), (0, 0))


def depthwise_convolutions(model: keras.Model) -> dict[keras.Operation, Callable]:
    """The depthwise convolutions of 3x3 and 5x5 of a training step, for `kfcn.graph.replay`.

    The padding layer before one is left out, and the convolution pads.
    """
    instead: dict[keras.Operation, Callable] = {}
    for layer in model.layers:
        if not (
            is_stock(layer, keras.layers.DepthwiseConv2D)
            and is_plain(layer)
            and tuple(layer.kernel_size) in ((3, 3), (5, 5))
        ):
            continue
        before, pads = producer(inputs(layer)[0]), NONE
        if layer.padding == "valid" and times_called(layer) == 1 and _only_pads(before):
            instead[before], pads = hand_on, before.padding
        instead[layer] = functools.partial(_convolved, layer, pads)
    return instead


def _only_pads(operation):
    return (
        is_stock(operation, keras.layers.ZeroPadding2D)
        and operation.data_format == "channels_last"
        and times_called(operation) == readers(operation) == 1
    )


def _convolved(layer, pads, inputs) -> Any:
    """`DepthwiseConv2D.call`, for inputs that are to be padded by `pads` first."""
    import tensorflow as tf

    inputs = tf.cast(inputs, layer.compute_dtype)
    kernel = tf.cast(tf.convert_to_tensor(layer.kernel), inputs.dtype)
    by_same = _pads_of_same(layer, inputs.shape[1:3])
    pads = _read_pads(layer, inputs.shape[1:3], pads)
    if layer.padding == "same" or pads == by_same:
        padding, known = "SAME", by_same
    else:
        padding, known = "VALID", NONE
        if pads != NONE:
            inputs = tf.pad(inputs, [(0, 0), *pads, (0, 0)])
    strides = [1, layer.strides[0], layer.strides[0], 1]
    convolve = functools.partial(tf.raw_ops.DepthwiseConv2dNative, strides=strides, padding=padding)
    by_kernel = _kernel_gradient(inputs.dtype, kernel.shape[0])
    if by_kernel is None or known is None:
        return convolve(input=inputs, filter=kernel)

    @tf.custom_gradient
    def with_gradient(inputs, kernel):
        def gradient(above):
            by_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=above,
                strides=strides, padding=padding,
            )  # fmt: skip
            return by_inputs, by_kernel(inputs, above, kernel.shape, strides, known)

        return convolve(input=inputs, filter=kernel), gradient

    return with_gradient(inputs, kernel)


def _pads_of_same(layer, size) -> Pads | None:
    """What the padding "same" adds to a map of this size; None where that cannot be known."""
    kernel, stride = layer.kernel_size[0], layer.strides[0]
    if stride > 1 and None in size:
        return None
    # With stride 1 it is the same for all sizes.
    totals = [kernel - 1 if stride == 1 else max(kernel - (n % stride or stride), 0) for n in size]
    rows, columns = ((total // 2, total - total // 2) for total in totals)
    return rows, columns


def _read_pads(layer, size, pads: Pads) -> Pads:
    """Pads without the rows and columns at the end that no window of the convolution reaches."""
    kernel, stride = layer.kernel_size[0], layer.strides[0]
    if None in size:
        return pads
    rows, columns = (
        (before, max(after - (n + before + after - kernel) % stride, 0))
        for n, (before, after) in zip(size, pads, strict=True)
    )
    return rows, columns


def _kernel_gradient(dtype, size) -> Callable | None:
    """The quickest gradient of a kernel, as measured (docs/benchmarks.md); None: the layer's.

    TensorFlow's own is quicker than oneDNN's where that has no AVX-512, and everywhere with 5x5. In
    bfloat16 it adds up too coarsely; there four of oneDNN's quick ones for 3x3 make one of 5x5.
    """
    quick = onednn_is_on() and not onednn_lacks_avx512()
    if dtype == "float32":
        return None if quick and size == 3 else _by_tensorflow
    return _in_parts if quick and size == 5 else None


def _by_tensorflow(inputs, above, shape, strides, pads):
    """By TensorFlow's own kernel: oneDNN takes none whose padding is spelled out."""
    import tensorflow as tf

    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=inputs,
        filter_sizes=shape,
        out_backprop=above,
        strides=strides,
        padding="EXPLICIT",
        explicit_paddings=[0, 0, *pads[0], *pads[1], 0, 0],
    )


def _in_parts(inputs, above, shape, strides, pads):
    """Of a 5x5 kernel, by windows of 3x3 that begin at row and column 0 and 2."""
    import tensorflow as tf

    # They are copies of the map: not before the gradient has come this far.
    with tf.control_dependencies([above]):
        inputs = tf.identity(inputs)
    padded = tf.pad(inputs, [(0, 0), *pads, (0, 0)])
    reach = [(n - 1) * strides[1] + 3 for n in tf.unstack(tf.shape(above)[1:3])]

    def part(row, column):
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=padded[:, row : row + reach[0], column : column + reach[1]],
            filter_sizes=[3, 3, *shape[2:]],
            out_backprop=above,
            strides=strides,
            padding="VALID",
        )

    upper, lower = (tf.concat([part(row, 0), part(row, 2)[:, 1:]], 1) for row in (0, 2))
    return tf.concat([upper, lower[1:]], 0)
