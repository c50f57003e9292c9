"""Cuts to a known size by slices."""

import functools
from collections.abc import Callable

import keras

from kfcn.nets.upsample import Trim, trims


def slices(model: keras.Model) -> dict[keras.Operation, Callable]:
    """Slices instead of the gathers of `kfcn.nets.upsample.match_size`, for `kfcn.graph.replay`.

    Where both sizes are known while it is traced. The gradient of a gather adds up row by row
    and transposes twice, a sixteenth of a MobileNetV2 step; that of a slice pads.
    """
    return {trim.operation: functools.partial(_cut, trim) for trim in trims(model)}


def _cut(trim: Trim, x, indices):
    """`Take.call` for the indices min(0 .. n-1, last) of `match_size`."""
    import tensorflow as tf

    axis, wanted = trim.axis, indices.shape[0]
    if None in (wanted, x.shape[axis]):
        return trim.operation(x, indices)
    short = wanted - x.shape[axis]
    if short == 0:
        return x
    if short < 0:
        return x[:, :wanted] if axis == 1 else x[:, :, :wanted]
    last = x[:, -1:] if axis == 1 else x[:, :, -1:]
    return tf.concat([x, *[last] * short], axis)
