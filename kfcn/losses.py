"""The losses of a training run: cross entropy, soft IoU, and that of pseudo-labels."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from kfcn.collectives import sum_over_replicas
from kfcn.errors import UsageError
from kfcn.labels import IGNORE

TINY = 1.2e-38
"""Just above the smallest normal float32, for the logarithm."""
_SCOPE = "segmentation"
"""As `SegmentationLoss` is called: a profile tells its gradient by it from the net's."""
CONFIDENT = 0.95
"""Above this probability a class is a pseudo-label (FixMatch, Sohn et al. 2020; UniMatch)."""


@keras.saving.register_keras_serializable(package="kfcn")
class SegmentationLoss(keras.losses.Loss):
    """Cross entropy over the pixels that have a label, plus the weighted soft IoU loss.

    The mean is over the valid pixels of the *global* batch. Keras' own loss with `ignore_class`
    takes one mean for each replica and then their mean, so that under `tf.distribute` a pixel
    counts for more where more of its neighbours are ignored.

    Args:
        class_weights: C weights or None. With weights the mean is the weighted one, sum(w*l)/sum(w)
            with w the weight of the pixel's class.
        iou_weight: of the soft IoU loss (`soft_iou`); 0 for none.
        ignore: label that takes no part.

    Call with labels `(B, H, W)` integers 0..C-1 or `ignore`, logits `(B, H, W, C)`; returns a
    float32 number. Over the replicas of `tf.distribute` each gives its share: values and gradients
    add up to those of one device. Nothing valid in the batch: 0, without NaN.

    Raises:
        UsageError: class weights that are not one a class, or a `sample_weight` (which `fit` makes
            of its `class_weight`, too): it could not be in the mean over the batch.
    """

    def __init__(
        self,
        class_weights: Iterable[float] | None = None,
        iou_weight: float = 0.0,
        ignore: int = IGNORE,
        name: str = "segmentation",
    ):
        # "sum": with any mean Keras would divide by the number of replicas as well.
        super().__init__(reduction="sum", name=name)
        if isinstance(class_weights, Mapping):  # whose items would be its keys
            raise UsageError(
                f"expected class_weights as a list, in the order of the classes, received "
                f"{class_weights}"
            )
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.iou_weight = iou_weight
        self.ignore = ignore

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if sample_weight is not None:
            raise UsageError(
                "SegmentationLoss received a sample_weight, or the class_weight of fit: expected "
                "none; set class weights by SegmentationLoss(class_weights), and give pixels that "
                f"are not to count the label {self.ignore}"
            )
        return super().__call__(y_true, y_pred)

    def call(self, labels: Any, logits: Any) -> Any:
        given, classes = self.class_weights, logits.shape[-1]
        if given is not None and len(given) != classes:
            raise UsageError(f"expected {classes} class weights, received {len(given)}: {given}")
        valid, labels = _valid(labels, self.ignore)
        logits = ops.cast(logits, "float32")
        weights = self._weights(valid, labels)
        share = ops.sum(_negative_log_likelihood(labels, logits) * weights)
        weight = ops.sum(weights)
        if not self.iou_weight:
            return share / ops.maximum(sum_over_replicas(weight), 1e-12)
        own = _soft_areas(valid, labels, logits)
        mine = ops.concatenate([ops.stack([weight, ops.ones_like(weight)]), ops.reshape(own, [-1])])
        everyone = sum_over_replicas(ops.stop_gradient(mine))
        areas = ops.reshape(everyone[2:], [3, classes])
        # Values of all replicas, gradients of this one's pixels.
        areas = areas + own - ops.stop_gradient(own)
        iou = soft_iou(areas)
        # The value once in all, however many replicas there are.
        iou = iou - ops.stop_gradient(iou) * (1 - 1 / everyone[1])
        return share / ops.maximum(everyone[0], 1e-12) + self.iou_weight * iou

    def weight(self, labels: Any) -> Any:
        """The sum of the weights of the labelled pixels, by which their mean is taken.

        Args:
            labels: as for a call.
        """
        return ops.sum(self._weights(*_valid(labels, self.ignore)))

    def _weights(self, valid, labels):
        weights = ops.cast(valid, "float32")
        if self.class_weights is not None:
            by_class = ops.convert_to_tensor(self.class_weights, "float32")
            weights *= ops.take(by_class, labels, axis=0)
        return weights

    def get_config(self) -> dict[str, Any]:
        return {
            "class_weights": self.class_weights,
            "iou_weight": self.iou_weight,
            "ignore": self.ignore,
            "name": self.name,
        }


