"""Enlargements other than by repetition, for maps whose size is known only at run time."""

import functools
from collections.abc import Callable

import keras

from kfcn.graph import is_stock, replay


def resizes(model: keras.Model) -> dict[keras.Operation, Callable]:
    """TensorFlow's own resize instead of `UpSampling2D` that interpolates, for `kfcn.graph.replay`.

    Keras compares the new size with zero before it calls the same, which no graph can do with a
    size that is still open. Those in nested models are found too.
    """
    found: dict[keras.Operation, Callable] = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            one = len(layer.inputs) == len(layer.outputs) == 1
            if one and (inside := resizes(layer)):
                found[layer] = functools.partial(replay, layer, instead=inside)
        elif (
            is_stock(layer, keras.layers.UpSampling2D)
            and layer.interpolation != "nearest"
            and layer.data_format == "channels_last"
        ):
            found[layer] = functools.partial(_resized, layer)
    return found


def _resized(layer, x):
    import tensorflow as tf

    x = tf.cast(x, layer.compute_dtype)
    size = tf.shape(x)[1:3] * tf.constant(layer.size)
    return tf.cast(tf.image.resize(x, size, layer.interpolation), x.dtype)
