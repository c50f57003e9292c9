import keras
import numpy as np
import pytest
from nets import TINY, fit_statistics, randomize

import kfcn
from kfcn.fused import _function, run_net


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_equals_keras_own_inference(size):
    model = fit_statistics(randomize(kfcn.fcn8s(4, **TINY)))
    images = np.random.default_rng(0).uniform(0, 255, (2, *size, 3)).astype("float32")
    usual, fused = model.predict_on_batch(images), run_net(model, images)
    assert fused.dtype == np.float32 and fused.shape == (2, *size, 4)
    spread = usual.std()
    assert np.abs(usual - fused).max() < 1e-4 * spread
    # The control: statistics of the batch would give something else.
    assert np.abs(usual - np.asarray(model(images, training=True))).max() > 1e-2 * spread


def test_norms_are_one_operation_and_the_layers_stay():
    import weakref

    model = kfcn.fcn8s(4, **TINY)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    forward = _function(weakref.ref(model))
    graph = forward.get_concrete_function(keras.ops.zeros((1, 32, 32, 3))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("FusedBatchNormV3") == len(norms) > 40
    assert not any("call" in vars(layer) for layer in norms)


def test_follows_the_weights_and_the_size():
    image = keras.Input((None, None, 3))
    x = keras.layers.BatchNormalization(epsilon=0.0, name="norm")(image)
    model = keras.Model(image, x)
    model.get_layer("norm").set_weights(np.repeat([[2.0], [1.0], [10.0], [4.0]], 3, 1))
    # 2 * (30 - 10) / sqrt(4) + 1
    assert np.all(run_net(model, np.full((1, 2, 5, 3), 30, "float32")) == 21)
    model.get_layer("norm").set_weights(np.repeat([[2.0], [0.0], [10.0], [4.0]], 3, 1))
    assert np.all(run_net(model, np.full((3, 4, 2, 3), 30, "float32")) == 20)
