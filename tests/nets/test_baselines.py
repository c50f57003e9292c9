import keras
import numpy as np
import pytest
from base import NetTests
from keras import ops
from small_nets import TINY, box_twin, fit_statistics, gradient_centre, randomize

from kfcn.errors import KfcnError
from kfcn.nets.baselines import dilated, heatmap


class TestHeatmap(NetTests):
    arch = "heatmap"


class TestDilated(NetTests):
    arch = "dilated"


def test_heatmap_is_constant_in_blocks_of_32():
    net = randomize(fit_statistics(heatmap(3, **TINY)))
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype("float32")
    coarse = ops.convert_to_numpy(keras.Model(net.input, net.get_layer("score_fr").output)(image))
    np.testing.assert_array_equal(net(image), coarse.repeat(32, 1).repeat(32, 2))
    assert coarse.std() > 0.1


@pytest.mark.slow
def test_dilated_keeps_names_and_weights_of_the_backbone():
    plain = heatmap(3, **TINY)
    net = dilated(3, **TINY)
    ours = {layer.name: layer for layer in net.layers if layer.weights}
    theirs = {layer.name: layer for layer in plain.layers if layer.weights}
    assert set(theirs) <= set(ours)
    assert {n: [w.shape for w in x.weights] for n, x in theirs.items()} == {
        n: [w.shape for w in ours[n].weights] for n in theirs
    }
    image = np.zeros((1, 64, 96, 3), "float32")
    score = keras.Model(net.input, net.get_layer("score_fr").output)
    assert score(image).shape == (1, 8, 12, 3)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet50"])
def test_dilated_answers_over_its_object(backbone):
    net = dilated(2, backbone, **({"alpha": 0.35} if backbone == "mobilenet_v2" else {}))
    cell = (slice(216, 224), slice(216, 224))
    centre = gradient_centre(box_twin(net), 448, cell)
    assert centre == pytest.approx([219.5, 219.5], abs=1.0)


def test_squeeze_and_excite_cannot_be_dilated():
    with pytest.raises(KfcnError, match=r"squeeze_excite|se_squeeze"):
        dilated(2, "mobilenet_v3_large")


@pytest.mark.slow
def test_dilated_answers_an_image_below_its_stride():
    net = dilated(2, "mobilenet_v2", alpha=0.35)
    for size in ((1, 1), (5, 7)):  # known at tracing, unlike in a call on an eager tensor
        assert net.predict_on_batch(np.zeros((1, *size, 3), "float32")).shape == (1, *size, 2)
