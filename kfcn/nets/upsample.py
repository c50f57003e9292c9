"""Upsampling by transposed convolution, and the trimming that makes every size work.

Where the cells of a map lie. Cell i of a map of stride s is centred at input pixel s*i + offset.
The usual bilinear transposed convolution (kernel 2s, stride s, padding 'same') puts cell i at
s*i + (s - 1)/2, which is where 2x2 pooling has it. As every map of such a net starts with cell 0
at the same fractional place, all crop offsets of the paper's Caffe nets (19, 27, 31, 5, 9) become
zero here: what a stage has in excess lies at the bottom and the right, and is cut off there.

`enlargements` and `trims` find what `upsample` and `match_size` have built, in a net loaded from a
file too; whatever rewrites a net asks them.
"""

import collections
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kfcn.graph import (
    arguments,
    calls,
    inputs,
    is_operation,
    is_plain,
    is_stock,
    operations,
    outputs,
    place,
    producer,
)

# Channels of a group. Up to two groups one dense transposed convolution is as fast;
# `python -m kfcn_tools.benchmarks.upsample` prints both.
GROUP = 16


def bilinear_kernel(stride: int, channels: int, size: int | None = None) -> np.ndarray:
    """The kernel of a transposed convolution that interpolates bilinearly, channel by channel.

    Args:
        stride: enlargement s, at least 1.
        channels: classes C; the kernel is zero between different channels.
        size: 2s (default, centred between two pixels) or 2s - 1 (centred on a pixel).

    Returns:
        float32 `(size, size, C, C)`, the triangle max(0, 1 - |j - (size - 1)/2| / s) in both
        directions (Long et al. 2015, section 3.3).
    """
    size = 2 * stride if size is None else size
    triangle = np.maximum(0.0, 1.0 - np.abs(np.arange(size) - (size - 1) / 2) / stride)
    kernel = np.outer(triangle, triangle)[:, :, None, None] * np.eye(channels)
    return kernel.astype("float32")


def upsample(
    x: keras.KerasTensor,
    stride: int,
    name: str,
    *,
    offset: float | None = None,
    trainable: bool = False,
    dtype: str | None = None,
) -> keras.KerasTensor:
    """Enlarges a map `stride` times with a transposed convolution that starts bilinear.

    No bias and no activation: with either the layer becomes an operator version that the GPU
    delegates of phones refuse, and interpolation needs neither.

    Args:
        x: `(B, h, w, C)`.
        stride: enlargement s.
        name: layer name.
        offset: where the finer grid has the centre of cell 0 of `x`, in cells of the finer grid:
            0, (s - 1)/2 or s - 1. None is the usual kernel, that is (s - 1)/2.
        trainable: whether the kernel learns.
        dtype: dtype policy of the layer; None for the global one.

    Returns:
        `(B, s*h, s*w, C)`, or s - 1 rows and columns more where `offset` is s - 1. What stands
        beyond the reference at the bottom and right is for `match_size` to cut.
    """
    usual = offset is None or offset == (stride - 1) / 2
    if not usual and offset not in (0, stride - 1):
        raise ValueError(f"Expected an offset of 0, (s-1)/2 or s-1 at s={stride}. Got {offset}.")
    size, padding = (2 * stride, "same") if usual else (2 * stride - 1, "valid")
    channels = x.shape[-1]

    def transposed(filters, name):
        return keras.layers.Conv2DTranspose(
            filters,
            size,
            strides=stride,
            padding=padding,
            use_bias=False,
            # Zeros, and the kernel set below: an initializer of ours would end up in the saved
            # file and keep it from loading without kfcn.
            kernel_initializer="zeros",
            trainable=trainable,
            dtype=dtype,
            name=name,
        )

    if trainable or channels <= 2 * GROUP:
        layers = [transposed(channels, name)]
        x = layers[0](x)
    else:
        # The kernel is zero between channels, but a dense transposed convolution multiplies
        # these zeros too, which is quadratic in the classes. One layer shared by groups of
        # channels, and one for what remains, give the same values in linear time.
        layers = [transposed(GROUP, name)]
        *groups, last = ops.split(x, list(range(GROUP, channels, GROUP)), axis=-1)
        if rest := channels % GROUP:
            layers.append(transposed(rest, f"{name}_rest"))
        groups = [*map(layers[0], groups), layers[-1](last)]
        x = keras.layers.Concatenate(name=f"{name}_groups")(groups)
    for layer in layers:
        layer.set_weights([bilinear_kernel(stride, layer.filters, size)])
    if not usual and offset == 0:
        x = keras.layers.Cropping2D(((stride - 1, 0), (stride - 1, 0)), name=f"{name}_align")(x)
    return x


