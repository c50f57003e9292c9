"""The steps of a net as they were read, made the few steps of a `Program`.

Nothing here needs more than NumPy. What stands in the steps as they were read and in no program is
batch normalisation:

    norm         for inference, over channels; option `epsilon`, weights `mean` and `variance`, and
                 `gamma` and `beta` where the layer has them, (C,)

and a `trim` of one axis (option `axes`). A `conv` or `depthwise` may come without a `bias`.
"""

from collections.abc import Sequence

import numpy as np

from kfcn.inference.runtime.program import Program, Step, UnsupportedError

_ACTIVATED = ("conv", "depthwise", "add", "affine")
_CONVOLUTIONS = ("conv", "depthwise")


def simplified(steps: Sequence[Step], last: int, classes: int, margin: int | None) -> Program:
    """The program of steps as they were read; norms are folded into the convolutions before them.

    Args:
        steps: in order, with the kinds above beside those of a program.
        last: the number of the value that is the logits.
        classes, margin: as in `Program`.

    Raises:
        UnsupportedError: a trim of rows or of columns alone.
    """
    folded, last = _joined(_trims_joined(steps), last, _with_norm)
    activated, last = _joined([_completed(step) for step in folded], last, _with_activation)
    found, number = _only_needed(activated, last)
    assert number == len(found)  # the last value is the logits
    if any(step.kind == "trim" and step.options for step in found):
        raise UnsupportedError("a trim of rows or of columns alone")
    return Program(_short_trims_marked(found), classes, margin)


def _trims_joined(steps):
    """Rows and columns of a trim in one step; they stand one behind the other."""
    found = []
    for step in steps:
        before = found[step.inputs[0] - 1] if step.kind == "trim" and step.inputs[0] else None
        if before is not None and before.kind == "trim" and before.inputs[1] == step.inputs[1]:
            step = step._replace(
                inputs=before.inputs,
                options={"axes": before.options["axes"] + step.options["axes"]},
            )
        found.append(step)
    return [
        step._replace(options={}) if step.options.get("axes") == [1, 2] else step for step in found
    ]


def _joined(steps, last, join):
    """Steps as part of the step before, where nothing else reads that one.

    Args:
        steps, last: as in `simplified`.
        join: of a step and the one before, what both are together, or None.
    """
    alone = _read_once(steps, last)
    found, stands_for = [], {0: 0}
    for number, step in enumerate(steps, start=1):
        source = step.inputs[0]
        if alone[source] and source:
            place = stands_for[source]
            both = join(step, found[place - 1])
            if both is not None:
                found[place - 1] = both
                stands_for[number] = place
                continue
        found.append(step._replace(inputs=tuple(stands_for[n] for n in step.inputs)))
        stands_for[number] = len(found)
    return found, stands_for[last]


def _with_norm(step, before):
    """A convolution with the batch normalisation behind it."""
    if step.kind != "norm" or before.kind not in _CONVOLUTIONS or "activation" in before.options:
        return None
    gain, shift = _gain_and_shift(step)
    kernel, bias = before.weights["kernel"], before.weights.get("bias", 0)
    # A depthwise kernel is (kh, kw, C, multiplier), its output channel C * multiplier.
    wide = gain.reshape(kernel.shape[2:] if before.kind == "depthwise" else -1)
    weights = {"kernel": kernel * wide.astype(np.float32), "bias": shift + bias * gain}
    return before._replace(weights=weights)


def _with_activation(step, before):
    """A step with the ReLU or ReLU6 behind it."""
    joins = step.kind == "activate" and step.options["function"] in ("relu", "relu6")
    if not joins or before.kind not in _ACTIVATED or "activation" in before.options:
        return None
    return before._replace(options=before.options | {"activation": step.options["function"]})


def _gain_and_shift(norm):
    """What batch normalisation is for inference, `x * gain + shift`: two float64 `(C,)`."""
    weights = {name: weight.astype(np.float64) for name, weight in norm.weights.items()}
    gain = weights.get("gamma", 1) / np.sqrt(weights["variance"] + norm.options["epsilon"])
    return gain, weights.get("beta", 0) - weights["mean"] * gain


def _completed(step):
    """A step as programs have it: no norm, a bias of each convolution, float32 weights."""
    kind, weights = step.kind, dict(step.weights)
    if kind == "norm":
        gain, shift = _gain_and_shift(step)
        kind, weights = "affine", {"scale": gain, "shift": shift}
    if kind in _CONVOLUTIONS and "bias" not in weights:
        shape = weights["kernel"].shape
        weights["bias"] = np.zeros(shape[3] if kind == "conv" else shape[2] * shape[3])
    weights = {name: np.ascontiguousarray(w, np.float32) for name, w in weights.items()}
    return Step(kind, step.inputs, {} if step.kind == "norm" else step.options, weights)


def _read_once(steps, last):
    """Of each value, whether one step alone reads it, and nobody outside."""
    readers = [0] * (len(steps) + 1)
    for step in steps:
        for number in step.inputs:
            readers[number] += 1
    readers[last] += 1
    return [count == 1 for count in readers]


def _only_needed(steps, last):
    """The steps that lead to value `last`, numbered anew."""
    needed = {last}
    for number in range(last, 0, -1):
        if number in needed:
            needed |= set(steps[number - 1].inputs)
    kept = [number for number in range(1, last + 1) if number in needed]
    new = {0: 0} | {number: index for index, number in enumerate(kept, start=1)}
    found = [
        steps[number - 1]._replace(inputs=tuple(new[n] for n in steps[number - 1].inputs))
        for number in kept
    ]
    return found, new[last]


def _short_trims_marked(steps):
    """Says of each trim whether its map may be too small: to repeat them is work."""
    program = Program(tuple(steps), 0, None)
    # All nets divide by 32 at most. The windows of rows and of columns may differ.
    sizes = [program.sizes(side, side) for side in range(128, 128 + 64)]
    found = []
    for step in steps:
        if step.kind == "trim":
            x, reference = step.inputs
            short = any(
                own < wanted
                for size in sizes
                for own, wanted in zip(size[x][:2], size[reference][:2], strict=True)
            )
            step = step._replace(options={"short": short})
        found.append(step)
    return tuple(found)
