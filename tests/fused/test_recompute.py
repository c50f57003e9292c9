"""Gradient checkpointing: the same values from fewer maps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_nets import TINY, fit_statistics, randomize

import kfcn
from kfcn.crf import add_crf
from kfcn.fused.recompute import segments
from kfcn.fused.training import training_forward
from kfcn.graph import calls
from kfcn.nets.convnet import convnet


def moved(model):
    return [np.asarray(x) for x in model.non_trainable_variables]


def step(model, images, recompute):
    """Logits, gradients by weights, and what a step moves; the net is as before afterwards."""
    before = moved(model)
    forward = training_forward(model, recompute=recompute)

    @tf.function
    def run(images):
        with tf.GradientTape() as tape:
            logits = forward(images)
            loss = tf.reduce_mean(tf.square(logits))
        return logits, tape.gradient(loss, model.trainable_variables)

    logits, gradients = run(images)
    after = moved(model)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        variable.assign(value)
    return np.asarray(logits), [np.asarray(g) for g in gradients], after, run


def same(one, other, least=1e-12, atol=1e-4):
    spread = max(np.abs(other).max(), least)
    np.testing.assert_allclose(one / spread, other / spread, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn8s", "crf", "dropout"])
def test_values_gradients_and_statistics_are_those_of_a_step_without(name, in_parts):
    keras.utils.set_random_seed(0)
    if name == "dropout":
        image = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(image)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Dropout(0.5)(x)
        model = keras.Model(image, keras.layers.Conv2D(3, 1)(keras.layers.Conv2D(4, 1)(x)))
    else:
        net = convnet(4) if name == "crf" else kfcn.fcn8s(4, **TINY)
        model = fit_statistics(randomize(net, scale=0.1))
        model = add_crf(model, iterations=1, spatial_weight=0.5) if name == "crf" else model
    images = np.random.default_rng(1).uniform(0, 255, (2, 37, 64, 3)).astype("float32")
    usual, ours = (step(model, images, recompute) for recompute in (False, True))
    same(ours[0], usual[0])
    bounds = {}
    if in_parts:
        # What is computed again is joined otherwise and rounded otherwise, by 2.1e-4 at most on the
        # processors tried; the gradient of a bias before a normalisation is rounding alone.
        least = 3e-3 * max(np.abs(gradient).max() for gradient in usual[1])
        bounds = {"least": least, "atol": 5e-4}
    for one, other in zip(ours[1], usual[1], strict=True):
        same(one, other, **bounds)
    # So is the mean of maps that follow others whose mean is zero.
    bounds = {"least": 1e-3} if in_parts else {}
    for one, other in zip(ours[2], usual[2], strict=True):
        same(one.astype(float), other.astype(float), **bounds)
    assert any(np.abs(a - b).max() > 0 for a, b in zip(usual[2], moved(model), strict=True))

    # It does compute again: most convolutions stand in the graph twice.
    def count(run):
        graph = run.get_concrete_function(tf.TensorSpec(images.shape)).graph
        kinds = [x.type for x in graph.get_operations()]
        return kinds.count("Conv2D") + kinds.count("DepthwiseConv2dNative")

    assert count(ours[3]) > 1.5 * count(usual[3])


@pytest.mark.parametrize(
    "model", [lambda: kfcn.fcn8s(4, **TINY), lambda: kfcn.fcn8s(4, backbone="vgg16", fc_filters=8)]
)
def test_segments_are_all_calls_in_order_and_keep_little(model):
    net = model()
    found = segments(net)
    made = [call for segment in found for call in segment.calls]
    assert [c.operation for c in made] == [c.operation for c in calls(net)]
    kept = [c.operation.name for segment in found if segment.kept for c in segment.calls]
    assert all("drop" in name for name in kept)
    widths = [x.shape[-1] for segment in found for x in segment.outputs if len(x.shape) == 4]
    every = [x.shape[-1] for c in made for x in c.outputs if len(x.shape) == 4]
    assert len(found) > 5 and sum(widths) < sum(every) / 3


def test_a_net_of_a_few_layers():
    model = convnet(2)
    images = np.random.default_rng(0).uniform(0, 255, (1, 20, 30, 3)).astype("float32")
    usual, ours = (step(model, images, recompute) for recompute in (False, True))
    for one, other in zip(ours[1], usual[1], strict=True):
        same(one, other)