class Enlargement(NamedTuple):
    """A transposed convolution, or several side by side, that enlarges every channel by itself.

    Attributes:
        parts: the layers in the order of their channels. One, or one for each group, where the full
            groups are the same layer.
        split: the operation that splits the channels into groups; None where there is one part.
        join: the layer that joins them again, or None.
    """

    parts: tuple[keras.layers.Conv2DTranspose, ...]
    split: keras.Operation | None = None
    join: keras.layers.Concatenate | None = None

    @property
    def layers(self) -> list[keras.layers.Conv2DTranspose]:
        """The layers, each of them once."""
        return list(dict.fromkeys(self.parts))

    @property
    def stride(self) -> int:
        return self.parts[0].strides[0]

    @property
    def learns(self) -> bool:
        return any(layer.trainable for layer in self.parts)

    @property
    def is_bilinear(self) -> bool:
        """Whether it has the usual kernel of `upsample`, to the last float32 digit or so."""
        return self._has("same", 2 * self.stride)

    @property
    def is_aligned(self) -> bool:
        """Whether it has the kernel of `upsample` for an offset of 0 or s - 1."""
        return self._has("valid", 2 * self.stride - 1)

    def _has(self, padding, size):
        return all(
            layer.padding == padding
            and layer.kernel_size == (size, size)
            and np.allclose(
                ops.convert_to_numpy(layer.kernel),
                bilinear_kernel(self.stride, layer.filters, size),
                rtol=0,
                atol=1e-6,
            )
            for layer in self.layers
        )


def enlargements(model: keras.Model) -> list[Enlargement]:
    """Finds the layers of a net by which `upsample` enlarges maps.

    The weights decide: a layer whose kernel has learned to mix the channels is not one of them.
    """
    layers = {layer for layer in model.layers if _enlarges_by_channel(layer)}
    joins = [layer for layer in model.layers if is_stock(layer, keras.layers.Concatenate)]
    uses = _Uses.of(model) if joins else None
    joined = [x for x in (_joined(layer, uses) for layer in joins) if x]
    joined = [x for x in joined if layers.issuperset(x.parts)]
    grouped = {layer for enlargement in joined for layer in enlargement.parts}
    return joined + [Enlargement((x,)) for x in model.layers if x in layers - grouped]


def _enlarges_by_channel(layer) -> bool:
    if not is_stock(layer, keras.layers.Conv2DTranspose):
        return False
    if layer.output_padding is not None or not is_plain(layer):
        return False
    kernel = ops.convert_to_numpy(layer.kernel)
    square = kernel.shape[-1] == kernel.shape[-2]
    return square and not kernel[:, :, ~np.eye(kernel.shape[-1], dtype=bool)].any()


class _Uses(NamedTuple):
    """How often a net calls each operation and reads each symbolic tensor (by its id)."""

    calls: collections.Counter
    reads: collections.Counter

    @classmethod
    def of(cls, model: keras.Model) -> "_Uses":
        made = list(calls(model))
        given = keras.tree.flatten([(call.args, call.kwargs) for call in made])
        return cls(
            collections.Counter(call.operation for call in made),
            collections.Counter(map(id, [*given, *model.outputs])),
        )


def _joined(layer, uses) -> Enlargement | None:
    """What `layer` joins, if these are all groups of one split map in order, each behind a layer.

    Nothing else may read the groups: whoever takes the place of the whole computes none of them.
    """
    if layer.axis not in (-1, 3):
        return None
    ends = inputs(layer)
    places = [place(x)[:2] for x in ends]
    parts = tuple(part for part, _ in places)
    if not all(is_stock(part, keras.layers.Conv2DTranspose) for part in parts):
        return None
    sources = [place(inputs(part, call)[0]) for part, call in places]
    split, call, _ = sources[0]
    if not is_operation(split, "Split"):
        return None
    groups = outputs(split, call)
    in_order = sources == [(split, call, index) for index in range(len(groups))]
    alone = all(uses.reads[id(x)] == 1 for x in (*groups, *ends))
    own = all(uses.calls[x] == n for x, n in collections.Counter((split, *parts, layer)).items())
    return Enlargement(parts, split, layer) if in_order and alone and own else None


