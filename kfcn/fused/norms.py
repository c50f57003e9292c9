"""Batch normalisation for inference; that of training is `kfcn.fused.batch_norm`."""

import contextlib
import functools
from collections.abc import Iterator

import keras
from keras import ops

from kfcn.fused.calls import calls_as
from kfcn.graph import calls, inputs, producer, readers


def norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The batch normalisation layers of a net."""
    return [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]


def scale_and_offset(layer: keras.layers.BatchNormalization):
    """Gamma and beta as float32 `(C,)`, ones and zeros where the layer has none."""
    import tensorflow as tf

    channels = layer.moving_mean.shape[0]
    scale = layer.gamma if layer.scale else tf.ones(channels)
    offset = layer.beta if layer.center else tf.zeros(channels)
    return tuple(tf.cast(tf.convert_to_tensor(vector), tf.float32) for vector in (scale, offset))


def _moving(layer):
    """Mean and variance as float32 `(C,)`."""
    import tensorflow as tf

    return tuple(
        tf.cast(tf.convert_to_tensor(moving), tf.float32)
        for moving in (layer.moving_mean, layer.moving_variance)
    )


def by_moving_statistics(layer, usual, inputs, training=None, mask=None):
    """`BatchNormalization.call` of maps `(B, H, W, C)` by the moving statistics."""
    import tensorflow as tf

    if layer.axis not in (-1, 3) or len(inputs.shape) != 4 or training or mask is not None:
        return usual(inputs, training=training, mask=mask)
    scale, offset = scale_and_offset(layer)
    mean, variance = _moving(layer)
    return tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=layer.epsilon,
        is_training=False,
    )[0]


@contextlib.contextmanager
def folded_norms(model: keras.Model) -> Iterator[None]:
    """Has depthwise convolutions do the batch normalisation behind them in what is traced inside.

    For inference. Behind other convolutions TensorFlow itself joins the two; here the
    normalisation was a third of MobileNetV2's time. The scale goes into the kernel, which has few
    numbers, whenever the function is called: new weights are followed.
    """
    with contextlib.ExitStack() as stack:
        for norm, convolution in foldable(model):
            if isinstance(convolution, keras.layers.DepthwiseConv2D) and not convolution.use_bias:
                stack.enter_context(calls_as([convolution], functools.partial(_folded, norm)))
                stack.enter_context(calls_as([norm], _done_before))
        yield


def foldable(model: keras.Model) -> list[tuple[keras.layers.BatchNormalization, keras.Layer]]:
    """Batch normalisations that alone follow a convolution, and that convolution, for `fold`."""
    pairs = []
    for norm in norms(model):
        layer = producer(inputs(norm)[0])
        if (
            norm.axis in (-1, 3)
            and isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
            and layer.activation is keras.activations.linear
            and layer.data_format == "channels_last"
            and calls(norm) == calls(layer) == readers(layer) == 1
            and not any(layer.output is output for output in model.outputs)
        ):
            pairs.append((norm, layer))
    return pairs


def fold(convolution: keras.Layer, norm: keras.layers.BatchNormalization):
    """Kernel and bias of a convolution with the batch normalisation behind it folded in.

    Args:
        convolution: a `Conv2D` or `DepthwiseConv2D`.
        norm: follows it, over its channels.

    Returns:
        Kernel and bias `(channels,)` as float64 tensors of Keras' backend; traced, they follow the
        weights.
    """

    def vector(weight):
        return ops.cast(weight, "float64")

    gain = ops.rsqrt(vector(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        gain = gain * vector(norm.gamma)
    bias = -vector(norm.moving_mean) * gain
    if convolution.use_bias:
        bias = bias + vector(convolution.bias) * gain
    if norm.center:
        bias = bias + vector(norm.beta)
    kernel = vector(convolution.kernel)
    if isinstance(convolution, keras.layers.DepthwiseConv2D):
        # Its kernel is (kh, kw, C, multiplier), its output channel C * multiplier.
        gain = ops.reshape(gain, kernel.shape[2:])
    return kernel * gain, bias


def _folded(norm, layer, usual, inputs):
    """`DepthwiseConv2D.call` and the normalisation behind it."""
    import tensorflow as tf

    kernel, bias = fold(layer, norm)
    outputs = keras.ops.depthwise_conv(
        inputs,
        tf.cast(kernel, inputs.dtype),
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )
    return tf.nn.bias_add(outputs, tf.cast(bias, outputs.dtype))


def _done_before(layer, usual, inputs, training=None, mask=None):
    return inputs
