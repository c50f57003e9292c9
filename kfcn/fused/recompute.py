"""Gradient checkpointing: maps that the gradient needs are computed again instead of kept.

A training step keeps every map of the net until the gradient has passed it. Here the net's calls
are cut into segments, the maps between segments are kept, and those inside are computed a second
time when the gradient arrives (T. Chen et al., "Training Deep Nets with Sublinear Memory Cost",
arXiv 1604.06174). The values are those of a step without it.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfcn.graph import Call, calls, run_call


def replay_in_segments(
    model: keras.Model,
    images: tf.Tensor,
    instead: Mapping[keras.Operation, Callable],
    again: Mapping[keras.Operation, Callable],
) -> tf.Tensor:
    """What `kfcn.graph.replay` gives in training, with a gradient that keeps fewer maps.

    Args:
        model: functional, of one input and one output.
        images: what the input stands for.
        instead: functions to call in the place of operations, as in `replay`.
        again: the same for the second time, when nothing may be counted twice.
    """
    values = {id(model.inputs[0]): images}
    for segment in segments(model):
        if segment.kept:
            _run(segment.calls, values, instead)
        else:
            _recomputed(segment, values, instead, again)
    return values[id(model.outputs[0])]


class Segment:
    """Consecutive calls of a net.

    Attributes:
        calls: in order.
        kept: whether what they give is kept; otherwise it is computed again.
        outputs: symbolic tensors that later calls need.
    """

    def __init__(self, calls: Sequence[Call], kept: bool, outputs: Sequence[keras.KerasTensor]):
        self.calls, self.kept, self.outputs = calls, kept, outputs


def segments(model: keras.Model) -> list[Segment]:
    """Cuts the calls of a net where the least memory is needed.

    That is the sum of the maps between segments and of those inside the largest one. Maps are as
    large as their channels times the square of their resolution, which follows from the strides.
    """
    order = list(calls(model))
    last_use = {id(model.outputs[0]): len(order)}
    for index, call in enumerate(order):
        last_use |= {id(tensor): max(index, last_use.get(id(tensor), 0)) for tensor in _given(call)}
    sizes = _sizes(model, order)
    kept = [_is_kept(call.operation) for call in order]
    made = [sum(sizes[id(x)] for x in call.outputs) for call in order]
    between = []  # size of the maps that lie between call i and the next
    for index in range(len(order)):
        open_ = [x for call in order[: index + 1] for x in call.outputs]
        between.append(sum(sizes[id(x)] for x in open_ if last_use.get(id(x), -1) > index))
    return [
        Segment(
            order[start:end],
            all(kept[start:end]),
            [
                x
                for call in order[start:end]
                for x in call.outputs
                if last_use.get(id(x), -1) >= end
            ],
        )
        for start, end in itertools.pairwise(_cuts(made, between, kept))
    ]


def _cuts(made, between, kept):
    """Where segments begin and end: the least of what is kept and of the largest segment."""
    total = np.concatenate([[0.0], np.cumsum(made)])
    count, best = len(made), (np.inf, [0, len(made)])
    for bound in np.geomspace(max(max(made), 1e-9), max(total[-1], 1e-9), 24):
        cost, before = [0.0], [0]
        for end in range(1, count + 1):
            # What is kept lies in segments of its own.
            candidates = []
            for start in range(end - 1, -1, -1):
                if kept[start] != kept[end - 1]:
                    break
                if total[end] - total[start] > bound * 1.0001 and start < end - 1:
                    break
                candidates.append((cost[start] + between[end - 1], start))
            least, start = min(candidates)
            cost.append(least)
            before.append(start)
        if cost[-1] + bound < best[0]:
            ends = [count]
            while ends[-1]:
                ends.append(before[ends[-1]])
            best = (cost[-1] + bound, ends[::-1])
    return best[1]


def _is_kept(operation):
    """Whether an operation runs once: what draws numbers, or has a gradient that keeps little."""
    from kfcn.crf import DenseCRF

    return hasattr(operation, "seed_generator") or isinstance(operation, DenseCRF)


def _given(call):
    flat = keras.tree.flatten((call.args, call.kwargs))
    return [leaf for leaf in flat if isinstance(leaf, keras.KerasTensor)]


def _sizes(model, order):
    """The size of each map by its symbolic tensor, relative to one channel of the image."""
    resolution, sizes = {id(model.inputs[0]): 1.0}, {}
    for call in order:
        now = max((resolution.get(id(x), 0.0) for x in _given(call)), default=0.0)
        operation = call.operation
        stride = getattr(operation, "strides", (1,))
        stride = stride[0] if isinstance(stride, tuple) else stride
        if isinstance(operation, keras.layers.UpSampling2D):
            now *= operation.size[0]
        elif isinstance(operation, keras.layers.Conv2DTranspose):
            now *= stride
        else:
            now /= stride
        for x in call.outputs:
            is_map = len(x.shape) == 4
            resolution[id(x)] = now if is_map else 0.0
            sizes[id(x)] = now * now * x.shape[-1] if is_map else 0.0
    return sizes


def _run(order, values, instead):
    for call in order:
        values.update(run_call(call, values, instead, training=True))


def _recomputed(segment, values, instead, again):
    """Runs a segment; its gradient runs it once more."""
    inside = {id(x) for call in segment.calls for x in call.outputs}
    given = [x for call in segment.calls for x in _given(call) if id(x) not in inside]
    given = list({id(x): x for x in given}.values())
    maps = [x for x in given if _is_float(values[id(x)])]
    outputs = segment.outputs

    def run(tensors, functions):
        known = {id(x): values[id(x)] for x in given}
        known |= {id(x): tensor for x, tensor in zip(maps, tensors, strict=True)}
        _run(segment.calls, known, functions)
        return known

    # What is counted, such as the rows of a map, has no gradient: it passes by.
    counted: dict[int, Any] = {}
    learned: list[keras.KerasTensor] = []

    @tf.custom_gradient
    def compute(*tensors):
        known = run(tensors, instead)
        for x in outputs:
            if _is_float(known[id(x)]):
                learned.append(x)
            else:
                counted[id(x)] = known[id(x)]

        def gradient(*above, variables=None):
            variables = list(variables or ())
            with tf.control_dependencies(above):  # not before the gradient has come this far
                copies = [tf.identity(tensor) for tensor in tensors]
                with tf.GradientTape() as tape:
                    tape.watch(copies)
                    known = run(copies, again)
                    results = [known[id(x)] for x in learned]
            sources = [*copies, *variables]
            zero = tf.UnconnectedGradients.ZERO
            found: Any = tape.gradient(results, sources, list(above), zero)
            count = len(copies)
            return (found[:count], found[count:]) if variables else found

        return [known[id(x)] for x in learned], gradient

    results = compute(*(values[id(x)] for x in maps))
    values.update(counted)
    values.update((id(x), result) for x, result in zip(learned, results, strict=True))


def _is_float(tensor):
    return isinstance(tensor, tf.Tensor) and tensor.dtype.is_floating
