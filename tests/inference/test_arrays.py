"""`kfcn.segment`: an array in, an array out, and a net that is opened once."""

import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from small_nets import save_colour_run

import kfcn
from kfcn.errors import KfcnError, UsageError
from kfcn.inference import arrays

PALETTE = {"background": (0, 0, 0), "red": (255, 0, 0), "green": (0, 255, 0)}
LABELS = np.array([[0, 1, 2, 1], [2, 2, 0, 0], [1, 0, 1, 2]], np.uint8).repeat(5, 0).repeat(6, 1)
IMAGE = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0)], np.uint8)[LABELS]


@pytest.fixture
def run(tmp_path):
    save_colour_run(tmp_path, PALETTE)
    return tmp_path


@pytest.fixture
def opened(monkeypatch):
    """The models that were opened."""
    found = []

    def open_net(model):
        found.append(model)
        return genuine(model)

    genuine = arrays.open_net
    monkeypatch.setattr(arrays, "open_net", open_net)
    arrays._opened.cache_clear()
    return found


def test_a_run_a_file_and_a_model_give_the_labels(run):
    for model in (run, str(run), run / "model.keras", keras.saving.load_model(run / "model.keras")):
        found = kfcn.segment(model, IMAGE)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, LABELS)
    mirrored = kfcn.segment(run, IMAGE[:, ::-1])  # a view that runs backwards
    np.testing.assert_array_equal(mirrored, LABELS[:, ::-1])


def test_a_sequential_gives_its_labels():
    keras.utils.set_random_seed(0)
    layer = keras.layers.Conv2D(3, 3, padding="same")
    net = keras.Sequential([keras.Input((None, None, 3)), layer])
    expected = np.asarray(net(IMAGE[None].astype("float32"))).argmax(-1)[0]
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(kfcn.segment(net, IMAGE), expected)


def test_a_net_is_opened_again_only_when_its_file_has_changed(run, opened, monkeypatch):
    for _ in range(3):
        kfcn.segment(run, IMAGE)
    assert opened == [str(run)]
    other = run / "other"
    other.mkdir()
    # Another net in its place: red and green have changed their indices.
    save_colour_run(other, PALETTE, np.eye(3)[:, [2, 1, 0]])
    shutil.copy(other / "model.keras", run / "model.keras")
    os.utime(run / "model.keras", ns=(1, 1))
    np.testing.assert_array_equal(kfcn.segment(run, IMAGE), np.array([0, 2, 1])[LABELS])
    assert opened == [str(run)] * 2
    # The same relative path from another folder is another file.
    for folder in (run, other):
        monkeypatch.chdir(folder)
        kfcn.segment("model.keras", IMAGE)
    assert opened[2:] == ["model.keras"] * 2


def test_few_nets_stay_open(run, opened):
    for number in range(6):
        (run / str(number)).mkdir()
        save_colour_run(run / str(number), PALETTE)
        kfcn.segment(run / str(number), IMAGE)
    assert arrays._opened.cache_info().currsize == 4
    kfcn.segment(run / "5", IMAGE)
    assert len(opened) == 6


def test_weights_of_a_model_are_those_of_the_call(run):
    model = keras.saving.load_model(run / "model.keras")
    kfcn.segment(model, IMAGE)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel[..., [0, 2, 1]], bias])
    np.testing.assert_array_equal(kfcn.segment(model, IMAGE), np.array([0, 2, 1])[LABELS])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (IMAGE / 255, r"float64 \(15, 24, 3\)"),
        (IMAGE[None], r"uint8 \(1, 15, 24, 3\)"),
        (LABELS, r"uint8 \(15, 24\)"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \(0, 4, 3\)"),
    ],
)
def test_other_arrays_are_refused(run, image, said):
    with pytest.raises(UsageError, match=rf"received an image of {said}; expected uint8"):
        kfcn.segment(run, image)


def test_other_models_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        kfcn.segment(tmp_path / "model.keras", IMAGE)
    image = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    with pytest.raises(KfcnError, match=r"the model .* expected a single map of logits"):
        kfcn.segment(keras.Model(image, pooled), IMAGE)


@pytest.mark.slow
def test_a_shipped_net_needs_neither_tensorflow_nor_keras():
    code = (
        "import sys, kfcn, numpy as np\n"
        "labels = kfcn.segment('voc_animals', np.full((40, 50, 3), 128, np.uint8))\n"
        "assert labels.shape == (40, 50) and not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
