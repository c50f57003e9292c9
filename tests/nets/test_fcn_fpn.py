import keras
import numpy as np
import pytest
import tensorflow as tf
from base import NetTests
from keras import ops
from small_nets import TINY, fit_statistics, randomize

from kfcn.errors import KfcnError
from kfcn.nets.backbones import BACKBONES
from kfcn.nets.fcn import fcn8s, fcn32s
from kfcn.nets.fcn_fpn import fcn8s_fpn
from kfcn.nets.upsample import bilinear_kernel
from kfcn.nets.weights import carry_weights

IMAGE = np.random.default_rng(1).uniform(0, 255, (1, 64, 96, 3)).astype("float32")


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    return randomize(fit_statistics(fcn8s(4, **TINY)))


def output(net, layer):
    return ops.convert_to_numpy(keras.Model(net.input, net.get_layer(layer).output)(IMAGE))


def enlarged(x, stride):
    kernel = bilinear_kernel(stride, x.shape[-1])
    return ops.convert_to_numpy(ops.conv_transpose(x, kernel, strides=stride, padding="same"))


class TestFCN8sFPN(NetTests):
    arch = "fcn8s-fpn"


def test_it_starts_as_the_fcn8s_that_it_starts_from(trained):
    net = fcn8s_fpn(4, **TINY)
    filled = carry_weights(trained, net)
    assert {"score_fr", "score_pool3", "upscore_pool4"} <= set(filled)
    expected = enlarged(enlarged(output(trained, "fuse_pool3"), 4), 2)
    np.testing.assert_allclose(net(IMAGE), expected, atol=1e-4 * np.abs(expected).max())


def test_the_pyramid_s_scores_are_added(trained):
    net = fcn8s_fpn(4, **TINY)
    carry_weights(trained, net)
    rng = np.random.default_rng(2)
    layer = net.get_layer("score_pyramid")
    layer.set_weights([rng.normal(0, 1, w.shape) for w in layer.weights])
    detail = output(net, "score_pyramid")
    assert detail.shape == (1, 32, 48, 4)
    coarse = enlarged(output(trained, "fuse_pool3"), 4)
    expected = enlarged(coarse + detail, 2)
    np.testing.assert_allclose(net(IMAGE), expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(enlarged(coarse, 2) - expected).max() > 0.1  # the pyramid is seen


def test_a_stage_of_the_pyramid_by_hand(trained):
    """Stride 16: the map of stride 32 enlarged, the lateral added, clipped to 0..6."""
    net = randomize(fit_statistics(fcn8s_fpn(4, **TINY)))
    coarse, lateral = output(net, "lateral32_BN"), output(net, "lateral16_BN")
    expected = np.maximum(0, np.minimum(6, enlarged(coarse, 2) + lateral))
    np.testing.assert_allclose(output(net, "join16_relu"), expected, atol=1e-4)
    alone = np.maximum(0, np.minimum(6, lateral))
    assert np.abs(alone - expected).max() > 0.1  # the coarse map is seen


@pytest.mark.slow
@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_on_every_backbone_and_of_any_size(backbone):
    options = {"vgg16": {"fc_filters": 8}, "mobilenet_v2": {"alpha": 0.35}}.get(backbone, {})
    net = fcn8s_fpn(3, backbone, align=True, **options)
    # As one function of unknown size, as `predict` has it after pictures of several sizes.
    run = tf.function(net, input_signature=[tf.TensorSpec((1, None, None, 3), tf.float32)])
    for size in ((1, 1), (37, 50), (64, 32)):
        assert run(np.zeros((1, *size, 3), "float32")).shape == (1, *size, 3)


@pytest.mark.slow
def test_a_dilated_net_starts_from_one_that_is_not(trained):
    net = fcn8s_fpn(4, output_stride=16, **TINY)
    filled = carry_weights(trained, net)
    assert {"score_fr", "score_pool3", "upscore_pool4", "block_16_depthwise"} <= set(filled)
    np.testing.assert_array_equal(output(net, "score_pool4"), output(trained, "score_pool4"))
    with pytest.raises(KfcnError, match="of fcn8s fit fcn32s: score_pool4 fits nothing there"):
        carry_weights(trained, fcn32s(4, **TINY))


@pytest.mark.slow
@pytest.mark.parametrize("build", [fcn8s, fcn8s_fpn])
def test_on_a_dilated_backbone_maps_of_one_stride_are_added_as_they_are(build):
    net = randomize(fit_statistics(build(4, output_stride=16, **TINY)))
    names = {layer.name for layer in net.layers}
    assert "upscore2" not in names and "enlarge16" not in names and "upscore_pool4" in names
    expected = output(net, "score_fr") + output(net, "score_pool4")
    assert expected.shape == (1, 4, 6, 4)
    np.testing.assert_allclose(output(net, "fuse_pool4"), expected, atol=1e-5)
    assert {w.path for w in net.weights} < {w.path for w in build(4, **TINY).weights}
    for size in ((1, 1), (33, 47)):
        assert net.predict_on_batch(np.zeros((1, *size, 3), "float32")).shape == (1, *size, 4)
