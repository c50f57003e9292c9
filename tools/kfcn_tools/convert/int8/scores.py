"""The scores of the classes, between the classifiers and the label: int8 need not hold all of them.

Only the largest score counts in the end. The ranges that hold all scores of a net are wide, from
classes that are out of the question to those that are beyond doubt, and their steps coarse: most
labels that int8 changes are lost here, between two classes that are close. So these tensors get
the range in which classes compete. A score below it cannot win any more, and where one lies above
it no other does; both may be clipped.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from kfcn_tools.convert.int8.graph import operators
from kfcn_tools.convert.int8.quantize import Quantizable, quantize_int8
from kfcn_tools.litert import runner

# Operators whose output has no values but those of its input, and mixtures of neighbours.
SHAPES = ("RESIZE_BILINEAR", "PAD", "STRIDED_SLICE")
# How much wider than the range in which classes compete; inf leaves the tensor its own.
WIDENINGS = (1.0, 2.0, np.inf)
# The narrowest range, by that of all values: twice as narrow as the narrowest that helped.
SMALLEST = 1 / 16
# Calibration images that choose among them.
JUDGES = 12


class CompetingScores:
    """An observer (`kfcn_tools.convert.int8.observe`) of the sums of scores of a file of labels.

    With t the scores of one tensor, and what is added to them later differing by up to D between
    two classes at one position: a class that lies D below the largest t cannot win, so that t may
    be clipped at the smallest largest t less D; and a class that lies D above all others has won,
    so that t may be clipped at the largest second largest t plus D. At no position of the images
    seen does that change a label. Where t is enlarged afterwards, the border between two classes
    lies where their values say, and clipped ones move it: by how much, `with_competing_scores`
    measures.

    Args:
        content: the float32 `.tflite` file. One that gives no labels has no such tensors.
    """

    def __init__(self, content: bytes):
        self._followers, self._later = _sums(content)
        self.tensors = sorted(self._later)
        tensors = {*self._later, *(name for names in self._later.values() for name in names)}
        # Smallest largest, largest second largest, largest difference.
        self._seen = dict.fromkeys(sorted(tensors), (np.inf, -np.inf, 0.0))

    def see(self, values: Callable[[str], np.ndarray]) -> None:
        """One image."""
        for name, (first, second, spread) in self._seen.items():
            scores = values(name)
            top = np.partition(scores, (-2, -1), axis=-1)[..., -2:]
            self._seen[name] = (
                min(first, float(top[..., 1].min())),
                max(second, float(top[..., 0].max())),
                max(spread, float((top[..., 1] - scores.min(-1)).max())),
            )

    def narrowed(
        self, ranges: dict[str, tuple[float, float]], widening: float = 1.0
    ) -> dict[str, tuple[float, float]]:
        """Ranges of tensors, those of the scores cut to where classes compete.

        Args:
            ranges: (low, high) by tensor name, as of `ranges.TensorRanges`.
            widening: both ends are cut this many times as far from zero, from 1.
        """
        if widening == np.inf:
            return ranges
        changed = dict(ranges)
        for name, later in self._later.items():
            room = sum(self._seen[added][2] for added in later)
            low, high = ranges[name]
            first, second, _ = self._seen[name]
            cut = (
                max(low, widening * min(0.0, first - room)),
                min(high, widening * max(0.0, second + room)),
            )
            # Where one class leads everywhere nothing would be left, and XNNPACK aborts on a step
            # of zero.
            if cut[1] - cut[0] < SMALLEST * (high - low):
                continue
            # A tensor that another is cut out of or enlarged from has the same values.
            changed |= dict.fromkeys((name, *self._followers[name]), cut)
        return changed


def with_competing_scores(
    source: Quantizable, competing: CompetingScores, images: Sequence[np.ndarray]
) -> Quantizable:
    """Narrows the ranges of the scores as far as int8 then labels most as the float file does.

    Args:
        source: the float32 file and the ranges of its tensors.
        competing: after it has seen the calibration images.
        images: uint8 (H, W, 3), the calibration images; some of them judge.
    """
    if not competing.tensors:
        return source
    judges = images[:: -(-len(images) // JUDGES)]
    run = runner(source.content)
    expected = [run(image) for image in judges]

    def equal(tried):
        labels = runner(quantize_int8(tried))
        return sum(np.count_nonzero(labels(x) == y) for x, y in zip(judges, expected, strict=True))

    ways = [replace(source, ranges=competing.narrowed(source.ranges, w)) for w in WIDENINGS]
    return max(ways, key=equal)


def _sums(content) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The tensors of scores that are summed up, from the label backwards.

    Returns:
        By the name of each what is only shaped of it, and what is added on the way to the label.
    """
    by_output = {operator.output: operator for operator in operators(content)}
    readers = [name for operator in by_output.values() for name in operator.inputs]
    followers, later = {}, {}

    def walk(tensor, added):
        shaped = []
        while readers.count(tensor) == 1 and tensor in by_output:
            operator = by_output[tensor]
            if operator.kind not in SHAPES or len(operator.inputs) != 1:
                followers[tensor], later[tensor] = shaped, added
                if operator.kind == "ADD" and len(operator.inputs) == 2:
                    one, other = operator.inputs
                    walk(one, [*added, other])
                    walk(other, [*added, one])
                return
            shaped.append(tensor)
            (tensor,) = operator.inputs

    for operator in by_output.values():
        if operator.kind == "ARG_MAX":
            walk(operator.inputs[0], [])
    return followers, later


def summing(content: bytes) -> list[str]:
    """Output tensors of the operators between the classifiers and the label, the label's not."""
    by_output = {operator.output: operator for operator in operators(content)}
    found = []

    def walk(tensor):
        operator = by_output.get(tensor)
        if operator and operator.kind in ("ADD", "TRANSPOSE_CONV", *SHAPES):
            found.append(tensor)
            for name in operator.inputs:
                walk(name)

    for operator in by_output.values():
        if operator.kind == "ARG_MAX":
            walk(operator.inputs[0])
    return list(dict.fromkeys(found))
