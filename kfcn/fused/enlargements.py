"""Fixed enlargements class by class."""

import functools
from collections.abc import Callable

import keras

from kfcn.graph import hand_on
from kfcn.machine import onednn_is_on
from kfcn.nets.upsample import enlargements


def by_channel(model: keras.Model) -> dict[keras.Operation, Callable]:
    """Transposes of depthwise convolutions instead of dense ones, for `kfcn.graph.replay`.

    That is linear in the channels, where a dense one is quadratic: at 21 classes 2.5 times, at 81
    3.5 times as fast forward and 4.7 with the gradient, on two cores. Where `kfcn.nets.upsample`
    has split the channels into groups, they are enlarged as one.

    All that is oneDNN's doing. TensorFlow's own kernel takes 2 to 8 times as long as the layers, at
    150 classes as at 12 (docs/benchmarks.md): without oneDNN they stay.

    Call it before tracing: weights are looked at.
    """
    instead: dict[keras.Operation, Callable] = {}
    if not onednn_is_on():
        return instead
    for enlargement in enlargements(model):
        if enlargement.learns:
            continue
        whole = functools.partial(_enlarge, enlargement.parts)
        if enlargement.join is None:
            instead[enlargement.parts[0]] = whole
            continue
        # Every part is handed the whole map and hands it on to where the parts are joined.
        count = len(enlargement.parts)
        instead[enlargement.split] = functools.partial(_copies, count)
        instead |= dict.fromkeys(enlargement.parts, hand_on)
        instead[enlargement.join] = lambda maps, whole=whole: whole(maps[0])
    return instead


def _copies(count, x):
    return [x] * count


def _enlarge(parts, x):
    """What the layers `parts`, which differ in their channels only, make of all channels of x."""
    import tensorflow as tf

    layer, stride = parts[0], parts[0].strides[0]
    x = tf.cast(x, layer.compute_dtype)
    valid = layer.padding == "valid"
    beyond = [max(size - stride, 0) if valid else 0 for size in layer.kernel_size]
    shape = [
        x.shape[0],
        *(n and n * stride + more for n, more in zip(x.shape[1:3], beyond, strict=True)),
        x.shape[3],
    ]
    now = tf.shape(x)
    later = [now[0], now[1] * stride + beyond[0], now[2] * stride + beyond[1], x.shape[3]]
    kernels = [tf.linalg.diag_part(tf.convert_to_tensor(part.kernel)) for part in parts]
    enlarged = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=[n or m for n, m in zip(shape, later, strict=True)],
        filter=tf.cast(tf.expand_dims(tf.concat(kernels, -1), -1), x.dtype),  # (k, k, C, 1)
        out_backprop=x,
        strides=[1, stride, stride, 1],
        padding=layer.padding.upper(),
    )
    return tf.ensure_shape(enlarged, shape)
