"""Which runtime a net gets, and the programs that are kept."""

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from small_nets import TINY, StandardizedConv2D, fit_statistics, randomize

from kfcn.commands import predict as command
from kfcn.crf import add_crf
from kfcn.inference.runtime import from_keras, store
from kfcn.inference.runtime.from_keras import program_of
from kfcn.inference.runtime.net import KerasNet, as_net, open_net, quickest
from kfcn.inference.runtime.program import UnsupportedError
from kfcn.nets.convnet import convnet
from kfcn.nets.fcn import fcn8s
from kfcn.saved import save_model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return randomize(fit_statistics(fcn8s(4, **TINY)))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kfcn" / "outlines"


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, height, width, 3), np.uint8).repeat(8, 1)[:, :height]


@pytest.mark.slow
def test_a_crf_stays_on_tensorflow_and_its_net_does_not(model):
    whole = add_crf(model, test_iterations=2)
    net = quickest(whole)
    assert net.name == "litert, CRF on tensorflow" and net.margin is None and net.classes == 4
    for size in ((37, 50), (40, 33)):
        image = picture(*size)
        expected = np.asarray(whole(image.astype(np.float32)))
        alone = np.asarray(model(image.astype(np.float32)))
        np.testing.assert_allclose(net.logits(image), expected, atol=2e-3 * expected.std())
        assert np.abs(alone - expected).max() > 0.1 * expected.std()  # the CRF does something
        assert (net.labels(image) != expected.argmax(-1)).mean() < 1e-3


