"""Batch normalisation for inference; that of training is `kfcn.fused.batch_norm`."""

import contextlib
import functools
from collections.abc import Iterator

import keras

from kfcn.fused.calls import calls_as


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
    pairs = [(norm, _depthwise_before(norm)) for norm in norms(model)]
    with contextlib.ExitStack() as stack:
        for norm, convolution in pairs:
            if convolution is not None:
                stack.enter_context(calls_as([convolution], functools.partial(_folded, norm)))
                stack.enter_context(calls_as([norm], _done_before))
        yield


def _depthwise_before(norm):
    """The depthwise convolution that has this normalisation as its only successor, or None."""
    if len(norm._inbound_nodes) != 1 or norm.axis not in (-1, 3):
        return None
    layer = norm.input._keras_history.operation
    alone = len(layer._inbound_nodes) == len(layer._outbound_nodes) == 1
    if not isinstance(layer, keras.layers.DepthwiseConv2D) or not alone:
        return None
    plain = layer.activation is keras.activations.linear and not layer.use_bias
    return layer if plain and layer.data_format == "channels_last" else None


def _folded(norm, layer, usual, inputs):
    """`DepthwiseConv2D.call` and the normalisation behind it."""
    import tensorflow as tf

    scale, offset = scale_and_offset(norm)
    mean, variance = _moving(norm)
    scale *= tf.math.rsqrt(variance + norm.epsilon)
    kernel = tf.convert_to_tensor(layer.kernel)
    factor = tf.cast(tf.reshape(scale, kernel.shape[2:]), kernel.dtype)
    outputs = keras.ops.depthwise_conv(
        inputs,
        tf.cast(kernel * factor, inputs.dtype),
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )
    return tf.nn.bias_add(outputs, tf.cast(offset - mean * scale, outputs.dtype))


def _done_before(layer, usual, inputs, training=None, mask=None):
    return inputs
