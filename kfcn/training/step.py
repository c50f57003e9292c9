"""One training step on the global batch, the same numbers over however many replicas."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from keras import ops

from kfcn.fused.training import training_forward
from kfcn.losses import over_replicas, pixel_terms, soft_iou_loss
from kfcn.metrics import count_cells
from kfcn.training.average import Average
from kfcn.training.replicas import Replicas

COUNTED = 4
"""Every so many pixels in both directions the training batches are counted. The argmax over all
pixels costs a tenth of a step; the metric of the training batches is to be looked at only."""


class Done(NamedTuple):
    """What a step gives, the same on every worker.

    Attributes:
        loss: mean over the labelled pixels of the global batch, by class weight, with the soft
            IoU loss where there is one.
        weight: the sum of these pixels' weights.
        matrix: int64 `(C, C)`, the counted pixels by true class (row) and predicted class.
        stop: whether a worker was asked to stop.
    """

    loss: float
    weight: float
    matrix: np.ndarray
    stop: bool

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.loss))


class Step:
    """The compiled step. Where the loss is not finite it leaves the net as it was.

    Args:
        model: the net; its variables were made in the scope of the strategy.
        optimizer: built for the trainable variables.
        classes: C.
        class_weights: C weights of the loss, or None.
        replicas: of the run.
        element_spec: of the batches.
        average: of the weights, where the run keeps one.
        iou_loss: weight of the soft IoU loss beside the cross entropy.
    """

    def __init__(
        self,
        model,
        optimizer,
        classes,
        class_weights,
        replicas: Replicas,
        element_spec,
        average: Average | None = None,
        iou_loss: float = 0.0,
    ):
        strategy = replicas.strategy
        self._replicas, self._classes = replicas, classes
        kept = (
            model.non_trainable_variables
        )  # batch statistics and seeds: a forward pass moves them

        forward = training_forward(model, replicas.total)

        def backward(images, labels, stop):
            with tf.GradientTape() as tape:
                logits = forward(images)
                terms, weights = pixel_terms(labels, logits, class_weights=class_weights)
                weight = over_replicas(ops.sum(weights))
                part = ops.sum(terms) / ops.maximum(weight, 1e-12)
                if iou_loss:
                    part += iou_loss * soft_iou_loss(labels, logits)
                scaled = optimizer.scale_loss(part)
            gradients = tape.gradient(scaled, model.trainable_variables)
            # A map that is not finite shows in its batch statistics, but not always in the loss:
            # fused with what precedes it, a ReLU makes zero of "not a number".
            part = tf.where(_finite(kept), part, np.nan)
            figures = over_replicas(tf.stack([part, stop]))
            cells = over_replicas(count_cells(labels, logits, classes, COUNTED))
            return gradients, tf.concat([figures, [weight]], 0), cells

        def apply(gradients):
            optimizer.apply(gradients, model.trainable_variables)

        @tf.function(input_signature=[element_spec, tf.TensorSpec((), tf.float32)])
        def step(batch, stop):
            before = [tf.identity(variable.value) for variable in kept]
            gradients, figures, cells = strategy.run(backward, (*batch, stop))
            figures = strategy.experimental_local_results(figures)[0]
            cells = strategy.experimental_local_results(cells)[0]
            if tf.math.is_finite(figures[0]):
                strategy.run(apply, (gradients,))
                if average:
                    average.update(strategy, optimizer.iterations)
            else:
                for variable, value in zip(kept, before, strict=True):
                    variable.assign(value)
            return figures, cells

        self._step = step

    def __call__(self, batch, stop: bool = False) -> Done:
        """Trains on one batch.

        Args:
            batch: an element of the distributed data set.
            stop: tell all workers to stop.
        """
        figures, cells = self._step(batch, tf.constant(float(stop)))
        loss, stops, weight = figures.numpy().tolist()
        matrix = cells.numpy().reshape(self._classes, self._classes)
        return Done(loss, weight, matrix, stops > 0)


def _finite(variables) -> tf.Tensor:
    sums = [tf.reduce_sum(x) for x in map(tf.convert_to_tensor, variables) if x.dtype.is_floating]
    return tf.math.is_finite(tf.add_n(sums)) if sums else tf.constant(True)
