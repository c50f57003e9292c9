"""Batch normalisation for the traced training step.

The layers of the net stay Keras' own, so that the saved file is stock; only what they do while a
step is traced is replaced.
"""

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf


@contextlib.contextmanager
def for_training(model: keras.Model, replicas: int) -> Iterator[None]:
    """How the batch normalisation of `model` is computed by what is traced inside.

    With one replica it is one operation forward and one back. Keras spells it out as a dozen over
    the whole map, which took more than half of a MobileNetV2 step on a CPU. With several, the
    statistics are those of all replicas together.

    Args:
        model: the net.
        replicas: how many there are.
    """
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    before = [layer.synchronized for layer in norms]
    for layer in norms:
        if replicas > 1:
            layer.synchronized = True
        else:
            layer.call = functools.partial(_fused, layer, layer.call)
    try:
        yield
    finally:
        for layer, value in zip(norms, before, strict=True):
            layer.synchronized = value
            vars(layer).pop("call", None)


def _fused(layer, usual, inputs, training=None, mask=None):
    """`BatchNormalization.call` as one operation, where there is one for it."""
    last = layer.axis in (-1, 3) and len(inputs.shape) == 4
    if not (training and layer.trainable and last and mask is None) or layer.renorm:
        return usual(inputs, training=training, mask=mask)
    channels = inputs.shape[-1]
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones(channels),
        offset=tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros(channels),
        mean=tf.zeros(0),
        variance=tf.zeros(0),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The operation gives the unbiased variance, n / (n - 1) of what Keras keeps.
    count = tf.cast(tf.size(inputs, tf.int64) // channels, tf.float32)
    variance *= (count - 1) / count
    for moving, now in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + now * (1 - layer.momentum))
    return outputs
