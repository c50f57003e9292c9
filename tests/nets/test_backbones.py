import math
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from base import NetTests
from small_nets import box_twin, fit_statistics, gradient_centre

from kfcn.errors import KfcnError, UsageError
from kfcn.nets import fcn
from kfcn.nets.backbones import BACKBONES
from kfcn.nets.taps import taps
from kfcn.nets.weights import load_weights
from kfcn.saved import save_model

NARROW = {"vgg16": {"fc_filters": 8}, "mobilenet_v2": {"alpha": 0.35}}


@pytest.fixture(scope="module", params=list(BACKBONES))
def backbone(request):
    return request.param


@pytest.mark.long
class TestVGG16(NetTests):
    backbone = "vgg16"
    rate = 1e-6  # fresh and without batch normalisation, its activations are in the hundreds


@pytest.mark.long
class TestMobileNetV3Large(NetTests):
    backbone = "mobilenet_v3_large"


@pytest.mark.long
class TestResNet50(NetTests):
    backbone = "resnet50"


@pytest.mark.long
class TestEfficientNetV2B0(NetTests):
    backbone = "efficientnet_v2_b0"


def tapped(backbone, output_stride=32):
    """Its taps, a net that ends in them, and what that gives of zeros of any size."""
    image = keras.Input((None, None, 3))
    tap_of = taps(image, backbone, output_stride, **NARROW.get(backbone, {}))
    net = keras.Model(image, {str(s): t.tensor for s, t in tap_of.items()})
    # As one function of unknown size, which is made once.
    run = tf.function(net, input_signature=[tf.TensorSpec((1, None, None, 3), tf.float32)])

    def maps(height, width):
        found = run(np.zeros((1, height, width, 3), "float32"))
        return {stride: found[str(stride)] for stride in tap_of}

    return tap_of, net, maps


@pytest.fixture(scope="module")
def usual(backbone):
    return tapped(backbone)


