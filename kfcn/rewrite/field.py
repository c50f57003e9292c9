"""The receptive field of a model's output cells, by calculation.

Along one axis a cell of a map sees the input pixels from `low` to `high`. A window of reach K at
stride s that starts b cells early makes `low' = low - b*j` and `high' = high + (K - 1 - b)*j`,
where j is the stride so far; the derivation with pictures is in Araujo, Norris and Sim, "Computing
Receptive Fields of Convolutional Neural Networks", Distill 2019. Here the cells of one period
are kept one by one, which makes it exact behind transposed convolutions and upsampling too, where
neighbouring cells see fields of different sizes.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import keras
from keras import layers

from kfcn.errors import KfcnError
from kfcn.graph import is_operation
from kfcn.nets.upsample import as_trim
from kfcn.rewrite import geometry
from kfcn.rewrite.pooling import DilatedPooling2D
from kfcn.rewrite.walker import Shape, Walker, as_functional, describe, reference_specs


class ReceptiveField(NamedTuple):
    """What the cells of a map see of the input, in input pixels.

    Every value is a number, or a pair `(y, x)` where the axes differ. Cell i is centred at
    `stride * i + offset`, pixel 0 at 0.

    Attributes:
        size: extent of the field (behind upsampling: the largest); `math.inf` where the map holds
            a part that sees the whole image (squeeze-and-excite, image pooling).
        stride: pixels from one cell to the next.
        offset: centre of the field of cell 0 (behind upsampling: of the mean over one period);
            without the part that sees the whole image.
    """

    size: float | tuple
    stride: float | tuple
    offset: float | tuple

    @property
    def extent(self) -> float:
        """The size along the axis where it is larger."""
        return max(self.size) if isinstance(self.size, tuple) else self.size


@dataclass(frozen=True)
class _Axis:
    """The fields along one axis: cell i sees `cells[i % period]` moved by whole advances."""

    cells: tuple[tuple[int, int], ...] = ((0, 0),)
    advance: int = 1  # pixels from one period to the next

    @property
    def stride(self) -> Fraction:
        return Fraction(self.advance, len(self.cells))

    def cell(self, index: int) -> tuple[int, int]:
        periods, rest = divmod(index, len(self.cells))
        low, high = self.cells[rest]
        return low + periods * self.advance, high + periods * self.advance

    def cover(self, indices) -> tuple[int, int]:
        fields = [self.cell(index) for index in indices]
        return min(low for low, _ in fields), max(high for _, high in fields)

    def slide(self, kernel: int, stride: int, dilation: int, before: int) -> "_Axis":
        """Behind a convolution or pooling that is padded with `before` cells."""
        period = len(self.cells)
        steps = period // math.gcd(period, stride)
        cells = tuple(
            self.cover(step * stride - before + dilation * tap for tap in range(kernel))
            for step in range(steps)
        )
        return _Axis(cells, self.advance * stride * steps // period)

    def spread(self, kernel: int, stride: int, before: int) -> "_Axis":
        """Behind a transposed convolution whose output loses its first `before` cells."""
        cells = []
        for index in range(len(self.cells) * stride):
            last = (index + before) // stride
            first = min(-((kernel - 1 - index - before) // stride), last)
            cells.append(self.cover((first, last)))
        return _Axis(tuple(cells), self.advance)

    def shift(self, cells: int) -> "_Axis":
        """Behind padding by -`cells` or cropping by `cells` at the start."""
        return _Axis(tuple(self.cell(i + cells) for i in range(len(self.cells))), self.advance)

    def join(self, other: "_Axis") -> "_Axis":
        """Where two branches of the same stride meet."""
        period = math.lcm(len(self.cells), len(other.cells))
        cells = []
        for index in range(period):
            (low, high), (other_low, other_high) = self.cell(index), other.cell(index)
            cells.append((min(low, other_low), max(high, other_high)))
        return _Axis(tuple(cells), self.advance * period // len(self.cells))

    def reach(self) -> int:
        own = [math.floor(self.stride * index) for index in range(len(self.cells))]
        places = zip(self.cells, own, strict=True)
        return max(max(place - low, high - place) for (low, high), place in places)

    def summary(self) -> tuple[Fraction, Fraction, Fraction]:
        size = max(high - low + 1 for low, high in self.cells)
        centres = [
            Fraction(low + high, 2) - self.stride * index
            for index, (low, high) in enumerate(self.cells)
        ]
        return Fraction(size), self.stride, sum(centres, Fraction(0)) / len(centres)


@dataclass(frozen=True)
class _Field:
    y: _Axis = _Axis()
    x: _Axis = _Axis()
    unbounded: bool = False


class _FieldWalker(Walker):
    """States: a `_Field` for maps, None for what has no grid (pooled vectors, indices)."""

    def visit(self, layer, args, kwargs, specs):
        state = self._state(layer, args, kwargs, specs)
        return Shape(layer)(*args, **kwargs), state

    def _state(self, layer, args, kwargs, specs):
        facts = self.facts(args, kwargs)
        fields = [fact.state for fact in facts if fact.state is not None]
        if not fields or isinstance(layer, (*geometry.GLOBAL_POOLINGS, layers.Flatten)):
            return None
        if any(not geometry.is_map(spec) for spec in keras.tree.flatten(specs)):
            return None
        field, before = fields[0], facts[0].spec.shape

        window = geometry.window(layer)
        if window:
            y, x = (
                axis.slide(
                    window.kernel[i],
                    window.stride[i],
                    window.dilation[i],
                    window.pads(i, before[i + 1])[0],
                )
                for i, axis in enumerate((field.y, field.x))
            )
            return _Field(y, x, field.unbounded)
        if isinstance(layer, DilatedPooling2D):
            parts = zip(
                (field.y, field.x), layer.pool_size, layer.dilation_rate, layer.pads, strict=True
            )
            y, x = (axis.slide(size, 1, rate, pads[0]) for axis, size, rate, pads in parts)
            return _Field(y, x, field.unbounded)
        edges = geometry.edges(layer)
        if edges:
            return _Field(field.y.shift(-edges[0][0]), field.x.shift(-edges[1][0]), field.unbounded)
        if is_operation(layer, "GetItem"):
            starts = _starts(layer, args[1])
            return _Field(field.y.shift(starts[0]), field.x.shift(starts[1]), field.unbounded)
        if as_trim(layer):
            return field  # rows and columns from 0 on
        spread = _upsampling(layer, before, keras.tree.flatten(specs)[0].shape)
        if spread:
            return _Field(field.y.spread(*spread[0]), field.x.spread(*spread[1]), field.unbounded)
        if geometry.is_pointwise(layer):
            return _join(layer, fields, unbounded=len(fields) < len(facts))
        if isinstance(layer, (layers.LayerNormalization, layers.GroupNormalization)):
            return _Field(field.y, field.x, unbounded=True)
        raise KfcnError(
            f"the receptive field cannot be followed through {describe(layer)}: expected "
            "convolutions, poolings, padding, cropping, upsampling and pointwise layers"
        )


def receptive_field(
    model: keras.Model, size: tuple[int, int] | None = None
) -> ReceptiveField | list[ReceptiveField]:
    """The receptive field of a model's output cells: `(size, stride, offset)` in input pixels.

    Calculated from kernels, strides, dilations and padding through branches, nested models and
    upsampling; no image is run. A branch that pools over the whole image makes `size` infinite.

    Args:
        model: a functional or Sequential model of one input `(B, H, W, C)` whose output is a map
            `(B, H', W', C')`. With 'same' padding the grid depends on the parity of the sizes it
            meets: the numbers are those of the model's own input size, or of sizes that all
            strides divide.
        size: another input size `(height, width)` for a model that leaves it open.

    Returns:
        A `ReceptiveField`; for a model with several outputs a list of them.

    Raises:
        KfcnError: if an output is no map (a classifier's vector), if branches of different
            strides meet, or if a layer's geometry is not known; the layer is named.
    """
    fields = receptive_fields(model, size)
    return fields[0] if len(fields) == 1 else fields


def receptive_fields(
    model: keras.Model, size: tuple[int, int] | None = None
) -> list[ReceptiveField]:
    """As `receptive_field`, a list also for a model of one output."""
    return [_summary(field) for field in _output_fields(model, size)]


def reach(model: keras.Model) -> float:
    """How far an output cell looks from its own place, in input pixels, in either direction.

    Cell i's own place is pixel `stride * i`. This is more than half of the receptive field where
    cells look further to one side than to the other, or not all equally far.

    Args:
        model: as for `receptive_field`, of one output.

    Returns:
        Pixels; `math.inf` where a part sees the whole image.

    Raises:
        KfcnError: as `receptive_field`.
    """
    (field,) = _output_fields(model)
    return math.inf if field.unbounded else max(field.y.reach(), field.x.reach())


def _output_fields(model: keras.Model, size: tuple[int, int] | None = None) -> list[_Field]:
    graph = as_functional(model)
    walker = _FieldWalker()
    inputs = []
    for old, spec in zip(graph.inputs, reference_specs(graph, size), strict=True):
        tensor = keras.Input(batch_shape=old.shape, dtype=old.dtype, name=old.name)
        walker.know(tensor, spec, _Field() if geometry.is_map(spec) else None)
        inputs.append(tensor)
    outputs = walker.walk(graph, inputs).outputs
    fields = []
    for output, old in zip(outputs, graph.outputs, strict=True):
        field = walker.fact(output).state
        if field is None:
            raise KfcnError(
                f"output '{old.name}' of model '{graph.name}' sees the whole image and has no "
                "grid of cells: expected a map (B, H, W, C); convolutionalize a classifier first"
            )
        fields.append(field)
    return fields


def _summary(field: _Field) -> ReceptiveField:
    values = []
    for of_y, of_x in zip(field.y.summary(), field.x.summary(), strict=True):
        of_y, of_x = (int(v) if v.denominator == 1 else float(v) for v in (of_y, of_x))
        values.append(of_y if of_y == of_x else (of_y, of_x))
    if field.unbounded:
        values[0] = math.inf
    return ReceptiveField(*values)


def _join(layer, fields, unbounded: bool) -> _Field:
    first = fields[0]
    for other in fields[1:]:
        if (first.y.stride, first.x.stride) != (other.y.stride, other.x.stride):
            raise KfcnError(
                f"{describe(layer)} joins branches of strides {first.y.stride} and "
                f"{other.y.stride}: expected equal strides"
            )
        first = _Field(
            first.y.join(other.y), first.x.join(other.x), first.unbounded or other.unbounded
        )
    return _Field(first.y, first.x, first.unbounded or unbounded)


def _upsampling(layer, before, after):
    """Kernel, stride and cells cut off at the start, for y and x; None for any other layer."""
    if isinstance(layer, layers.Conv2DTranspose):
        kernel, stride = layer.kernel_size, layer.strides
        if layer.output_padding is not None or tuple(layer.dilation_rate) != (1, 1):
            raise KfcnError(f"{describe(layer)} has output_padding or dilation: expected neither")
        same = layer.padding == "same"
        # TensorFlow's 'same' is that of the convolution whose gradient this layer is.
        return [
            (k, s, max(k - s, 0) // 2 if same else 0) for k, s in zip(kernel, stride, strict=True)
        ]
    if isinstance(layer, layers.UpSampling2D):
        factors = layer.size
    elif isinstance(layer, layers.Resizing) or is_operation(layer, "Resize"):
        if any(new % old for new, old in zip(after[1:3], before[1:3], strict=True)):
            raise KfcnError(f"{describe(layer)} does not enlarge by a whole factor")
        factors = [new // old for new, old in zip(after[1:3], before[1:3], strict=True)]
    else:
        return None
    if layer.interpolation == "nearest":
        return [(factor, factor, 0) for factor in factors]
    if layer.interpolation == "bilinear":  # half-pixel centres: the triangle kernel
        kernels = [2 * factor - factor % 2 for factor in factors]
        return [(k, f, (k - f) // 2) for k, f in zip(kernels, factors, strict=True)]
    raise KfcnError(f"{describe(layer)}: interpolation '{layer.interpolation}' is not supported")


def _starts(layer, key) -> list[int]:
    """Where a slice `x[:, top:, left:]` starts."""
    key = key if isinstance(key, tuple) else (key,)
    if Ellipsis in key:  # `x[..., :8]` takes channels
        place = key.index(Ellipsis)
        key = (*key[:place], *[slice(None)] * (5 - len(key)), *key[place + 1 :])
    starts = []
    for axis in (1, 2):
        part = key[axis] if axis < len(key) else slice(None)
        if not isinstance(part, slice) or part.step not in (None, 1) or (part.start or 0) < 0:
            raise KfcnError(f"{describe(layer)} takes {part} along axis {axis}: expected a slice")
        starts.append(part.start or 0)
    return starts
