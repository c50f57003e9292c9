"""Pixel agreement of two label maps, and mean IoU against the truth.

Agreement is the share of pixels whose label equals the Keras model's. Mean IoU alone can hide a
changed net: a quantised one can score higher while its labels differ. Counts are kept as pairs
`(equal, all)` of integers so that those of many images add up exactly.
"""

from collections.abc import Iterable

import numpy as np

BOUNDARY_RADIUS = 3
CONFIDENT_MARGIN = 1.0


def boundary_band(labels: np.ndarray, radius: int = BOUNDARY_RADIUS) -> np.ndarray:
    """Pixels that have a pixel of another class within `radius` (chessboard distance).

    Args:
        labels: uint8 (H, W).
        radius: in pixels.

    Returns:
        bool (H, W).
    """
    low = high = labels
    for axis in (0, 1):
        low = _running(np.minimum, low, axis, radius)
        high = _running(np.maximum, high, axis, radius)
    return low != high


def _running(extreme, array, axis, radius):
    out = array.copy()
    moved_out, moved_in = np.moveaxis(out, axis, 0), np.moveaxis(array, axis, 0)
    for shift in range(1, min(radius, len(moved_in) - 1) + 1):
        extreme(moved_out[shift:], moved_in[:-shift], out=moved_out[shift:])
        extreme(moved_out[:-shift], moved_in[shift:], out=moved_out[:-shift])
    return out


def count_agreement(
    labels: np.ndarray,
    expected: np.ndarray,
    margin: np.ndarray,
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Counts the pixels of one image whose label is the expected one.

    Args:
        labels: uint8 (H, W), the label map under test.
        expected: uint8 (H, W), the Keras model's.
        margin: float (H, W), the Keras model's highest logit less its second highest.
        num_classes: C.

    Returns:
        int64 arrays `[equal, all]` under `all`, `boundary`, `interior` and `confident`, and under
        `classes` a (C, 2) array by expected class.
    """
    equal = labels == expected
    near = boundary_band(expected)

    def pair(where):
        return np.array([np.count_nonzero(equal & where), np.count_nonzero(where)], np.int64)

    return {
        "all": pair(np.ones_like(equal)),
        "boundary": pair(near),
        "interior": pair(~near),
        "confident": pair(margin > CONFIDENT_MARGIN),
        "classes": np.stack(
            [
                np.bincount(expected[equal], minlength=num_classes),
                np.bincount(expected.ravel(), minlength=num_classes),
            ],
            axis=-1,
        ).astype(np.int64),
    }


def confidence_error(confidences: np.ndarray, logits: np.ndarray) -> float:
    """The largest difference of a probability from the softmax of logits, both (..., C).

    What is no number counts as 1, the most by which a probability can be wrong.
    """
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    errors = np.abs(confidences - powers / powers.sum(-1, keepdims=True))
    return float(np.nan_to_num(errors, nan=1, posinf=1).max())


def add_counts(counts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Adds the counts of several images."""
    counts = list(counts)
    return {key: np.sum([c[key] for c in counts], axis=0) for key in counts[0]}


def share(pair: np.ndarray) -> float | None:
    """The share of equal pixels of `[equal, all]`; None where there is no pixel."""
    equal, total = (int(n) for n in pair)
    return equal / total if total else None


def confusion(
    truth: np.ndarray, labels: np.ndarray, num_classes: int, ignore: int = 255
) -> np.ndarray:
    """Confusion matrix of one image: int64 (C, C + 1), rows are the truth.

    The last column counts labels that are no class, which a faulty runtime can give.

    Args:
        truth: uint8 (H, W); pixels of the ignore label are not counted.
        labels: uint8 (H, W).
        num_classes: C.
        ignore: the ignore label.
    """
    valid = truth != ignore
    shape = num_classes, num_classes + 1
    index = truth[valid].astype(np.int64) * shape[1] + np.minimum(labels[valid], num_classes)
    return np.bincount(index, minlength=shape[0] * shape[1]).reshape(shape)


def mean_iou(matrix: np.ndarray) -> float | None:
    """Mean over the classes of intersection over union, of a matrix as `confusion` gives it.

    A class that stands neither in the truth nor in the labels has no IoU and is left out; None
    where no class is left.
    """
    intersection = np.diag(matrix)
    union = matrix.sum(0)[: len(matrix)] + matrix.sum(1) - intersection
    present = union > 0
    return float(np.mean(intersection[present] / union[present])) if present.any() else None
