"""The four metrics of the paper, all from one confusion matrix.

Long et al. 2015, section 5: with n_ij pixels of class i predicted as j and t_i = sum_j n_ij,

    pixel accuracy            sum_i n_ii / sum_i t_i
    mean accuracy             (1/C) sum_i n_ii / t_i
    mean IoU                  (1/C) sum_i n_ii / (t_i + sum_j n_ji - n_ii)
    frequency-weighted IoU    (1/sum_k t_k) sum_i t_i IoU_i

A class that does not occur in the truth is left out of the mean accuracy; one that occurs neither
in the truth nor in the prediction is left out of the mean IoU. Predicting a class that is not
there does count, as an IoU of 0.
"""

from typing import Any

import cv2
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from kfcn.labels import IGNORE

NAMES = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")


def confusion_matrix(
    labels: ArrayLike, predictions: ArrayLike, classes: int, ignore: int = IGNORE
) -> np.ndarray:
    """Counts pixels by true class (row) and predicted class (column).

    Args:
        labels: integers of any shape, 0..C-1 or `ignore`.
        predictions: integers 0..C-1 of the same shape.
        classes: C.
        ignore: label whose pixels are not counted.

    Returns:
        int64 `(C, C)`.

    Raises:
        ValueError: shapes differ, or a value is no class.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise ValueError(f"labels have shape {labels.shape}, predictions {predictions.shape}")
    valid = labels != ignore
    labels = labels[valid].astype(np.int64)
    predictions = predictions[valid].astype(np.int64)
    for what, values in (("labels", labels), ("predictions", predictions)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise ValueError(
                f"{what}: expected 0..{classes - 1}, received {values.min()}..{values.max()}"
            )
    counts = np.bincount(labels * classes + predictions, minlength=classes * classes)
    return counts.reshape(classes, classes)


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """IoU of each class, float64 `(C,)`; NaN for a class in neither truth nor prediction."""
    matrix = np.asarray(matrix)
    right = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - right
    with np.errstate(invalid="ignore"):
        return right / np.where(union > 0, union, np.nan)


def scores(matrix: np.ndarray) -> dict[str, float]:
    """The four metrics of a confusion matrix `(C, C)`; all 0 for an empty one."""
    matrix = np.asarray(matrix)
    truth = matrix.sum(1)
    total = truth.sum()
    if not total:
        return dict.fromkeys(NAMES, 0.0)
    right = np.diag(matrix)
    iou = class_iou(matrix)
    present = truth > 0
    values = (
        right.sum() / total,
        (right[present] / truth[present]).mean(),
        np.nanmean(iou),
        (truth[present] * iou[present]).sum() / total,
    )
    return {name: float(value) for name, value in zip(NAMES, values, strict=True)}


def boundary_counts(
    labels: np.ndarray, predictions: np.ndarray, classes: int, width: int = 3, ignore: int = IGNORE
) -> np.ndarray:
    """Counts for the boundary IoU of each class (Cheng et al. 2021, arXiv 2103.16562).

    Of each class's region only the pixels within `width` of another class count, in the truth and
    in the prediction alike. Pixels whose truth is `ignore` belong to no region and make no
    boundary in either; nor does the border of the image.

    Args:
        labels: integers `(H, W)`, 0..C-1 or `ignore`.
        predictions: integers 0..C-1, `(H, W)`.
        classes: C.
        width: of the band in pixels, in the maximum norm.
        ignore: label whose pixels are not counted.

    Returns:
        int64 `(2, C)`: intersection and union; they sum over images.
    """
    valid = labels != ignore
    truth = _near_boundary(labels, valid, classes, width)
    found = _near_boundary(predictions, valid, classes, width)
    both = truth & found & (labels == predictions)
    in_truth, in_found, in_both = (
        np.bincount(which, minlength=classes)
        for which in (labels[truth], predictions[found], labels[both])
    )
    return np.stack([in_both, in_truth + in_found - in_both]).astype(np.int64)


def boundary_iou(counts: np.ndarray) -> float:
    """Mean over the classes that have a boundary; 0 where none has. `counts` is `(2, C)`."""
    intersection, union = np.asarray(counts)
    present = union > 0
    return float((intersection[present] / union[present]).mean()) if present.any() else 0.0


def _near_boundary(labels, valid, classes: int, width: int) -> np.ndarray:
    """Valid pixels whose window of `2 width + 1` holds another class, bool `(H, W)`."""
    labels = labels.astype(np.int16)
    # Beyond the image's border OpenCV has nothing that is larger or smaller: no class either.
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    highest = cv2.dilate(np.where(valid, labels, np.int16(-1)), window)
    lowest = cv2.erode(np.where(valid, labels, np.int16(classes)), window)
    return valid & (highest != lowest)


def count_cells(labels: Any, logits: Any, classes: int, step: int = 1, ignore: int = IGNORE) -> Any:
    """The confusion matrix of a batch, inside of a compiled step.

    Args:
        labels: integers `(B, H, W)`, 0..C-1 or `ignore`.
        logits: `(B, H, W, C)`.
        classes: C.
        step: count every `step`-th pixel in both directions.
        ignore: label whose pixels are not counted.

    Returns:
        int64 `(C*C,)`, row after row of the matrix (row: true class).
    """
    labels = ops.cast(labels[:, ::step, ::step], "int32")
    # As `logits[:, ::step, ::step]`, which took 8 ms for a batch of four; this takes 0.2.
    logits = ops.max_pool(logits, 1, strides=step, padding="valid")
    predictions = ops.cast(ops.argmax(logits, axis=-1), "int32")
    # What is ignored goes to one bin more, which is then dropped.
    cells = ops.where(ops.equal(labels, ignore), classes * classes, labels * classes + predictions)
    counts = ops.bincount(ops.reshape(cells, [-1]), minlength=classes**2 + 1)
    return ops.cast(counts[: classes**2], "int64")