def match_size(x: keras.KerasTensor, reference: keras.KerasTensor) -> keras.KerasTensor:
    """Gives `x` the height and width of `reference`, whatever they turn out to be.

    Too much is cut at the bottom and right; what is short repeats the last row and column. Both
    hold for sizes known only at run time and with stock operations, so that the saved model
    loads without kfcn: slices of a symbolic length cannot be written in Keras, a gather can.

    Args:
        x: `(B, h, w, C)`.
        reference: `(B, H, W, any)`.

    Returns:
        `(B, H, W, C)`.
    """
    for axis in (1, 2):
        if x.shape[axis] is None or x.shape[axis] != reference.shape[axis]:
            wanted = ops.minimum(_positions(reference, axis), ops.max(_positions(x, axis)))
            x = ops.take(x, wanted, axis=axis)
    return x


def _positions(x, axis: int):
    """0 .. n-1 along `axis` as int32, n taken at run time."""
    line = x[0, :, 0, 0] if axis == 1 else x[0, 0, :, 0]
    return ops.cumsum(ops.ones_like(line, dtype="int32")) - 1


class Trim(NamedTuple):
    """One gather of `match_size`: rows or columns 0, 1, ... of a map, the last one repeated.

    Attributes:
        operation: the gather; called on the map and the indices.
        axis: 1 for rows, 2 for columns.
        indices: symbolic int32 `(n,)`. They follow from the sizes of the two maps.
        reference: the map whose size is wanted; None where that is a constant.
    """

    operation: keras.Operation
    axis: int
    indices: keras.KerasTensor
    reference: keras.KerasTensor | None


def trims(model: keras.Model) -> list[Trim]:
    """Finds the gathers of `match_size` in a net."""
    return [trim for operation in operations(model) if (trim := as_trim(operation))]


def as_trim(operation: keras.Operation) -> Trim | None:
    """The gather of `match_size` that an operation of a net is, or None.

    All that `match_size` builds is followed back: a gather of other rows and columns is none.
    """
    if not is_operation(operation, "Take") or operation.axis not in (1, 2):
        return None
    x, *indices = inputs(operation)
    if len(x.shape) != 4 or len(indices) != 1 or not _is_from(indices[0], "Minimum"):
        return None
    axis = operation.axis
    positions, last = arguments(indices[0])
    if not _is_from(last, "Max") or producer(last).initial is not None or last.shape != ():
        return None
    if _counted(arguments(last)[0], axis) is not x:
        return None
    if not isinstance(positions, keras.KerasTensor):  # of a reference that is no part of the net
        return Trim(operation, axis, indices[0], None) if _is_line(positions) else None
    reference = _counted(positions, axis)
    return None if reference is None else Trim(operation, axis, indices[0], reference)


def _counted(positions: keras.KerasTensor, axis: int) -> keras.KerasTensor | None:
    """The map `(B, H, W, C)` whose `_positions` these are, or None."""
    if positions.dtype != "int32" or not _is_from(positions, "Subtract"):
        return None
    counts, one = arguments(positions)
    if isinstance(one, keras.KerasTensor) or one != 1 or not _is_from(counts, "Cumsum"):
        return None
    ones = arguments(counts)[0]
    if len(ones.shape) != 1 or not _is_from(ones, "OnesLike"):
        return None
    line = arguments(ones)[0]
    if not _is_from(line, "GetItem"):
        return None
    x, key = arguments(line)
    whole = [0, slice(None), 0, 0] if axis == 1 else [0, 0, slice(None), 0]
    plain = all(isinstance(part, (int, slice)) for part in key) and list(key) == whole
    return x if plain and len(x.shape) == 4 else None


def _is_line(positions) -> bool:
    """Whether these are the numbers 0 .. n-1."""
    values = ops.convert_to_numpy(positions)
    return values.ndim == 1 and np.array_equal(values, np.arange(len(values)))


def _is_from(value, name: str) -> bool:
    """Whether this is a symbolic tensor that an operation of `keras.ops` of this name returned."""
    return isinstance(value, keras.KerasTensor) and is_operation(producer(value), name)