def _negative_log_likelihood(labels, logits):
    """-log softmax of the logits `(..., C)` at integer labels; one number for each pixel.

    By way of the softmax itself, whose operation is twice to two and a half times as fast on a CPU
    as `sparse_softmax_cross_entropy_with_logits`, a tenth of a MobileNetV2 step. The gradient,
    softmax - one_hot, is exact for any logits; the value stops at 87.3, where a probability has
    no float32 left.
    """

    @ops.custom_gradient
    def likelihood(logits):
        share = ops.softmax(logits)
        chosen = ops.take_along_axis(share, labels[..., None], axis=-1)[..., 0]

        def gradient(*args, upstream=None):  # by position in TensorFlow, by name elsewhere
            with keras.name_scope(_SCOPE):
                upstream = (args[0] if upstream is None else upstream)[..., None]
                return (share - ops.one_hot(labels, logits.shape[-1])) * upstream

        return -ops.log(ops.maximum(chosen, TINY)), gradient

    return likelihood(logits)


def pseudo_labels(logits: Any) -> Any:
    """What a net is sure of: the class whose probability is above `CONFIDENT`, else `IGNORE`.

    Args:
        logits: `(B, H, W, C)`.

    Returns:
        int32 `(B, H, W)`.
    """
    share = ops.softmax(ops.cast(logits, "float32"))
    sure = ops.max(share, axis=-1) > CONFIDENT
    found = ops.cast(ops.argmax(share, axis=-1), "int32")
    return ops.where(sure, found, ops.full_like(found, IGNORE))


def pseudo_label_loss(labels: Any, inside: Any, logits: Any) -> tuple[Any, Any]:
    """The cross entropy at the pseudo-labels, by all pixels of the pictures.

    By all and not by those with a label, as in FixMatch: what a few pixels say at the start, when
    the net is sure of little, weighs little. The mean is over the *global* batch; over replicas
    each gives its share, as `SegmentationLoss` does. Class weights take no part: they are there for
    classes that are rare in labels, not for guesses.

    Args:
        labels: integers `(B, H, W)`, 0..C-1 or `IGNORE`.
        inside: bool `(B, H, W)`: not padding.
        logits: `(B, H, W, C)`.

    Returns:
        Two float32 numbers: the loss, and the share of the pixels that have a label.
    """
    valid, labels = _valid(labels, IGNORE)
    valid = ops.cast(ops.logical_and(valid, inside), "float32")
    terms = _negative_log_likelihood(labels, ops.cast(logits, "float32")) * valid
    pixels = sum_over_replicas(ops.sum(ops.cast(inside, "float32")))
    pixels = ops.maximum(pixels, 1.0)
    return ops.sum(terms) / pixels, ops.sum(valid) / pixels


def soft_iou(areas: Any) -> Any:
    """One minus the mean IoU of a batch, with probabilities in the place of predictions.

    M. A. Rahman and Y. Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image
    Segmentation" (2016), section 3: for class c, with p the softmax and t the truth of the labelled
    pixels, I = sum(p t), U = sum(p + t - p t). Over all pixels of the batch at once, and the mean
    over the classes that it has: a class of few pixels counts as much as a large one.

    Args:
        areas: float32 `(3, C)`, the sums of p t, p and t over the pixels, by class.

    Returns:
        A number in [0, 1], 0 where nothing is labelled.
    """
    intersection, found, truth = ops.unstack(areas, 3)
    here = ops.cast(truth > 0, "float32")
    iou = intersection / ops.maximum(found + truth - intersection, 1e-12)
    number = ops.sum(here)
    return ops.where(number > 0, 1 - ops.sum(iou * here) / ops.maximum(number, 1.0), 0.0)


def _soft_areas(valid, labels, logits):
    """Float32 `(3, C)`: sums of p t, p and t (`soft_iou`) over the valid pixels."""
    classes = logits.shape[-1]
    valid = ops.cast(valid, "float32")

    # Spelled out it would walk over all probabilities a dozen times.
    @ops.custom_gradient
    def areas(logits):
        share = ops.softmax(logits)
        chosen = ops.take_along_axis(share, labels[..., None], axis=-1)[..., 0]
        flat = ops.reshape(labels, [-1])
        rows = [
            ops.segment_sum(ops.reshape(chosen * valid, [-1]), flat, classes),
            ops.matmul(ops.reshape(valid, [1, -1]), ops.reshape(share, [-1, classes]))[0],
            ops.segment_sum(ops.reshape(valid, [-1]), flat, classes),
        ]

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            # By a probability: b + a where it is that of the truth, with a and b by class. By the
            # logits: p times what that is above its mean under p.
            with keras.name_scope(_SCOPE):
                by_intersection, by_found, _ = ops.unstack(upstream, 3)
                at_truth = chosen * ops.take(by_intersection, labels, axis=0)
                mean = ops.matmul(share, by_found[:, None])[..., 0] + at_truth
                rest = share * (by_found - mean[..., None]) * valid[..., None]
                return rest + ops.one_hot(labels, classes) * (at_truth * valid)[..., None]

        return ops.stack(rows), gradient

    return areas(logits)


def _valid(labels, ignore):
    """Which pixels have a label, and int32 labels that are 0 where they have none."""
    labels = ops.cast(labels, "int32")  # Keras hands them over as float32
    valid = ops.not_equal(labels, ignore)
    return valid, ops.where(valid, labels, ops.zeros_like(labels))
