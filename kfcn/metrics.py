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

import keras
import numpy as np
from keras import ops

from kfcn.data.dataset import IGNORE

NAMES = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")


def confusion_matrix(labels, predictions, classes: int, ignore: int = IGNORE) -> np.ndarray:
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
    highest, lowest = np.where(valid, labels, -1), np.where(valid, labels, classes)
    for axis in (0, 1):
        highest = _sliding(np.maximum, highest, width, axis)
        lowest = _sliding(np.minimum, lowest, width, axis)
    return valid & (highest != lowest)


def _sliding(extreme, values: np.ndarray, width: int, axis: int) -> np.ndarray:
    """`extreme` over a window of `2 width + 1` along an axis, cut off at the image's border."""
    values = np.moveaxis(values, axis, 0)
    result = values.copy()
    for shift in range(1, width + 1):
        result[shift:] = extreme(result[shift:], values[:-shift])
        result[:-shift] = extreme(result[:-shift], values[shift:])
    return np.moveaxis(result, 0, axis)


class MeanIoU(keras.metrics.Metric):
    """Mean IoU of the training batches of an epoch, for `fit`; sums over replicas by itself.

    Validation does not use it: `kfcn.evaluate` counts every pixel.

    Args:
        classes: C.
        step: count every `step`-th pixel in both directions. The argmax over all pixels of a
            batch costs a tenth of a training step; with 4 it costs nothing that can be
            measured, and the metric of the training batches is for the progress bar only.
        ignore: label whose pixels are not counted.
    """

    def __init__(
        self, classes: int, step: int = 1, ignore: int = IGNORE, name="mean_iou", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        self.classes, self.step, self.ignore = classes, step, ignore
        # int64: a float32 count stops growing at 16.7 million pixels.
        self.matrix = self.add_variable(
            (classes * classes,), initializer="zeros", dtype="int64", name="matrix"
        )

    def update_state(self, labels, logits, sample_weight=None):
        labels = labels[:, :: self.step, :: self.step]
        predictions = ops.argmax(logits[:, :: self.step, :: self.step], axis=-1)
        labels, predictions = ops.cast(labels, "int32"), ops.cast(predictions, "int32")
        # What is ignored goes to one bin more, which is then dropped.
        cells = ops.where(
            ops.equal(labels, self.ignore),
            self.classes * self.classes,
            labels * self.classes + predictions,
        )
        counts = ops.bincount(ops.reshape(cells, [-1]), minlength=self.classes**2 + 1)
        self.matrix.assign_add(ops.cast(counts[: self.classes**2], "int64"))

    def result(self):
        matrix = ops.reshape(ops.cast(self.matrix, "float32"), (self.classes, self.classes))
        right = ops.diagonal(matrix)
        union = ops.sum(matrix, 0) + ops.sum(matrix, 1) - right
        present = ops.cast(union > 0, "float32")
        iou = right / ops.maximum(union, 1.0)
        return ops.sum(iou) / ops.maximum(ops.sum(present), 1.0)
