"""Batch normalisation for the traced training step, in few operations and over all replicas.

Keras spells it out as a dozen operations over the whole map, which took half of a MobileNetV2 step
on a CPU; TensorFlow has one forward and one back.
"""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from kfcn.collectives import gather_over_replicas, sum_over_replicas
from kfcn.fused.norms import norms


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
    """Outputs, mean and variance `(C,)`; gradients are those of the operation."""
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


def _over_replicas(inputs, gamma, beta, epsilon):
    """The same with the statistics of all replicas.

    Each replica takes the moments of its part; two vectors are exchanged, one forward, one back,
    and fewer will not do: every normalisation waits for the one before it. Back, with N cells in
    all, x^ the normalised input and the sums over all replicas:
    dx = gamma / sigma * (dy - sum(dy) / N - x^ * sum(dy * x^) / N).
    """

    @tf.custom_gradient
    def normalize(inputs, gamma, beta):
        _, part_mean, part_variance = _on_one(inputs, gamma, beta, epsilon)
        part = tf.concat([_count(inputs)[None], part_mean, part_variance], 0)
        count, mean, variance = _united(gather_over_replicas(part))
        outputs, *_, reserved = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=epsilon,
            is_training=False,
        )

        def gradient(above, *_):
            by_input, by_gamma, by_beta, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=above,
                x=inputs,
                scale=gamma,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=reserved,
                epsilon=epsilon,
                is_training=False,  # as if mean and variance were given; the rest is below
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
