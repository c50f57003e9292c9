"""Fixed enlargements class by class."""

import contextlib
from collections.abc import Iterable, Iterator

import keras

from kfcn.fused.calls import calls_as, has_gpu
from kfcn.nets.upsample import Enlargement, enlargements


def fixed_enlargements(model: keras.Model) -> list[Enlargement]:
    """The enlargements that stay channel by channel, for `enlarged_by_channel`.

    Call it before tracing: their weights are looked at. None where there is a GPU: only CPUs were
    measured.
    """
    return [] if has_gpu() else [x for x in enlargements(model) if not x.learns]


@contextlib.contextmanager
def enlarged_by_channel(found: Iterable[Enlargement]) -> Iterator[None]:
    """Has transposed convolutions done as the transpose of depthwise ones in what is traced inside.

    That is linear in the channels, where a dense one is quadratic: at 21 classes 2.5 times, at 81
    3.5 times as fast forward and 4.7 with the gradient, on two cores. Where `kfcn.nets.upsample`
    has split the channels into groups, they are enlarged as one.

    Args:
        found: what `fixed_enlargements` found in the net.
    """
    with contextlib.ExitStack() as stack:
        for enlargement in found:
            group = _Group(enlargement.parts)
            if enlargement.join is None:
                stack.enter_context(calls_as(enlargement.layers, group.whole))
                continue
            stack.enter_context(calls_as([enlargement.split], group.split))
            stack.enter_context(calls_as(enlargement.layers, group.part))
            stack.enter_context(calls_as([enlargement.join], group.join))
        yield


class _Group:
    """Hands the whole map from where it is split to where its parts are joined again."""

    def __init__(self, parts):
        self.parts, self.map = parts, None

    def whole(self, layer, usual, x):
        return _enlarge(x, self.parts)

    def split(self, operation, usual, x):
        self.map = x
        return usual(x)

    def part(self, layer, usual, x):
        return x  # for `join`, which has no use for it

    def join(self, layer, usual, inputs):
        return _enlarge(self.map, self.parts)


def _enlarge(x, parts):
    """What the layers `parts`, which differ in their channels only, make of all channels of x."""
    import tensorflow as tf

    layer, stride = parts[0], parts[0].strides[0]
    beyond = [0 if layer.padding == "same" else size - stride for size in layer.kernel_size]
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
        filter=tf.cast(tf.concat(kernels, -1)[..., None], x.dtype),  # (k, k, C, 1)
        out_backprop=x,
        strides=[1, stride, stride, 1],
        padding=layer.padding.upper(),
    )
    return tf.ensure_shape(enlarged, shape)
