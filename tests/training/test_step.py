"""A step moves the weights against the gradient of the very loss that it was given."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfcn.losses import SegmentationLoss
from kfcn.training.learner import Learner
from kfcn.training.optimizers import CaffeSGD
from kfcn.training.replicas import Replicas
from kfcn.training.step import COUNTED, Step

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 5, 6, 3))
LABELS = RNG.integers(0, 4, (2, 5, 6)).astype("uint8")
LABELS[0, :2] = LABELS[LABELS == 3] = 255  # one of four classes is not there
WEIGHTS = (0.5, 2.0, 1.0, 3.0)


def value(kernel, class_weights, iou_weight):
    """The loss of a 1x1 convolution, in float64 and pixel by pixel."""
    shares = np.exp(IMAGES @ kernel)
    shares /= shares.sum(-1, keepdims=True)
    terms, weights = [], []
    both, found, truth = np.zeros((3, 4))
    for place in np.ndindex(LABELS.shape):
        label = LABELS[place]
        if label == 255:
            continue
        weights.append(1.0 if class_weights is None else class_weights[label])
        terms.append(-np.log(shares[place][label]))
        both[label] += shares[place][label]
        found += shares[place]
        truth[label] += 1
    union = found + truth - both
    iou = 1 - (both / union)[truth > 0].mean()
    return np.average(terms, weights=weights) + iou_weight * iou, sum(weights)


def slopes(kernel, *options):
    """The gradient of `value` by differences."""
    result, tiny = np.zeros_like(kernel), 1e-5
    for place in np.ndindex(kernel.shape):
        change = np.zeros_like(kernel)
        change[place] = tiny
        up, down = (value(kernel + way * change, *options)[0] for way in (1, -1))
        result[place] = (up - down) / (2 * tiny)
    return result


@pytest.mark.parametrize("options", [(None, 0.0), (WEIGHTS, 0.0), (None, 0.7), (WEIGHTS, 0.7)])
def test_the_weights_move_by_the_rate_times_the_gradient(options):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 1, use_bias=False)(inputs))
    kernel = RNG.normal(size=(3, 4))
    model.set_weights([kernel[None, None]])
    optimizer = CaffeSGD(0.1, 0.0, 0.0, ())
    optimizer.build(model.trainable_variables)
    spec = (tf.TensorSpec((None, 5, 6, 3)), tf.TensorSpec((None, 5, 6), tf.uint8))
    learner = Learner(model, SegmentationLoss(*options), optimizer)
    step = Step(learner, Replicas(tf.distribute.get_strategy()), spec)
    done = step((tf.constant(IMAGES, tf.float32), tf.constant(LABELS)))

    assert (done.loss, done.weight) == pytest.approx(value(kernel, *options), rel=1e-5)
    gradient = (kernel - np.asarray(model.get_weights()[0][0, 0], "float64")) / 0.1
    np.testing.assert_allclose(gradient, slopes(kernel, *options), atol=2e-6)
    other = slopes(kernel, *((None, 0.0) if options != (None, 0.0) else (WEIGHTS, 0.7)))
    assert np.abs(gradient - other).max() > 1e-3  # the control

    seen = LABELS[:, ::COUNTED, ::COUNTED], (IMAGES @ kernel).argmax(-1)[:, ::COUNTED, ::COUNTED]
    expected = np.zeros((4, 4), int)
    np.add.at(expected, (seen[0][seen[0] != 255], seen[1][seen[0] != 255]), 1)
    np.testing.assert_array_equal(done.matrix, expected)
