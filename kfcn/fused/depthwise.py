"""The gradients of 5x5 depthwise kernels, by operations for 3x3."""

import functools
from collections.abc import Callable

import keras

from kfcn.graph import is_plain


def kernel_gradients_in_parts(model: keras.Model) -> dict[keras.Operation, Callable]:
    """5x5 depthwise convolutions whose kernel's gradient is four of 3x3, for `kfcn.graph.replay`.

    For 3x3 there is a quick operation; the one for 5x5 takes two to three times as long as four of
    these, and was a sixth of MobileNetV3's training step.
    """
    return {
        layer: functools.partial(_depthwise_5x5, layer)
        for layer in model.layers
        if isinstance(layer, keras.layers.DepthwiseConv2D)
        and is_plain(layer)
        and tuple(layer.kernel_size) == (5, 5)
    }


def _depthwise_5x5(layer, inputs):
    """`DepthwiseConv2D.call`, with that gradient."""
    import tensorflow as tf

    inputs = tf.cast(inputs, layer.compute_dtype)
    geometry = {
        "strides": [1, layer.strides[0], layer.strides[0], 1],
        "padding": layer.padding.upper(),
    }

    @tf.custom_gradient
    def convolve(inputs, kernel):
        def gradient(above):
            by_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=above, **geometry
            )
            return by_inputs, _kernel_gradient(layer, _padded(inputs, layer), above)

        outputs = tf.raw_ops.DepthwiseConv2dNative(input=inputs, filter=kernel, **geometry)
        return outputs, gradient

    return convolve(inputs, tf.cast(tf.convert_to_tensor(layer.kernel), inputs.dtype))


def _padded(inputs, layer):
    """The inputs with the zeros that the padding 'same' adds."""
    import tensorflow as tf

    if layer.padding == "valid":
        return inputs
    size, stride = tf.shape(inputs)[1:3], layer.strides[0]
    total = tf.maximum((-(-size // stride) - 1) * stride + 5 - size, 0)
    before = total // 2
    pads = tf.stack([before, total - before], 1)  # (2, 2)
    return tf.pad(inputs, tf.concat([[[0, 0]], pads, [[0, 0]]], 0))


def _kernel_gradient(layer, inputs, above):
    """`(5, 5, C, m)` from padded inputs, by windows of 3x3 that begin at row and column 0 and 2."""
    import tensorflow as tf

    stride = layer.strides[0]
    reach = [(n - 1) * stride + 3 for n in tf.unstack(tf.shape(above)[1:3])]

    def part(row, column):
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=inputs[:, row : row + reach[0], column : column + reach[1]],
            filter_sizes=[3, 3, *layer.kernel.shape[2:]],
            out_backprop=above,
            strides=[1, stride, stride, 1],
            padding="VALID",
        )

    upper, lower = (tf.concat([part(row, 0), part(row, 2)[:, 1:]], 1) for row in (0, 2))
    return tf.concat([upper, lower[1:]], 0)
