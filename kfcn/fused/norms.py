"""Batch normalisation for inference; that of training is `kfcn.fused.batch_norm`."""

import functools
from collections.abc import Callable

import keras
from keras import ops

from kfcn.graph import hand_on, inputs, is_stock, producer, readers, times_called


def norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The batch normalisation layers of a net."""
    return [x for x in model.layers if is_stock(x, keras.layers.BatchNormalization)]


def folded(model: keras.Model) -> dict[keras.Operation, Callable]:
    """Convolutions that do the batch normalisation behind them, for `kfcn.graph.replay`.

    For inference. The kernels follow the weights of the net. Left to TensorFlow, whose grappler
    joins convolution and normalisation itself, the joint operation of oneDNN was slower than the
    two by themselves on processors without AVX-512 (docs/benchmarks.md), and depthwise convolutions
    were not joined at all.
    """
    instead = {}
    for norm, convolution in foldable(model):
        instead[convolution] = functools.partial(_convolution_and_norm, convolution, norm)
        instead[norm] = hand_on
    return instead


def foldable(model: keras.Model) -> list[tuple[keras.layers.BatchNormalization, keras.Layer]]:
    """Batch normalisations that alone follow a convolution, and that convolution, for `fold`."""
    pairs = []
    for norm in norms(model):
        layer = producer(inputs(norm)[0])
        if (
            norm.axis in (-1, 3)
            and is_stock(layer, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
            and layer.activation is keras.activations.linear
            and layer.data_format == "channels_last"
            and times_called(norm) == times_called(layer) == readers(layer) == 1
            and not any(layer.output is output for output in model.outputs)
        ):
            pairs.append((norm, layer))
    return pairs


def gain_and_shift(norm: keras.layers.BatchNormalization):
    """What batch normalisation is for inference, `x * gain + shift`: two float64 `(C,)` tensors."""

    def vector(weight):
        return ops.cast(weight, "float64")

    gain = ops.rsqrt(vector(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        gain = gain * vector(norm.gamma)
    shift = -vector(norm.moving_mean) * gain
    return gain, shift + vector(norm.beta) if norm.center else shift


def fold(convolution: keras.Layer, norm: keras.layers.BatchNormalization):
    """Kernel and bias of a convolution with the batch normalisation behind it folded in.

    Args:
        convolution: a `Conv2D` or `DepthwiseConv2D`.
        norm: follows it, over its channels.

    Returns:
        Kernel and bias `(channels,)`, float32 tensors of Keras' backend; traced, they follow the
        weights.
    """
    gain, bias = gain_and_shift(norm)
    if convolution.use_bias:
        bias = bias + ops.cast(convolution.bias, "float64") * gain
    kernel = ops.cast(convolution.kernel, "float32")
    if isinstance(convolution, keras.layers.DepthwiseConv2D):
        # Its kernel is (kh, kw, C, multiplier), its output channel C * multiplier.
        gain = ops.reshape(gain, kernel.shape[2:])
    return kernel * ops.cast(gain, "float32"), ops.cast(bias, "float32")


def _convolution_and_norm(convolution, norm, x):
    import tensorflow as tf

    kernel, bias = fold(convolution, norm)
    x = tf.cast(x, convolution.compute_dtype)
    depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
    x = (ops.depthwise_conv if depthwise else ops.conv)(
        x,
        tf.cast(kernel, x.dtype),
        strides=convolution.strides,
        padding=convolution.padding,
        dilation_rate=convolution.dilation_rate,
        data_format="channels_last",
    )
    return tf.nn.bias_add(x, tf.cast(bias, x.dtype))