@pytest.mark.slow
def test_taps_are_as_declared(usual):
    tap_of, net, maps = usual
    found = maps(64, 96)
    for stride, tap in tap_of.items():
        assert found[stride].shape == (1, 64 // stride, 96 // stride, tap.channels)
        assert tap.layer in [layer.name for layer in net.layers]


@pytest.mark.slow
def test_odd_and_tiny_maps_keep_their_last_cell(usual):
    tap_of, _, maps = usual
    for size in (1, 33):
        found = maps(size, size)
        for stride in tap_of:
            assert found[stride].shape[1:3] == (-(-size // stride),) * 2


@pytest.mark.slow
def test_offsets_measured_by_gradient(usual, backbone):
    tap_of, net, _ = usual
    for stride, tap in tap_of.items():
        twin = box_twin(keras.Model(net.inputs, tap.tensor))
        # Cut off by the border, the field of 979 pixels and more would not be centred at its cell.
        size = 1088 if "efficientnet_lite" in backbone and stride == 32 else 448
        middle = size // 2 // stride
        cell = (slice(middle, middle + 1), slice(middle, middle + 1))
        centre = gradient_centre(twin, size, cell)
        assert centre == pytest.approx([stride * middle + tap.offset] * 2, abs=0.2), stride


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "output_stride"),
    [
        ("mobilenet_v2", 16),
        ("mobilenet_v2", 8),
        ("resnet50", 16),
        ("efficientnet_lite0", 16),
        ("efficientnet_lite0", 8),
    ],
)
def test_a_dilated_backbone_has_finer_taps_where_it_says(body, output_stride):
    tap_of, net, maps = tapped(body, output_stride)
    for size in ((64, 96), (33, 47)):
        found = maps(*size)
        for stride, tap in tap_of.items():
            assert tap.stride == min(stride, output_stride)
            assert found[stride].shape[1:3] == tuple(-(-n // tap.stride) for n in size)
    tap = tap_of[32]
    middle = 448 // 2 // tap.stride
    cell = (slice(middle, middle + 1), slice(middle, middle + 1))
    centre = gradient_centre(box_twin(keras.Model(net.inputs, tap.tensor)), 448, cell)
    assert centre == pytest.approx([tap.stride * middle + tap.offset] * 2, abs=0.6)


def test_output_strides_that_there_are_not():
    with pytest.raises(UsageError, match="output stride 4: expected 8, 16 or 32"):
        taps(keras.Input((None, None, 3)), "mobilenet_v2", 4)
    with pytest.raises(KfcnError, match="squeeze_excite"):
        fcn.fcn8s(3, "mobilenet_v3_large", output_stride=16)


def test_batch_norm_adapts_within_an_epoch(backbone):
    net = fcn.fcn32s(2, backbone, **NARROW.get(backbone, {}))
    norms = [x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {x.momentum for x in norms} <= {0.95}


def test_unknown_names_are_told():
    with pytest.raises(UsageError, match="expected one of vgg16, mobilenet_v2"):
        fcn.fcn8s(3, "alexnet")
    with pytest.raises(UsageError, match="resnet50 has no option alpha; it has: none"):
        fcn.fcn8s(3, "resnet50", alpha=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_weights_of_the_classifier_are_carried(tmp_path, suffix):
    keras.utils.set_random_seed(1)
    source = keras.applications.MobileNetV2(
        input_shape=(None, None, 3), include_top=False, weights=None, alpha=0.35
    )
    fit_statistics(source)  # with fresh ones the activations vanish and anything is "equal"
    path = tmp_path / f"source{suffix}"
    source.save_weights(path) if suffix == ".weights.h5" else source.save(path)
    net = fcn.fcn8s(3, "mobilenet_v2", alpha=0.35)
    assert load_weights(net, "mobilenet_v2", str(path), alpha=0.35) == len(source.weights)
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    tap = keras.Model(net.input, net.get_layer("out_relu").output)
    expected = source(keras.applications.mobilenet_v2.preprocess_input(image.copy()))
    np.testing.assert_allclose(tap(image), expected, atol=1e-3)  # measured 1.6e-4
    assert np.std(expected) > 0.1


@pytest.mark.long
def test_vgg16_fills_fc6_and_fc7_from_the_dense_layers(tmp_path):
    """The convolutionalised net on 224x224 is the classifier, BGR and mean included."""
    keras.utils.set_random_seed(2)
    source = keras.applications.VGG16(weights=None)
    kernel = source.get_layer("fc1").kernel
    path = tmp_path / "vgg.weights.h5"
    source.save_weights(path)
    net = fcn.fcn32s(3, "vgg16")
    filled = load_weights(net, "vgg16", str(path))
    assert filled == 2 * (13 + 2)
    np.testing.assert_array_equal(
        net.get_layer("fc6").kernel, np.reshape(kernel, (7, 7, 512, 4096))
    )
    image = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    tap = keras.Model(net.input, net.get_layer("fc7").output)
    top = keras.Model(source.input, source.get_layer("fc2").output)
    expected = top(keras.applications.vgg16.preprocess_input(image.copy())).numpy()
    # The middle cell of the 7x7 map has the classifier's whole field.
    middle = tap(image).numpy()[:, 3, 3]
    np.testing.assert_allclose(middle, expected, rtol=1e-3, atol=1e-3 * expected.std())
    assert expected.std() > 0
    mirrored = top(keras.applications.vgg16.preprocess_input(image[..., ::-1].copy())).numpy()
    assert np.abs(middle - mirrored).max() > 1e-2 * expected.std()


def test_slim_vgg16_fills_the_convolutions_only(tmp_path):
    source = keras.applications.VGG16(weights=None, include_top=False)
    path = tmp_path / "vgg.weights.h5"
    source.save_weights(path)
    net = fcn.fcn32s(3, "vgg16", fc_filters=64)
    assert load_weights(net, "vgg16", str(path), fc_filters=64) == 2 * 13


def test_a_kfcn_model_serves_as_weights(tmp_path):
    first = fcn.fcn8s(3, "mobilenet_v2", alpha=0.35)
    first.save(tmp_path / "first.keras")
    second = fcn.fcn8s(5, "mobilenet_v2", alpha=0.35)
    load_weights(second, "mobilenet_v2", str(tmp_path / "first.keras"), alpha=0.35)
    np.testing.assert_array_equal(first.get_layer("Conv1").kernel, second.get_layer("Conv1").kernel)


def test_a_kfcn_model_that_takes_rgb_keeps_its_colours(tmp_path):
    first, second = (fcn.fcn32s(3, "vgg16", fc_filters=8) for _ in range(2))
    save_model(first, tmp_path / "first.keras")
    load_weights(second, "vgg16", str(tmp_path / "first.keras"), fc_filters=8)
    kernels = [np.asarray(net.get_layer("block1_conv1").kernel) for net in (first, second)]
    np.testing.assert_array_equal(*kernels)
    assert np.abs(kernels[0] - kernels[0][:, :, ::-1]).max() > 0.01


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        ((1, 1, 4, 3), (1, 1, 4, 3), True),
        ((1, 1, 4, 3), (1, 1, 3, 4), False),
        ((3, 4), (1, 1, 3, 4), True),
        ((4, 3), (1, 1, 3, 4), False),
        ((18, 4), (3, 2, 3, 4), True),
        ((3, 2, 3, 4), (3, 2, 3, 4), True),
        ((2, 3, 3, 4), (3, 2, 3, 4), False),
    ],
)
def test_only_the_kernel_of_a_dense_layer_is_reshaped(tmp_path, given, wanted, fits):
    """As many numbers in another order would be scrambled, and count as filled."""
    image = keras.Input((None, None, wanted[2]))
    layer = keras.layers.Conv2D(wanted[3], wanted[:2], use_bias=False, name="body")
    net = keras.Model(image, layer(image))
    before, kernel = layer.get_weights()[0], np.arange(math.prod(given), dtype="float32")
    np.savez(tmp_path / "body.npz", **{"body/0": kernel.reshape(given)})
    if fits:
        assert load_weights(net, "mobilenet_v2", str(tmp_path / "body.npz")) == 1
        np.testing.assert_array_equal(layer.get_weights()[0].ravel(), kernel)
    else:
        with pytest.raises(KfcnError, match="fills no tensor of mobilenet_v2"):
            load_weights(net, "mobilenet_v2", str(tmp_path / "body.npz"))
        np.testing.assert_array_equal(layer.get_weights()[0], before)


def test_files_that_do_not_fit_are_told(tmp_path):
    net = fcn.fcn32s(3, "mobilenet_v2", alpha=0.35)
    with pytest.raises(UsageError, match="no such file; expected imagenet, none or a path"):
        load_weights(net, "mobilenet_v2", str(tmp_path / "missing.h5"), alpha=0.35)
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(b"not HDF5")
    with pytest.raises(
        KfcnError, match=r"does not hold weights of keras\.applications\.MobileNetV2"
    ):
        load_weights(net, "mobilenet_v2", str(broken), alpha=0.35)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save(tmp_path / "other.keras")
    with pytest.raises(KfcnError, match="fills no tensor of mobilenet_v2"):
        load_weights(net, "mobilenet_v2", str(tmp_path / "other.keras"), alpha=0.35)
    kernel = net.get_layer("Conv1").kernel
    kernel.assign(np.where(np.arange(16) == 3, np.nan, kernel))
    net.save(tmp_path / "diverged.keras")
    with pytest.raises(KfcnError, match=r"diverged\.keras: its weight Conv1/kernel contains NaN"):
        load_weights(net, "mobilenet_v2", str(tmp_path / "diverged.keras"), alpha=0.35)


def test_no_network_says_how_to_pass_a_file(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(keras.applications, "MobileNetV2", refuse)
    with pytest.raises(KfcnError, match=r"no network.*--weights PATH.*--weights none"):
        load_weights(keras.Model(), "mobilenet_v2", "imagenet")


@pytest.mark.skipif("KFCN_WEIGHTS" not in os.environ, reason="KFCN_WEIGHTS names no weights file")
def test_real_imagenet_file_fills_every_tensor():
    net = fcn.fcn8s(11, "mobilenet_v2")
    assert load_weights(net, "mobilenet_v2", os.environ["KFCN_WEIGHTS"]) == 260
