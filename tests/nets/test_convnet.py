import keras
import numpy as np
import pytest
from base import NetTests

import kfcn


class TestConvNet(NetTests):
    arch = "convnet"


def test_convolutions_only():
    model = kfcn.convnet(3)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert kinds == {"InputLayer", "Rescaling", "Conv2D", "BatchNormalization", "ReLU"}
    assert all(
        layer.strides == (1, 1) for layer in model.layers if isinstance(layer, keras.layers.Conv2D)
    )
    score = model.get_layer("score")
    assert score.kernel_size == (1, 1)
    assert np.all(np.asarray(score.kernel) == 0)


@pytest.mark.parametrize("rates", [(1,), (1, 1, 2), (1, 2, 4, 8)])
def test_the_receptive_field_grows_as_the_theory_says(rates):
    import tensorflow as tf

    model = kfcn.convnet(2, width=4, rates=rates)
    size = 1 + 2 * sum(rates)
    assert kfcn.receptive_field(model) == (size, 1, 0)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.uniform(0.1, 1, weight.shape))
    x = tf.constant(rng.uniform(128, 255, (1, 49, 49, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(model(x)[:, 24, 24])
    seen = np.abs(tape.gradient(y, x)[0]).sum(axis=-1) > 0
    half = size // 2
    expected = np.zeros((49, 49), bool)
    expected[24 - half : 25 + half, 24 - half : 25 + half] = True
    np.testing.assert_array_equal(seen, expected)  # every pixel inside, none outside


def test_the_default_field():
    assert kfcn.receptive_field(kfcn.convnet(2)) == (131, 1, 0)


def test_it_learns():
    """Two colours, two classes: a few steps must separate them."""
    keras.utils.set_random_seed(0)
    model = kfcn.convnet(2, width=4, rates=(1, 2))
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 2, (8, 4, 4)), np.ones((6, 6), int))
    x = np.where(labels[..., None] == 1, (200.0, 60.0, 60.0), (60.0, 60.0, 200.0))
    x = x + rng.normal(0, 20, x.shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    history = model.fit(x, labels, epochs=12, batch_size=4, verbose=0).history["loss"]
    assert history[0] > 0.3
    assert history[-1] < 0.1
