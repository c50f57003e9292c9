"""Cuts to a known size by slices."""

import keras

from kfcn.fused.calls import calls_as
from kfcn.nets.upsample import trims


def cuts_as_slices(model: keras.Model):
    """Has the gathers of `kfcn.nets.upsample.match_size` done by slices in what is traced inside.

    Where both sizes are known while it is traced. The gradient of a gather adds up row by row
    and transposes twice, a sixteenth of a MobileNetV2 step; that of a slice pads.
    """
    return calls_as([trim.operation for trim in trims(model)], _cut)


def _cut(operation, usual, x, indices):
    """`Take.call` for the indices min(0 .. n-1, last) of `match_size`."""
    import tensorflow as tf

    axis, wanted = operation.axis, indices.shape[0]
    if None in (wanted, x.shape[axis]):
        return usual(x, indices)
    short = wanted - x.shape[axis]
    if short == 0:
        return x
    if short < 0:
        return x[:, :wanted] if axis == 1 else x[:, :, :wanted]
    last = x[:, -1:] if axis == 1 else x[:, :, -1:]
    return tf.concat([x, *[last] * short], axis)
