"""Nets that were trained in half precision, computed in float32."""

import keras
import numpy as np
import pytest
from keras import layers
from small_nets import fit_statistics

from kfcn.rewrite.walker import in_float32


def net(policy):
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    inside = keras.Input((None, None, 4))
    x = layers.BatchNormalization(dtype=policy)(layers.Conv2D(4, 3, dtype=policy)(inside))
    body = keras.Model(inside, layers.ReLU(6, dtype=policy)(x), name="body")
    x = layers.Conv2D(4, 3, dtype=policy)(layers.Rescaling(1 / 255, dtype=policy)(image))
    x = keras.ops.add(body(x), 0.5)
    return fit_statistics(keras.Model(image, layers.Conv2D(3, 1, dtype=policy)(x)))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_all_layers_compute_in_float32_with_the_same_weights(policy):
    half, usual = net(policy), net("float32")
    usual.set_weights(half.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (2, 12, 15, 3)).astype("float32")
    found = in_float32(half)
    assert found.output.dtype == "float32" and found is not half
    assert [x.name for x in found.layers[1:]] == [x.name for x in half.layers[1:]]  # no input's
    expected = np.asarray(usual(images))
    np.testing.assert_allclose(found(images), expected, rtol=1e-5, atol=1e-5)
    # The control: in half precision they are other numbers, and the given net still has those.
    assert np.abs(np.asarray(half(images)).astype(np.float32) - expected).max() > 1e-4


def test_a_net_in_float32_is_itself():
    usual = net("float32")
    assert in_float32(usual) is usual
