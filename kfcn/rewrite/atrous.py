"""Strides removed, later filters dilated: the same weights on a denser grid.

The algorithme à trous as in section 3.2 of the FCN paper (arXiv 1411.4038) and Chen et al.,
"Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs" (arXiv
1412.7062). Once a stride s is removed, a map holds the cells of all s x s phases of the coarse
map, interleaved; every later window must step over the other phases: its dilation is multiplied
by the rate r, the product of the strides removed before it.

Padding is the delicate part. A 3x3 'same' convolution of stride 2 on an even size is padded (0, 1),
so its cells are centred at 2i + 1; the 'same' padding of the dilated one would centre them at 2i:
the grid moves by a cell, in some branches of a net and not in others. So the coarse net's own
padding is written out, times r.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import layers

from kfcn.errors import KfcnError, UsageError
from kfcn.graph import is_stock
from kfcn.rewrite import geometry
from kfcn.rewrite.pooling import DilatedPooling2D
from kfcn.rewrite.walker import Rewriter, as_functional, describe, reference_specs


@dataclass(frozen=True)
class _Grid:
    """The cells of a new map: `stride` pixels apart; `rate` of them where the old net has one.

    Pairs are `(y, x)`, in cells: `drift` is how far the first cell's centre has moved into the
    image since the first stride was removed, `moved` how far the cells were moved back.
    """

    stride: int = 1
    rate: int = 1
    drift: tuple[float, float] = (0.0, 0.0)
    moved: tuple[int, int] = (0, 0)


class _Atrous(Rewriter):
    """States: a `_Grid` for maps, None for what has no grid."""

    def __init__(self, model, output_stride, centered):
        super().__init__(model)
        self.output_stride = output_stride
        self.centered = centered
        self.strides = {1}  # that the given model passes through, for the error message

    def visit(self, layer, args, kwargs, specs):
        facts = self.facts(args, kwargs)
        grids = [fact.state for fact in facts if fact.state is not None]
        for one, other in itertools.pairwise(grids):
            if (other.stride, other.rate) != (one.stride, one.rate):
                raise KfcnError(f"{describe(layer)} joins branches of different strides")
            if other.moved != one.moved:
                raise KfcnError(
                    f"{describe(layer)} joins branches that centered=True moves by "
                    f"{one.moved} and {other.moved} cells; centered=False keeps them together"
                )
        grid = grids[0] if grids else None
        spec = facts[0].spec

        window = geometry.window(layer)
        if grid and window:
            return self._slide(layer, window, args[0], grid, spec.shape)
        edges = geometry.edges(layer)
        if grid and edges:
            entry = "padding" if isinstance(layer, layers.ZeroPadding2D) else "cropping"
            amounts: Any = [[abs(cells) * grid.rate for cells in pair] for pair in edges]
            # Counted before the first removed stride too: the padding in front of it is its own.
            drift = tuple(
                cells - pair[0] * grid.rate for cells, pair in zip(grid.drift, edges, strict=True)
            )
            return self.copy(layer, **{entry: amounts})(*args), replace(grid, drift=drift)
        if grid is None or grid.rate == 1:
            state = self._passed(layer, grid, spec, keras.tree.flatten(specs)[0])
            return self.copy(layer)(*args, **kwargs), state
        if geometry.is_pointwise(layer):
            if any(fact.state is None for fact in facts):
                raise KfcnError(
                    f"{describe(layer)} joins a map with something that is pooled over the whole "
                    "image"
                )
            return self.copy(layer)(*args, **kwargs), grid
        raise KfcnError(self._refusal(layer))

    def _slide(self, layer, window, x, grid, shape):
        """A convolution or pooling, as it is or at stride 1 with holes."""
        if window.stride[0] != window.stride[1]:
            raise KfcnError(f"{describe(layer)} has unequal strides {window.stride}")
        stride, rate = window.stride[0], grid.rate
        self.strides.add(grid.stride * rate * stride)
        if rate == 1 and grid.stride * stride <= self.output_stride:
            return self.copy(layer)(x), _Grid(grid.stride * stride)

        if not is_stock(layer, *geometry.CONVOLUTIONS, *geometry.POOLINGS):
            raise KfcnError(
                f"{describe(layer)} is a layer of your own: expected those of Keras, for what it "
                "does with a dilation is not known"
            )
        pads, drift, moved = [], [], []
        for axis in (0, 1):
            before, after = window.pads(axis, shape[axis + 1])
            beyond = (shape[axis + 1] + before + after - window.reach(axis)) % stride
            # The removed stride dropped the last `beyond` starts; a full phase needs stride - 1.
            before, after = before * rate, (after + stride - 1 - beyond) * rate
            cells = grid.drift[axis] + (window.reach(axis) - 1) * rate / 2 - before
            # Padding at the start in the place of padding at the end: the same cells, further on.
            back = min(max(int(cells), 0), after) if self.centered else 0
            pads.append((before + back, after - back))
            drift.append(cells - back)
            moved.append(grid.moved[axis] + back)
        new_grid = _Grid(grid.stride, rate * stride, tuple(drift), tuple(moved))
        dilation = tuple(step * rate for step in window.dilation)
        if isinstance(layer, geometry.POOLINGS):
            mode = "max" if isinstance(layer, layers.MaxPooling2D) else "average"
            pool = self.copy(
                layer,
                DilatedPooling2D,
                pool_size=window.kernel,
                dilation_rate=dilation,
                mode=mode,
                pads=tuple(pads),
            )
            return pool(x), new_grid
        half = [(size - 1) * step / 2 for size, step in zip(window.kernel, dilation, strict=True)]
        if all(pair == (need, need) for pair, need in zip(pads, half, strict=True)):
            padding = "same"
        else:
            padding = "valid"
            if any(map(any, pads)):
                x = layers.ZeroPadding2D(pads, name=self.new_name(f"{layer.name}_pad"))(x)
        changes = {"strides": (1, 1), "dilation_rate": dilation, "padding": padding}
        return self.copy(layer, **changes)(x), new_grid

    def _passed(self, layer, grid, before, after):
        """The state behind a layer that is copied as it is."""
        if grid is None or not geometry.is_map(after):
            return None
        if after.shape[1:3] == before.shape[1:3] or geometry.edges(layer):
            return grid
        if isinstance(layer, geometry.GLOBAL_POOLINGS):
            return None
        raise KfcnError(f"{describe(layer)} changes the size of its map in a way not known here")

    def _refusal(self, layer) -> str:
        if isinstance(layer, (*geometry.GLOBAL_POOLINGS, layers.Flatten)):
            return (
                f"{describe(layer)} pools over the whole image behind a removed stride. In a "
                "squeeze-and-excite block its mean would run over all phases of the dense map "
                "instead of one, so the result would be another net; at a classifier's end: "
                "convolutionalize it first"
            )
        return f"{describe(layer)} is not known to work on a grid with holes"


def to_atrous(
    model: keras.Model,
    output_stride: int,
    size: tuple[int, int] | None = None,
    centered: bool = False,
) -> keras.Model:
    """The model with strides removed and later filters dilated, on the same weights.

    The dense map's cell `(y, x)` is the given model's cell on the image moved by the phase: with
    f = the model's stride / `output_stride`, cell `(y // f, x // f)` of the image cropped by
    `output_stride * (y % f, x % f)` pixels at its top and left. For nets with 'valid' padding that
    holds everywhere, for padded nets in the interior (a shifted image has its zeros elsewhere).
    The map has f cells for each cell of the model's: where a fixed size is none that the model's
    stride divides, the last of them lie beyond the cropped image's map, and see zeros there.

    Args:
        model: a functional or Sequential model of maps; it is not changed.
        output_stride: pixels from one cell of the densest output to the next; a stride that the
            model passes through (for most nets 1, 2, 4, 8, 16 or 32).
        size: `(height, width)` at which paddings are read off a model that leaves its input size
            open; the default is a size that all usual strides divide. Feed sizes that the model's
            own stride divides: 'same' padding is another one elsewhere.
        centered: move the dense cells by whole cells, so that the grid lies where the model has it
            at `output_stride`. Padding at the end only, as MobileNetV2 and 'same' layers have it,
            drives the centre of cell 0 into the image with each stride (31 pixels at stride 32);
            a dense map keeps that, and its first cells would be missing. For a net that is to
            be trained and enlarged to the image; a cell `(y, x)` is then that of
            `(y - moved, x - moved)` above.

    Returns:
        A functional model with the given one's input shapes, layer names, weights (copied) and
        trainable flags; not compiled. Strided convolutions gain a `<name>_pad` layer where Keras
        has no padding of that form, poolings become `DilatedPooling2D`.

    Raises:
        UsageError: if the model never passes through `output_stride`.
        KfcnError: if a layer cannot be rewritten, by name: squeeze-and-excite and other pooling
            over the whole image, transposed convolutions behind a removed stride, unknown layers,
            branches that `centered` would move apart.
    """
    graph = as_functional(model)
    rewriter = _Atrous(graph, output_stride, centered)
    inputs = []
    for old, spec in zip(graph.inputs, reference_specs(graph, size), strict=True):
        tensor = keras.Input(batch_shape=old.shape, dtype=old.dtype, name=old.name)
        rewriter.know(tensor, spec, _Grid() if geometry.is_map(spec) else None)
        inputs.append(tensor)
    new = rewriter.rewrite(graph, inputs)
    if output_stride not in rewriter.strides:
        passed = ", ".join(str(stride) for stride in sorted(rewriter.strides))
        raise UsageError(
            f"output_stride must be a stride that model '{graph.name}' passes through ({passed}), "
            f"received {output_stride}"
        )
    return new
