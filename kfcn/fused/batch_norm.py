"""Batch normalisation for the traced training step, in few operations and over all replicas.

Keras spells it out as a dozen operations over the whole map, which took half of a MobileNetV2 step
on a CPU; TensorFlow has one forward and one back.
"""

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf

from kfcn.fused import calls_as, norms, scale_and_offset
from kfcn.losses import over_replicas


@contextlib.contextmanager
def for_training(model: keras.Model, replicas: int) -> Iterator[None]:
    """How the batch normalisation of `model` is computed by what is traced inside.

    Args:
        model: the net.
        replicas: how many there are; with several the statistics are those of all together.
    """
    normalize = _over_replicas if replicas > 1 else _on_one
    layers = norms(model)
    before = [layer.synchronized for layer in layers]
    for layer in layers:
        layer.synchronized = replicas > 1
    try:
        with calls_as(layers, functools.partial(_call, normalize)):
            yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.synchronized = value


def _call(normalize, layer, usual, inputs, training=None, mask=None):
    """`BatchNormalization.call`; the statistics of maps `(B, H, W, C)` by `normalize`."""
    of_map = layer.axis in (-1, 3) and len(inputs.shape) == 4 and mask is None
    if not (training and layer.trainable and of_map) or layer.renorm:
        return usual(inputs, training=training, mask=mask)
    gamma, beta = scale_and_offset(layer)
    outputs, mean, variance = normalize(inputs, gamma, beta, layer.epsilon)
    for moving, now in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + now * (1 - layer.momentum))
    return outputs


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

    Each replica takes the moments of its part; what is exchanged are `(C,)` vectors. Back, with
    N cells in all, x^ the normalised input and the sums over all replicas:
    dx = gamma / sigma * (dy - sum(dy) / N - x^ * sum(dy * x^) / N).
    """

    @tf.custom_gradient
    def normalize(inputs, gamma, beta):
        _, part_mean, part_variance = _on_one(inputs, gamma, beta, epsilon)
        part = _count(inputs)
        count = over_replicas(part)
        mean = over_replicas(part_mean * part) / count
        spread = part_variance + tf.square(part_mean - mean)
        variance = over_replicas(spread * part) / count
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
            slope = -gamma * tf.square(inverse) * over_replicas(by_gamma) / count
            shift = -gamma * inverse * over_replicas(by_beta) / count - slope * mean
            rest = tf.cast(inputs, tf.float32) * slope + shift
            return by_input + tf.cast(rest, inputs.dtype), by_gamma, by_beta

        return (outputs, mean, variance), gradient

    return normalize(inputs, gamma, beta)


def _count(inputs) -> tf.Tensor:
    return tf.cast(tf.size(inputs, tf.int64) // inputs.shape[-1], tf.float32)
