"""The scores of the classes, between the classifiers and the label: int8 need not hold all of them.

Only the largest score counts in the end. The ranges that hold all scores of a net are wide, from
classes that are out of the question to those that are beyond doubt, and their steps coarse: most
labels that int8 changes are lost here, between two classes that are close. So these tensors get
the range in which classes compete. A score below it cannot win any more, and where one lies above
it no other does; both may be clipped.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
        self.scores = [each for each in scores(content) if each.decides]
        tensors = {name for each in self.scores for name in (each.tensors[-1], *each.later)}
        # Smallest largest, largest second largest, largest difference.
        self._seen = dict.fromkeys(sorted(tensors), (np.inf, -np.inf, 0.0))

    def see(self, values: Callable[[str], np.ndarray]) -> None:
        """One image."""
        for name, (first, second, spread) in self._seen.items():
            seen = values(name)
            top = np.partition(seen, (-2, -1), axis=-1)[..., -2:]
            self._seen[name] = (
                min(first, float(top[..., 1].min())),
                max(second, float(top[..., 0].max())),
                max(spread, float((top[..., 1] - seen.min(-1)).max())),
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
        for each in self.scores:
            room = sum(self._seen[added][2] for added in each.later)
            low, high = ranges[each.tensors[-1]]
            first, second, _ = self._seen[each.tensors[-1]]
            cut = (
                max(low, widening * min(0.0, first - room)),
                min(high, widening * max(0.0, second + room)),
            )
            # Where one class leads everywhere next to nothing would be left of the scores.
            if cut[1] - cut[0] < SMALLEST * (high - low):
                continue
            changed |= dict.fromkeys(each.tensors, cut)
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
    if not competing.scores:
        return source
    judges = images[:: -(-len(images) // JUDGES)]
    run = runner(source.content)
    expected = [run(image) for image in judges]

    def equal(tried):
        labels = runner(quantize_int8(tried))
        return sum(np.count_nonzero(labels(x) == y) for x, y in zip(judges, expected, strict=True))

    ways = [replace(source, ranges=competing.narrowed(source.ranges, w)) for w in WIDENINGS]
    return max(ways, key=equal)


@dataclass(frozen=True)
class Scores:
    """Tensors of the same scores, between the classifiers and the label.

    Attributes:
        tensors: their names: the last was computed, those before it are shaped of it.
        kind: the operator that computed it.
        later: what is added on the way to the label.
        decides: whether the label is that of the largest of the sums; not where a transposed
            convolution follows, or another operator reads them too.
    """

    tensors: tuple[str, ...]
    kind: str
    later: tuple[str, ...]
    decides: bool


def scores(content: bytes) -> list[Scores]:
    """All scores of a `.tflite` file of labels, from the label backwards to the classifiers'."""
    by_output = {operator.output: operator for operator in operators(content)}
    readers = Counter(name for operator in by_output.values() for name in operator.inputs)
    found = []

    def walk(tensor, later=(), decides=True):
        tensors = []
        while (operator := by_output.get(tensor)) is not None:
            tensors.append(tensor)
            decides = decides and readers[tensor] == 1
            if operator.kind not in SHAPES or len(operator.inputs) != 1:
                break
            (tensor,) = operator.inputs
        else:
            return
        found.append(Scores(tuple(tensors), operator.kind, later, decides))
        if operator.kind == "ADD" and len(operator.inputs) == 2:
            one, other = operator.inputs
            walk(one, (*later, other), decides)
            walk(other, (*later, one), decides)
        elif operator.kind in ("ADD", "TRANSPOSE_CONV"):
            walk(operator.inputs[0], later, decides=False)

    for operator in by_output.values():
        if operator.kind == "ARG_MAX":
            walk(operator.inputs[0])
    return found


def summing(content: bytes) -> list[str]:
    """Output tensors of the operators between the classifiers and the label, the label's not."""
    found = []
    for each in scores(content):
        *shaped, computed = each.tensors
        found += shaped
        if each.kind in ("ADD", "TRANSPOSE_CONV"):
            found.append(computed)
    return list(dict.fromkeys(found))
