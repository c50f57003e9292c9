"""Which few layers to keep in float32 so that an int8 net labels as the float one does.

A fixed list ("keep the head in float") gains next to nothing on a net whose error comes from one
layer near the input. Here each operation is kept in float on its own, and the sums of the scores
together (`scores.summing`: one alone would be rounded for the next), and the agreement on
held-back images is measured. Of those that looked best the one with the highest gain for its cost
in bytes and milliseconds is added, until the target is reached or whatever still gains would make
the file too slow; those that turn out not to be needed are taken out again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from kfcn_tools.convert.int8.graph import operators
from kfcn_tools.convert.int8.quantize import Quantizable, quantize_int8
from kfcn_tools.convert.int8.scores import summing
from kfcn_tools.litert import runner

# An image's worth of measurement noise does not earn a layer its place.
SMALLEST_GAIN = 1e-4
# Each operation alone is tried on this many images; all images are for those that looked best.
SCREENING_IMAGES = 8
SHORTLIST = 6
MOST_LAYERS = 12
TIMED_RUNS = 15
SLOWEST = 1.1
# What a layer costs at least, as a share of size and latency: below it the timing is noise.
LEAST_COST = 0.01
SCORES = "scores"


@dataclass(frozen=True)
class Kept:
    """An operation that stays in float32, or the sums of the scores.

    Attributes:
        layer: the Keras layer's name, or "scores".
        tensors: the names of the output tensors in the `.tflite` file.
        gain_alone: agreement gained on the screening images when only this one is in float.
        gain: agreement gained on all images when it was added to those before it.
        bytes: growth of the file.
        milliseconds: growth of the median latency with one thread.
    """

    layer: str
    tensors: tuple[str, ...]
    gain_alone: float
    gain: float
    bytes: int
    milliseconds: float


@dataclass(frozen=True)
class Search:
    """What the search found: the file and how it came about."""

    content: bytes
    kept: tuple[Kept, ...]
    base_agreement: float
    agreement: float
    worst_image: float
    target: float

    def as_dict(self) -> dict:
        """For `bundle.json`."""
        shown = asdict(self)
        del shown["content"]
        return shown


def search_layers(
    source: Quantizable,
    images: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    target: float,
    progress: Callable[[str], None] = lambda line: None,
    slowest: float = SLOWEST,
) -> Search:
    """Finds a small set of operations to keep in float32.

    Args:
        source: the float32 file and its statistics.
        images: uint8 (H, W, 3), held back from calibration.
        expected: uint8 (H, W), the Keras model's label maps of them.
        target: agreement (0..1) at which the search stops.
        progress: gets a line now and then.
        slowest: a layer that would take the file beyond this many times the latency of the plain
            int8 file is not kept.
    """
    candidates: dict[str, tuple[str, ...]] = {
        operator.output: (operator.output,)
        for operator in operators(source.content)
        if operator.kind not in ("CAST", "ARG_MAX")
    }
    if sums := summing(source.content):
        candidates[SCORES] = tuple(sums)

    def build(names):
        return quantize_int8(source, [tensor for name in names for tensor in candidates[name]])

    def agreement(names, every=1):
        return agreement_of(build(names), images[::every], expected[::every])[0]

    plain = build([])
    kept, gains, alone = [], {}, {}
    base = reached = agreement([])
    if reached < target:
        progress(f"int8 {base:.4%}; measuring {len(candidates)} operations one by one")
        every = max(1, len(images) // SCREENING_IMAGES)
        screened = agreement([], every)
        alone = {name: agreement([name], every) - screened for name in candidates}
    order = sorted(alone, key=alone.__getitem__, reverse=True)
    while reached < target and len(kept) < MOST_LAYERS:
        tried = {name: agreement([*kept, name]) - reached for name in order[:SHORTLIST]}
        # Candidates that just did well come first next time.
        order = sorted(tried, key=tried.__getitem__, reverse=True) + order[SHORTLIST:]
        useful = [name for name, gain in tried.items() if gain >= SMALLEST_GAIN]
        files = [build([*kept, name]) for name in useful]
        times = _milliseconds([plain, *files], images[0])
        worth = {
            name: tried[name] / _cost(len(file) / len(plain), latency / times[0])
            for name, file, latency in zip(useful, files, times[1:], strict=True)
            if latency <= slowest * times[0]
        }
        if not worth:
            break
        best = max(worth, key=worth.__getitem__)
        kept.append(best)
        order.remove(best)
        gains[best] = tried[best]
        reached += tried[best]
        progress(f"{_layer(best)} in float: {reached:.4%}")
    for name in list(kept):
        fewer = [k for k in kept if k != name]
        if reached >= target and agreement(fewer) >= target:
            kept = fewer
    result = build(kept)
    reached, worst = agreement_of(result, images, expected)
    costs = _milliseconds([plain, *(build([name]) for name in kept)], images[0])
    return Search(
        result,
        tuple(
            Kept(
                _layer(name),
                candidates[name],
                alone[name],
                gains[name],
                len(build([name])) - len(plain),
                cost - costs[0],
            )
            for name, cost in zip(kept, costs[1:], strict=True)
        ),
        base,
        reached,
        worst,
        target,
    )


def agreement_of(
    content: bytes, images: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> tuple[float, float]:
    """The share of pixels of all images, and of the worst one, that have the expected label."""
    run = runner(content)
    shares = [np.mean(run(x) == labels) for x, labels in zip(images, expected, strict=True)]
    return float(np.mean(shares)), float(np.min(shares))


def _cost(size: float, latency: float) -> float:
    """Of a file relative to the plain int8 one."""
    return LEAST_COST + max(0.0, size - 1) + max(0.0, latency - 1)


def _milliseconds(contents: Sequence[bytes], image: np.ndarray) -> list[float]:
    """Median latency of each file, one thread, measured in turn so that all share the noise."""
    runs = [runner(content) for content in contents]
    for run in runs:
        run(image)
    times = np.empty((TIMED_RUNS, len(runs)))
    for row in times:
        for i, run in enumerate(runs):
            start = time.perf_counter()
            run(image)
            row[i] = 1e3 * (time.perf_counter() - start)
    # Differences to the first within each round, then their median.
    first = np.median(times[:, 0])
    return [float(first + np.median(column - times[:, 0])) for column in times.T]


def _layer(tensor: str) -> str:
    """The Keras name in a tensor's: `model/block_1_expand_relu_1/Relu6;model/...`."""
    parts = tensor.split(";")[0].split("/")
    return parts[1] if len(parts) > 1 else parts[0]