def test_a_layer_of_ones_own_is_computed_by_itself():
    """A subclass of what other runtimes know: read as its parent, it gave other labels."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = StandardizedConv2D(8, 3, padding="same", use_bias=False)(image)
    x = keras.layers.BatchNormalization()(x)
    model = fit_statistics(keras.Model(image, keras.layers.Conv2D(4, 1)(x)))
    expected = np.asarray(model(picture(20, 31).astype(np.float32)))
    net = quickest(model)
    assert net.name == "tensorflow"
    np.testing.assert_allclose(net.logits(picture(20, 31)), expected, atol=1e-4 * expected.std())


def test_a_dropout_of_ones_own_is_not_passed_over():
    class Halved(keras.layers.Dropout):
        def call(self, inputs, training=None):
            return inputs / 2

    image = keras.Input((None, None, 3))
    for layer, name in ((Halved, "tensorflow"), (keras.layers.Dropout, "litert")):
        x = keras.layers.DepthwiseConv2D(3)(image)
        assert quickest(keras.Model(image, layer(0.5)(x))).name == name


def test_a_function_of_ones_own_is_not_the_one_of_its_name():
    def swish(x):
        return x * keras.ops.sigmoid(1.702 * x)

    image = keras.Input((None, None, 3))
    for function, name in ((swish, "tensorflow"), ("swish", "litert")):
        layer = keras.layers.DepthwiseConv2D(3, activation=function)
        assert quickest(keras.Model(image, layer(image))).name == name


def test_what_litert_cannot_do_stays_on_tensorflow():
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.LayerNormalization()(image))
    net = quickest(model)
    assert isinstance(net, KerasNet) and net.name == "tensorflow"
    values = picture(5, 6)
    expected = np.asarray(model(values.astype(np.float32)))
    np.testing.assert_allclose(net.logits(values), expected, atol=1e-5)
    np.testing.assert_array_equal(net.labels(values), expected.argmax(-1))


def test_logits_of_a_net_in_half_precision_are_float32():
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(3, 1, dtype="mixed_float16")(image))
    net, values = quickest(model), picture(5, 6)
    assert net.name == "tensorflow" and model.output.dtype == "float16"
    found = net.logits(values)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.asarray(model(values.astype(np.float32)), np.float32))


def test_wide_convolutions_run_on_onnx_runtime_where_it_is_installed(monkeypatch):
    model, image = randomize(convnet(3)), picture(31, 46)
    net = quickest(model)
    assert net.name == "onnxruntime" and net.classes == 3
    for values in (image, image.astype(np.float32) + np.float32(0.37)):
        expected = np.asarray(model(values.astype(np.float32)))
        np.testing.assert_allclose(net.logits(values), expected, atol=1e-4 * expected.std())
    labels = np.asarray(model(image.astype(np.float32))).argmax(-1)
    np.testing.assert_array_equal(net.labels(image), labels)
    assert len(np.unique(labels)) > 1
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert quickest(model).name == "litert"


@pytest.mark.parametrize(("intel", "name"), [(True, "onnxruntime"), (False, "litert")])
def test_a_resnet_runs_where_its_processor_is_quickest(monkeypatch, intel, name):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(image)  # 108 of 192 multiplications
    model = keras.Model(image, keras.layers.Conv2D(3, 1)(keras.layers.Conv2D(12, 1)(x)))
    monkeypatch.setattr("kfcn.inference.runtime.net.is_intel_avx512", lambda: intel)
    assert 0.45 < program_of(model).wide_share() < 0.75
    assert quickest(model).name == name


def test_a_keras_model_follows_its_weights_and_a_quick_net_does_not():
    model = randomize(convnet(3))
    follows, stays, image = as_net(model), quickest(model), picture(20, 30)
    assert as_net(stays) is stays
    before = follows.logits(image)
    np.testing.assert_allclose(stays.logits(image), before, atol=1e-4 * before.std())
    randomize(model, seed=1)
    assert np.abs(follows.logits(image) - before).max() > 0.1 * before.std()
    np.testing.assert_allclose(stays.logits(image), before, atol=1e-4 * before.std())


def test_logits_of_images_that_are_not_whole_numbers(model):
    image = picture(30, 41).astype(np.float32) + np.float32(0.37)
    expected = np.asarray(model(image))
    np.testing.assert_allclose(quickest(model).logits(image), expected, atol=1e-3 * expected.std())
    rounded = np.asarray(model(np.round(image)))
    assert np.abs(rounded - expected).max() > 1e-3 * expected.std()  # it could be seen


@pytest.mark.slow
def test_outlines_are_kept_by_what_the_file_holds(model, cache, tmp_path):
    file, image = tmp_path / "net.keras", picture(40, 40)
    save_model(model, file)
    first, card = open_net(file)
    assert card is None and first.name == "litert" and len(list(cache.iterdir())) == 1
    program = store.load(file)
    assert program is not None
    again, _ = open_net(str(file))
    np.testing.assert_array_equal(again.labels(image), first.labels(image))
    save_model(randomize(keras.models.clone_model(model), seed=5), file)
    assert store.load(file) is None  # another net under the same name
    other, _ = open_net(file)
    assert (other.labels(image) != first.labels(image)).mean() > 0.1
    for kept in cache.iterdir():
        kept.write_bytes(kept.read_bytes()[:-20])
    assert store.load(file) is None
    np.testing.assert_array_equal(open_net(file)[0].labels(image), other.labels(image))
    assert store.load(file) is not None  # it was written anew


def test_a_program_that_other_code_made_is_not_taken(cache, tmp_path, monkeypatch):
    """Of the same release, as two commits are."""
    file, home, net = tmp_path / "net.keras", tmp_path / "kfcn", convnet(2)
    save_model(net, file)
    store.save(file, net)
    assert store.load(file) is not None
    shutil.copytree(store._HOME, home, ignore=shutil.ignore_patterns("*.npz", "*.keras"))
    monkeypatch.setattr(store, "_HOME", home)
    for changed in (
        "inference/runtime/from_keras.py",
        "inference/runtime/outline.py",
        "nets/upsample.py",
        "rewrite/field.py",
    ):
        store._reader.cache_clear()
        assert store.load(file) is not None
        content = (home / changed).read_text()
        (home / changed).write_text(f"{content}# another\n")
        store._reader.cache_clear()
        assert store.load(file) is None
        (home / changed).write_text(content)
    store._reader.cache_clear()


def test_the_weights_are_of_the_file_that_was_hashed(cache, tmp_path, monkeypatch):
    """A training replaces the file while it is opened."""
    file, other, net = tmp_path / "net.keras", tmp_path / "other.keras", convnet(2)
    save_model(net, file)
    store.save(file, net)
    before = store.load(file)
    save_model(randomize(net, seed=3), other)
    read = store.program
    monkeypatch.setattr(store, "program", lambda *given: other.replace(file) and read(*given))
    found = store.load(file)
    assert not other.exists()  # it was replaced
    for ours, theirs in zip(found.steps, before.steps, strict=True):
        for name, weight in ours.weights.items():
            np.testing.assert_array_equal(weight, theirs.weights[name])


@pytest.mark.parametrize("error", [RuntimeError, TypeError, AttributeError, MemoryError])
def test_an_outline_that_cannot_be_made_ends_no_training(cache, tmp_path, monkeypatch, error):
    def outline(*given):
        raise error("whatever")

    file, net = tmp_path / "net.keras", convnet(2)
    save_model(net, file)
    monkeypatch.setattr(store, "outline", outline)
    store.save(file, net)
    assert store.load(file) is None and not list(cache.glob("*.json.gz"))


def test_all_that_the_reading_of_a_net_imports_counts_for_its_program():
    counted = {file for name in store._SOURCES for file in store._HOME.glob(name)}
    tree = ast.parse(Path(from_keras.__file__).read_text())
    rooms = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    for room in (name for name in rooms if name.startswith("kfcn.") and name != "kfcn.crf"):
        assert Path(importlib.import_module(room).__file__) in counted, room


def test_few_programs_are_kept_and_a_folder_that_cannot_be_written_is_no_error(
    cache, tmp_path, monkeypatch
):
    net = convnet(2)
    monkeypatch.setattr(store, "KEPT", 2)
    files = [tmp_path / f"{name}.keras" for name in "abc"]
    for seed, file in enumerate(files):
        save_model(randomize(net, seed=seed), file)
        store.save(file, net)
    assert [store.load(file) is not None for file in files] == [False, True, True]
    monkeypatch.setattr(store, "cache_folder", lambda: files[0] / "no folder")
    store.save(files[0], net)
    monkeypatch.undo()
    # A user without a home, as services have, goes without.
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    nobody = Path("~nobody-of-this-name")
    monkeypatch.setattr(Path, "home", lambda: nobody.expanduser())  # which raises
    store.save(files[0], net)
    assert store.load(files[0]) is None


def test_a_net_seen_before_needs_neither_tensorflow_nor_keras(model, cache, tmp_path):
    file = tmp_path / "net.keras"
    save_model(model, file)
    Image.fromarray(picture(40, 51)[0]).save(tmp_path / "in.png")
    arguments = [str(file), str(tmp_path / "in.png"), "--out"]
    assert command.main([*arguments, str(tmp_path / "one")]) == 0
    code = (
        "import sys\n"
        "from kfcn.commands.predict import main\n"
        "done = main(sys.argv[1:])\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
        "sys.exit(done)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, str(tmp_path / "two")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("in.png", "in_overlay.jpg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_steps_without_an_operation_are_refused_when_the_net_is_made():
    from kfcn.inference.runtime.on_litert import LiteRTNet
    from kfcn.inference.runtime.program import Program, Step

    options = {"size": [2, 2], "stride": [1, 1], "dilation": [2, 2], "padding": "valid"}
    with pytest.raises(UnsupportedError, match="holes"):
        LiteRTNet(Program((Step("max_pool", (0,), options, {}),), 3, None), 1)
