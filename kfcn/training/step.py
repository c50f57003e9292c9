"""One training step on the global batch, the same numbers over however many replicas."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kfcn.collectives import sums_over_replicas
from kfcn.crf.gated_loss import gated_crf_loss
from kfcn.data.feed.unlabelled import PASTED, Unlabelled
from kfcn.fused.training import training_forward
from kfcn.labels import IGNORE
from kfcn.losses import pseudo_label_loss, pseudo_labels
from kfcn.metrics import count_cells
from kfcn.training.learner import Learner
from kfcn.training.replicas import Replicas

COUNTED = 4
"""Every so many pixels in both directions the training batches are counted. The argmax over all
pixels costs a tenth of a step; the metric of the training batches is to be looked at only."""

_HALF = 4096
"""Counts travel among the float32 sums of a step as two digits of this base: exact up to 4096
replicas and 6.9e10 pixels."""


class Done(NamedTuple):
    """What a step gives, the same on every worker.

    Attributes:
        loss: of the global batch, as the loss defines it, with the gated CRF loss and that of the
            pictures without labels if there are any.
        weight: the sum of the weights of its labelled pixels.
        matrix: int64 `(C, C)`, the counted pixels by true class (row) and predicted class.
        stop: whether a worker was asked to stop.
        confident: share of the pixels without labels that the average has labelled; None where
            there are no such pictures.
    """

    loss: float
    weight: float
    matrix: np.ndarray
    stop: bool
    confident: float | None = None

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.loss))


class Step:
    """The compiled step. Where the loss is not finite it leaves the net as it was.

    Over several replicas it exchanges what batch normalisation and the loss need to know of the
    whole batch, and at its end, at once, all that is summed: gradients, figures and counts.

    Pictures without labels are learned as in FixMatch. The averaged net labels their weakly changed
    crops in inference mode; the net learns what that is sure of on the strongly changed ones. They
    are normalised by their own batch statistics, which leave nothing behind: odd colours are not
    what a validated net meets (J. Yuan et al., "A Simple Baseline for Semi-supervised Semantic
    Segmentation with Strong Data Augmentation", ICCV 2021, keep statistics of their own for them),
    and what the labelled pictures see of the net is what they see without the others.

    Args:
        learner: what is trained.
        replicas: of the run.
        element_spec: of the batches: images, labels, and `Unlabelled` where the learner has it.
    """

    def __init__(self, learner: Learner, replicas: Replicas, element_spec: Any):
        strategy = replicas.strategy
        model, optimizer = learner.model, learner.optimizer
        self._classes = learner.classes
        weights = model.trainable_variables
        # Batch statistics and seeds: a forward pass moves them.
        moved = model.non_trainable_variables
        forward = training_forward(model, replicas.total, learner.recompute)

        beside = _beside(learner, replicas) if learner.unlabelled else None

        def backward(images, labels, stop, unlabelled=None):
            confident = []
            with tf.GradientTape() as tape:
                logits = forward(images)
                share = learner.loss(labels, logits)
                if learner.gated_crf:
                    share += learner.gated_crf * gated_crf_loss(images, logits)
                if beside and unlabelled is not None:
                    more, *confident = beside(unlabelled)
                    share += more
                scaled = optimizer.scale_loss(share)
            gradients = tape.gradient(
                scaled, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            # A map that is not finite shows in its batch statistics, but not always in the loss:
            # fused with what precedes it, a ReLU makes zero of "not a number".
            share = tf.where(_finite(moved), share, np.nan)
            figures = tf.stack([share, learner.loss.weight(labels), stop, *confident])
            counted = count_cells(labels, logits, learner.classes, COUNTED)
            cells: Any = tf.reshape(counted, [learner.classes**2])
            digits = tf.cast(tf.stack([cells // _HALF, cells % _HALF]), tf.float32)
            *gradients, figures, digits = sums_over_replicas([*gradients, figures, digits])
            high, low = tf.unstack(tf.cast(digits, tf.int64))
            return gradients, figures, high * _HALF + low

        def apply(gradients):
            optimizer.apply(gradients, weights)

        @tf.function(input_signature=[element_spec, tf.TensorSpec((), tf.float32)])
        def step(batch, stop):
            before = [tf.identity(variable.value) for variable in moved]
            images, labels, *unlabelled = batch
            parts = (images, labels, stop, *unlabelled)
            gradients, figures, cells = strategy.run(backward, parts)
            figures = strategy.experimental_local_results(figures)[0]
            cells = strategy.experimental_local_results(cells)[0]
            if tf.math.is_finite(figures[0]):
                strategy.run(apply, (gradients,))
                if learner.average:
                    learner.average.update(strategy, optimizer.iterations)
            else:
                for variable, value in zip(moved, before, strict=True):
                    variable.assign(value)
            return figures, cells

        self._step = step

    def __call__(self, batch: Any, stop: bool = False) -> Done:
        """Trains on one batch.

        Args:
            batch: an element of the distributed data set.
            stop: tell all workers to stop.
        """
        figures, cells = self._step(batch, tf.constant(float(stop)))
        loss, weight, stops, *confident = figures.numpy().tolist()
        matrix = cells.numpy().reshape(self._classes, self._classes)
        return Done(loss, weight, matrix, stops > 0, *confident)


def _beside(learner: Learner, replicas: Replicas) -> Callable[[Unlabelled], tuple[Any, Any]]:
    """The loss of pictures without labels, and the share of their pixels that it is of."""
    assert learner.average is not None  # it labels them
    teacher = learner.average.inference()
    forward = training_forward(learner.model, replicas.total, learner.recompute, moving=False)

    def loss(batch):
        labels = mixed_labels(batch, pseudo_labels(teacher(batch.weak)))
        return pseudo_label_loss(labels, batch.source != IGNORE, forward(batch.strong))

    return loss


def mixed_labels(batch: Unlabelled, guessed: Any) -> tf.Tensor:
    """The labels of strongly changed crops: pasted like their pixels, `IGNORE` beyond a picture.

    Args:
        batch: of N crops and M in all.
        guessed: integers `(M, h, w)`, labels of the weakly changed ones.

    Returns:
        Integers `(N, h, w)`.
    """
    own = guessed[: tf.shape(batch.source)[0]]
    labels = tf.where(batch.source == PASTED, tf.gather(guessed, batch.partner), own)
    return tf.where(batch.source == IGNORE, tf.cast(IGNORE, labels.dtype), labels)


def _finite(variables) -> tf.Tensor:
    sums = [tf.reduce_sum(x) for x in map(tf.convert_to_tensor, variables) if x.dtype.is_floating]
    return tf.math.is_finite(tf.add_n(sums)) if sums else tf.constant(True)
