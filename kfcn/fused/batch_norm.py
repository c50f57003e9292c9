"""Batch normalisation for the traced training step, in few operations and over all replicas.

Keras spells it out as a dozen operations over the whole map, which took half of a MobileNetV2 step
on a CPU; TensorFlow has one forward and one back.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kfcn.collectives import gather_over_replicas, sum_over_replicas
from kfcn.fused.norms import norms
from kfcn.machine import onednn_lacks_avx512


def over_batch(
    model: keras.Model, replicas: int, moving: bool = True
) -> dict[keras.Operation, Callable]:
    """The batch normalisation of a training step, for `kfcn.graph.replay`.

    Args:
        model: the net.
        replicas: how many there are; with several the statistics are those of all together.
        moving: whether the moving statistics take the batch in.
    """
    normalize = _over_replicas if replicas > 1 else _on_one
    return {
        layer: functools.partial(_normalized, normalize, moving, layer)
        for layer in norms(model)
        # Older releases of Keras have no batch renormalisation.
        if layer.trainable and not getattr(layer, "renorm", False)
    }


def _normalized(normalize, record, layer, inputs):
    """`BatchNormalization.call` in training; statistics of maps `(B, H, W, C)` by `normalize`."""
    if layer.axis not in (-1, 3) or len(inputs.shape) != 4:
        return _usual(layer, inputs, synchronized=normalize is _over_replicas)
    inputs = tf.cast(inputs, layer.compute_dtype)
    gamma, beta = scale_and_offset(layer)
    outputs, mean, variance = normalize(inputs, gamma, beta, layer.epsilon)
    if not record:
        return outputs
    for moving, now in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + now * (1 - layer.momentum))
    return outputs


def _usual(layer, inputs, synchronized):
    before, layer.synchronized = layer.synchronized, synchronized
    try:
        return layer(inputs, training=True)
    finally:
        layer.synchronized = before


def scale_and_offset(layer: keras.layers.BatchNormalization) -> tuple[tf.Tensor, tf.Tensor]:
    """Gamma and beta as float32 `(C,)`, ones and zeros where the layer has none."""
    channels = layer.moving_mean.shape[0]
    scale = layer.gamma if layer.scale else tf.ones(channels)
    offset = layer.beta if layer.center else tf.zeros(channels)
    scale, offset = (tf.cast(tf.convert_to_tensor(x), tf.float32) for x in (scale, offset))
    return scale, offset


def _on_one(inputs, gamma, beta, epsilon):
    """Outputs, mean and variance `(C,)` of the batch; gradients reach the first three."""
    if _in_parts(inputs):
        return _on_one_in_parts(inputs, gamma, beta, epsilon)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=gamma,
        offset=beta,
        mean=tf.zeros(0),
        variance=tf.zeros(0),
        epsilon=epsilon,
        is_training=True,
    )
    # The operation gives the unbiased variance, n / (n - 1) of what Keras keeps.
    count = _count(inputs)
    return outputs, mean, variance * (count - 1) / count


def _on_one_in_parts(inputs, gamma, beta, epsilon) -> Any:
    @tf.custom_gradient
    def normalize(inputs, gamma, beta):
        mean, variance = _moments(inputs)
        outputs = _normalized_by(inputs, gamma, beta, mean, variance, epsilon)

        def gradient(above, *_):
            return _gradients(above, inputs, gamma, mean, variance, epsilon, of_batch=True)

        return (outputs, mean, variance), gradient

    return normalize(inputs, gamma, beta)


def _over_replicas(inputs, gamma, beta, epsilon):
    """The same with the statistics of all replicas.

    Each replica takes the moments of its part; two vectors are exchanged, one forward, one back,
    and fewer will not do: every normalisation waits for the one before it. Back, with N cells in
    all, x^ the normalised input and the sums over all replicas:
    dx = gamma / sigma * (dy - sum(dy) / N - x^ * sum(dy * x^) / N).
    """

    @tf.custom_gradient
    def normalize(inputs, gamma, beta):
        part = tf.concat([_count(inputs)[None], *_moments(inputs)], 0)
        count, mean, variance = _united(gather_over_replicas(part))
        outputs = _normalized_by(inputs, gamma, beta, mean, variance, epsilon)

        def gradient(above, *_):
            # As if mean and variance were given; the rest is below.
            by_input, by_gamma, by_beta = _gradients(
                above, inputs, gamma, mean, variance, epsilon, of_batch=False
            )
            inverse = tf.math.rsqrt(variance + epsilon)
            sums = sum_over_replicas(tf.concat([by_gamma, by_beta], 0)) / count
            by_normalised, by_mean = tf.split(sums, 2)
            slope = -gamma * tf.square(inverse) * by_normalised
            shift = -gamma * inverse * by_mean - slope * mean
            rest = tf.cast(inputs, tf.float32) * slope + shift
            return by_input + tf.cast(rest, inputs.dtype), by_gamma, by_beta

        return (outputs, mean, variance), gradient

    return normalize(inputs, gamma, beta)


def _in_parts(inputs) -> bool:
    """Whether the forward pass is quicker in several operations than in TensorFlow's one.

    Without AVX-512, that of oneDNN took five times as long (docs/benchmarks.md); its gradient did
    not. What it does well there are products with vectors and 1x1 depthwise convolutions.
    """
    on_cpu = not tf.config.list_physical_devices("GPU")
    return on_cpu and onednn_lacks_avx512() and inputs.dtype == tf.float32


def _moments(inputs):
    """Mean and variance `(C,)` of a batch."""
    if not _in_parts(inputs):
        channels = inputs.shape[-1]
        _, mean, variance = _on_one(inputs, tf.ones(channels), tf.zeros(channels), epsilon=1e-3)
        return mean, variance
    count = _count(inputs)
    rows = tf.reshape(inputs, [-1, inputs.shape[-1]])
    mean = tf.matmul(tf.ones([1, tf.shape(rows)[0]]), rows)[0] / count
    centred = inputs - mean
    # The gradient of a 1x1 depthwise kernel is the sum of products of two maps, by channel.
    squares = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=centred,
        filter_sizes=[1, 1, inputs.shape[-1], 1],
        out_backprop=centred,
        strides=[1, 1, 1, 1],
        padding="VALID",
    )
    return mean, tf.reshape(squares, [-1]) / count


def _normalized_by(inputs, gamma, beta, mean, variance, epsilon):
    """Maps normalised by statistics that are given."""
    if not _in_parts(inputs):
        outputs, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=epsilon,
            is_training=False,
        )
        return outputs
    kernel = tf.reshape(gamma * tf.math.rsqrt(variance + epsilon), [1, 1, -1, 1])
    # Where mean is that of `_moments`, grappler finds the same difference there. It joins the
    # rest, with the ReLU6 that follows, to one pass over the map.
    return tf.nn.bias_add(
        tf.nn.depthwise_conv2d(inputs - mean, kernel, [1, 1, 1, 1], "VALID"), beta
    )


def _gradients(above, inputs, gamma, mean, variance, epsilon, of_batch):
    """By inputs, gamma and beta; `of_batch`: mean and variance are those of the inputs."""
    by_input, by_gamma, by_beta, *_ = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=above,
        x=inputs,
        scale=gamma,
        reserve_space_1=mean,
        reserve_space_2=variance,
        reserve_space_3=tf.zeros(0),  # for GPUs
        epsilon=epsilon,
        is_training=of_batch,
    )
    return by_input, by_gamma, by_beta


def _united(parts):
    """Count, mean and variance `(C,)` of all parts; `parts` is `(R, 1 + 2 C)`, likewise."""
    counts, moments = tf.split(parts, [1, parts.shape[1] - 1], axis=1)
    means, variances = tf.split(moments, 2, axis=1)
    count = tf.reduce_sum(counts)
    shares = counts / count
    mean = tf.reduce_sum(shares * means, 0)
    variance = tf.reduce_sum(shares * (variances + tf.square(means - mean)), 0)
    return count, mean, variance


def _count(inputs) -> tf.Tensor:
    return tf.cast(tf.size(inputs, tf.int64) // inputs.shape[-1], tf.float32)
