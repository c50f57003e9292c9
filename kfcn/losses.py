"""The losses: cross entropy and soft IoU over the valid pixels of the global batch."""

import keras
from keras import ops

from kfcn.labels import IGNORE

TINY = 1.2e-38
"""Just above the smallest normal float32, for the logarithm."""


class PixelCrossEntropy(keras.losses.Loss):
    """Cross entropy averaged over the pixels that have a label, whoever computes them.

    The mean is over the valid pixels of the *global* batch. Keras' own loss with `ignore_class`
    takes one mean for each replica and then their mean, so that under `tf.distribute` a pixel
    counts for more where more of its neighbours are ignored.

    Args:
        class_weights: C weights or None. With weights the mean is the weighted one, sum(w*l)/sum(w)
            with w the weight of the pixel's class.
        ignore: label that takes no part.

    Call with labels `(B, H, W)` integers 0..C-1 or `ignore`, logits `(B, H, W, C)`; returns
    terms `(B, H, W)` whose *sum* is the mean. Nothing valid in the batch: 0, without NaN.
    """

    def __init__(self, class_weights=None, ignore: int = IGNORE, name: str = "cross_entropy"):
        # "sum": with any mean Keras would divide by the number of replicas as well.
        super().__init__(reduction="sum", name=name)
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.ignore = ignore

    def call(self, labels, logits):
        terms, weight = pixel_terms(labels, logits, self.ignore, self.class_weights)
        return terms / ops.maximum(over_replicas(ops.sum(weight)), 1e-12)

    def get_config(self):
        return {"class_weights": self.class_weights, "ignore": self.ignore, "name": self.name}


def pixel_terms(labels, logits, ignore: int = IGNORE, class_weights=None):
    """The weighted negative log likelihood of each pixel, and its weight.

    Returns:
        `(terms, weights)`, both float32 `(B, H, W)`, zero where the label is `ignore`.
    """
    valid, labels = _valid(labels, ignore)
    logits = ops.cast(logits, "float32")
    terms = _negative_log_likelihood(labels, logits)
    weights = ops.cast(valid, "float32")
    if class_weights is not None:
        weights *= ops.take(ops.convert_to_tensor(class_weights, "float32"), labels, axis=0)
    return terms * weights, weights


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
            upstream = (args[0] if upstream is None else upstream)[..., None]
            return share * upstream - ops.one_hot(labels, logits.shape[-1]) * upstream

        return -ops.log(ops.maximum(chosen, TINY)), gradient

    return likelihood(logits)


def soft_iou_loss(labels, logits, ignore: int = IGNORE):
    """One minus the mean IoU of the batch, with probabilities in the place of predictions.

    M. A. Rahman and Y. Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image
    Segmentation" (2016), section 3: for class c, with p the softmax and t the truth of the labelled
    pixels, I = sum(p t), U = sum(p + t - p t). Over all pixels of the global batch at once, and the
    mean over the classes that it has: a class of few pixels counts as much as a large one.

    Args:
        labels: `(B, H, W)` integers 0..C-1 or `ignore`.
        logits: `(B, H, W, C)`.
        ignore: label that takes no part.

    Returns:
        A number in [0, 1], 0 where nothing is labelled. Over replicas each gives its share, so
        that values and gradients add up to those of one device.
    """
    own = _soft_areas(labels, logits, ignore)
    # Values of all replicas, gradients of this one's pixels.
    together = over_replicas(ops.stop_gradient(own))
    intersection, found, truth = ops.unstack(together + own - ops.stop_gradient(own), 3)
    here = ops.cast(truth > 0, "float32")
    iou = intersection / ops.maximum(found + truth - intersection, 1e-12)
    number = ops.sum(here)
    loss = ops.where(number > 0, 1 - ops.sum(iou * here) / ops.maximum(number, 1.0), 0.0)
    others = over_replicas(ops.ones(())) - 1
    return loss - ops.stop_gradient(loss) * others / (others + 1)


def _soft_areas(labels, logits, ignore):
    """Float32 `(3, C)`: pixels of intersection, prediction and truth of each class."""
    classes = logits.shape[-1]
    valid, labels = _valid(labels, ignore)
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
            by_intersection, by_found, _ = ops.unstack(args[0] if upstream is None else upstream, 3)
            # By a probability: b + a where it is that of the truth, with a and b by class. By the
            # logits: p times what that is above its mean under p.
            at_truth = chosen * ops.take(by_intersection, labels, axis=0)
            mean = ops.matmul(share, by_found[:, None])[..., 0] + at_truth
            rest = share * (by_found - mean[..., None]) * valid[..., None]
            return rest + ops.one_hot(labels, classes) * (at_truth * valid)[..., None]

        return ops.stack(rows), gradient

    return areas(ops.cast(logits, "float32"))


def _valid(labels, ignore):
    """Which pixels have a label, and int32 labels that are 0 where they have none."""
    labels = ops.cast(labels, "int32")  # Keras hands them over as float32
    valid = ops.not_equal(labels, ignore)
    return valid, ops.where(valid, labels, ops.zeros_like(labels))


def over_replicas(value):
    """The sum of `value` over the replicas of `tf.distribute`; `value` itself elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return value  # JAX computes the global batch as one
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
