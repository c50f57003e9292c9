"""Nets that end in a softmax, as most do that were not made here."""

import drawn
import keras
import numpy as np
import pytest
from keras import layers, ops
from small_nets import u_net

import kfcn
from kfcn.rewrite.logits import as_logits

ENDS = {
    "in the convolution": lambda x: layers.Conv2D(3, 1, activation="softmax")(x),
    "in a transposed one": lambda x: layers.Conv2DTranspose(3, 1, activation="softmax")(x),
    "in a Dense": lambda x: layers.Dense(3, activation="softmax")(x),
    "an Activation": lambda x: layers.Activation("softmax")(layers.Conv2D(3, 1)(x)),
    "a layer": lambda x: layers.Softmax()(layers.Conv2D(3, 1)(x)),
    "an operation": lambda x: ops.softmax(layers.Conv2D(3, 1)(x)),
}


def images(size=(8, 10)):
    return np.random.default_rng(0).uniform(0, 255, (2, *size, 3)).astype("float32")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("sequential", [False, True])
def test_the_softmax_of_what_is_returned_is_the_net(end, sequential):
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    net = keras.Model(image, ENDS[end](layers.Rescaling(1 / 255)(image)))
    if sequential and end != "an operation":
        net = keras.Sequential([keras.Input((None, None, 3)), *net.layers[1:]])
    probabilities, found = np.asarray(net(images())), np.asarray(as_logits(net)(images()))
    np.testing.assert_allclose(ops.softmax(found), probabilities, atol=1e-6)
    assert np.abs(found - probabilities).max() > 0.1
    np.testing.assert_array_equal(net(images()), probabilities)  # the given one is as it was


def test_what_ends_in_something_else_is_itself():
    class Sharp(layers.Softmax):
        def call(self, inputs):
            return super().call(4 * inputs)

    image = keras.Input((None, None, 3))
    scores = layers.Conv2D(3, 1)(image)
    for output in (scores, layers.Softmax(axis=1)(scores), Sharp()(scores), ops.sigmoid(scores)):
        net = keras.Model(image, output)
        assert as_logits(net) is net


def test_the_cross_entropy_of_a_net_of_probabilities_is_theirs(tmp_path):
    keras.utils.set_random_seed(0)
    root = drawn.folder(tmp_path, [drawn.mask()], split="val")
    net = u_net(classes=2, activation="softmax")
    kernel, _ = net.layers[-1].get_weights()
    net.layers[-1].set_weights([8 * kernel, np.zeros(2)])
    found = kfcn.evaluate(net, "folder", "val", root)
    shares = np.asarray(net(drawn.picture()[None].astype("float32")))[0]
    right = np.take_along_axis(shares, drawn.mask()[..., None].astype(int), -1)
    np.testing.assert_allclose(found.cross_entropy, -np.log(right).mean(), rtol=1e-4)
    twice = np.asarray(ops.softmax(shares))
    of_logits = -np.log(np.take_along_axis(twice, drawn.mask()[..., None].astype(int), -1)).mean()
    assert abs(found.cross_entropy - of_logits) > 0.05
