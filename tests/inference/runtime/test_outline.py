"""Outlines: the steps of a net without its weights."""

import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from small_nets import TINY, fit_statistics, randomize

from kfcn.inference.runtime.from_keras import program_of
from kfcn.inference.runtime.outline import outline, program
from kfcn.inference.runtime.program import UnsupportedError
from kfcn.nets import architectures
from kfcn.nets.convnet import convnet
from kfcn.nets.fcn import fcn8s
from kfcn.saved import save_model


def assert_same(one, other):
    assert one[1:] == other[1:]
    for ours, theirs in zip(one.steps, other.steps, strict=True):
        assert ours[:3] == theirs[:3]
        assert ours.weights.keys() == theirs.weights.keys()
        for name, weight in ours.weights.items():
            assert weight.dtype == theirs.weights[name].dtype == np.float32
            np.testing.assert_array_equal(weight, theirs.weights[name])


@pytest.mark.parametrize(
    ("arch", "backbone"),
    [("fcn8s", "mobilenet_v2"), ("fcn8s-fpn", "efficientnet_lite0"), ("fcn16s", "resnet50")],
)
def test_an_outline_and_the_file_are_the_net(arch, backbone, tmp_path):
    """Folded norms, norms alone, constants of layers and learned enlargements among them."""
    file = tmp_path / "net.keras"
    options = {"alpha": 0.35} if backbone == "mobilenet_v2" else {}
    net = randomize(architectures.build(arch, 5, backbone, None, {}, options))
    save_model(net, file)
    found = program(outline(net, file), file)
    assert found is not None
    assert_same(found, program_of(net))
    # The control: weights of another net of the same kind.
    other = program(outline(net, file), file)
    assert other is not None
    save_model(randomize(net, seed=5), file)
    with pytest.raises(AssertionError):
        assert_same(other, program_of(net))


def test_a_norm_behind_no_convolution_is_a_step_of_its_own(tmp_path):
    image = keras.Input((None, None, 3))
    x = keras.layers.BatchNormalization(scale=False)(image)
    x = keras.layers.Conv2D(20, 3, use_bias=False)(x)
    x = keras.layers.BatchNormalization(center=False, epsilon=0.5)(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.BatchNormalization()(x)
    net = fit_statistics(keras.Model(image, keras.layers.Conv2D(2, 1)(x)), size=32)
    file = tmp_path / "net.keras"
    save_model(net, file)
    found = program(outline(net, file), file)
    assert found is not None
    assert [step.kind for step in found.steps] == ["affine", "conv", "affine", "conv"]
    assert_same(found, program_of(net))


def test_a_damaged_outline_or_file_is_none(tmp_path):
    file, other = tmp_path / "net.keras", tmp_path / "other.keras"
    net = convnet(2)
    save_model(net, file)
    save_model(fcn8s(3, **TINY), other)
    content = outline(net, file)
    assert program(content, file) is not None
    assert program(content, other) is None
    assert program(content, tmp_path / "missing") is None
    for cut in (content[:-5], b"", content[:20] + b"\0" + content[21:]):
        assert program(cut, file) is None
    sound = file.read_bytes()
    file.write_bytes(sound[: len(sound) // 2] + b"\0\0\0" + sound[len(sound) // 2 + 3 :])
    assert program(content, file) is None


def test_weights_that_the_file_has_not_are_refused(tmp_path):
    file = tmp_path / "net.keras"
    net = convnet(2)
    save_model(net, file)
    with pytest.raises(UnsupportedError, match="does not hold a kernel"):
        outline(randomize(net), file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(KeyError):
        outline(net, file)


def test_an_outlined_net_runs_without_tensorflow_and_keras(tmp_path):
    file, outlined = tmp_path / "net.keras", tmp_path / "outline.json.gz"
    net = convnet(2)
    save_model(net, file)
    outlined.write_bytes(outline(net, file))
    code = (
        "import sys, pathlib, numpy\n"
        "from kfcn.inference.runtime.outline import program\n"
        "from kfcn.inference.runtime.on_litert import LiteRTNet\n"
        "outline, file = map(pathlib.Path, sys.argv[1:])\n"
        "net = LiteRTNet(program(outline.read_bytes(), file), 1)\n"
        "print(net.labels(numpy.zeros((1, 20, 30, 3), numpy.uint8)).shape)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, outlined, file], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "(1, 20, 30)", done.stderr
