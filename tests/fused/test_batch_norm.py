"""Batch normalisation of the training step against Keras' own."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_nets import needs_bfloat16

from kfcn.fused import batch_norm
from kfcn.fused.training import training_forward

SHAPE = (3, 9, 7, 5)
OUTPUTS, MEAN, VARIANCE, BY_INPUT, BY_GAMMA, BY_BETA = range(6)


def net(**options):
    image = keras.Input(SHAPE[1:])
    return keras.Model(image, keras.layers.BatchNormalization(name="norm", **options)(image))


def one_step(model, replicas=1, training=True):
    """Outputs, moving statistics and gradients of the net on pictures drawn from a seed.

    As Keras has it where `replicas` is 0.
    """
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(3, 2, SHAPE).astype("float32"))
    above = tf.constant(rng.normal(0, 1, SHAPE).astype("float32"))
    norm = model.get_layer("norm")
    for variable, values in zip(norm.trainable_variables, ((0.5, 2), (-1, 1)), strict=False):
        variable.assign(rng.uniform(*values, variable.shape))

    if replicas and training:
        forward = training_forward(model, replicas)
    else:
        forward = functools.partial(model, training=training)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = forward(inputs)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") * above)
        return outputs, tape.gradient(loss, [inputs, *model.trainable_variables])

    outputs, gradients = step()
    found = (outputs, norm.moving_mean, norm.moving_variance, *gradients)
    return [keras.ops.convert_to_numpy(value).astype("float32") for value in found]


@pytest.mark.parametrize("replicas", [1, 2])
def test_as_keras_has_it(replicas, in_parts):
    ours, theirs = one_step(net(), replicas), one_step(net(), replicas=0)
    assert len(ours) == len(theirs) == 6
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_is_traced(replicas, in_parts):
    model = net()
    image = tf.TensorSpec((None, *SHAPE[1:]))

    def operations(forward):
        graph = tf.function(forward).get_concrete_function(image).graph
        return {operation.type for operation in graph.get_operations()}

    ours = operations(training_forward(model, replicas))
    assert ("FusedBatchNormV3" in ours) != in_parts
    assert ("DepthwiseConv2dNative" in ours) == in_parts
    assert "FusedBatchNormV3" not in operations(functools.partial(model, training=True))
    assert not model.get_layer("norm").synchronized


@pytest.mark.parametrize("normalize", [batch_norm._on_one, batch_norm._over_replicas])
def test_variance_of_maps_far_from_zero(normalize, in_parts):
    """The mean is taken off before anything is squared."""
    maps = np.random.default_rng(0).normal(300, 1, (2, 40, 50, 3)).astype("float32")
    outputs, mean, variance = normalize(tf.constant(maps), tf.ones(3), tf.zeros(3), 1e-3)
    exact = maps.astype("float64")
    exact_mean, exact_variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    np.testing.assert_allclose(mean, exact_mean, rtol=3e-6)
    np.testing.assert_allclose(variance, exact_variance, rtol=2e-5)
    expected = (exact - exact_mean) / np.sqrt(exact_variance + 1e-3)
    np.testing.assert_allclose(outputs, expected, atol=1e-3)
    at_once = (maps**2).mean((0, 1, 2)) - maps.mean((0, 1, 2)) ** 2  # E[x^2] - E[x]^2
    assert abs(at_once / exact_variance - 1).max() > 1e-3


def test_statistics_by_hand(in_parts):
    rng = np.random.default_rng(0)
    inputs = rng.normal(3, 2, SHAPE).astype("float32").astype("float64")
    kept = one_step(net(momentum=0.9))
    np.testing.assert_allclose(kept[MEAN], 0.1 * inputs.mean((0, 1, 2)), rtol=1e-5)
    variance = 0.9 + 0.1 * inputs.var((0, 1, 2))
    np.testing.assert_allclose(kept[VARIANCE], variance, rtol=1e-6)
    unbiased = 0.9 + 0.1 * inputs.var((0, 1, 2), ddof=1)
    assert abs(kept[VARIANCE] / unbiased - 1).max() > 1e-4  # what the operation itself gives


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"axis": 1}])
def test_other_layers(options, replicas, in_parts):
    if options.get("axis") and replicas > 1:
        pytest.skip("Keras' own exchange needs replicas")
    ours, theirs = one_step(net(**options), replicas), one_step(net(**options), replicas=0)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


def test_without_training_the_statistics_count():
    for model in (net(), net(trainable=False)):
        found = one_step(model, training=not model.get_layer("norm").trainable)
        np.testing.assert_array_equal(found[MEAN], 0)
        np.testing.assert_array_equal(found[VARIANCE], 1)


@needs_bfloat16
@pytest.mark.parametrize("replicas", [1, 2])
def test_half_precision(replicas):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        ours, theirs = one_step(net(), replicas), one_step(net(), replicas=0)
    finally:
        keras.config.set_dtype_policy(before)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-2, atol=2e-2 * abs(other).max())
