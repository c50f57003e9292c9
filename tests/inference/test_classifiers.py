"""Classifiers by file, by name and from the package, and their classes by name."""

import keras
import numpy as np
import pytest

import kfcn
from kfcn.errors import KfcnError, UsageError
from kfcn.inference import class_heatmaps, classifiers

LABELS = ("tabby", "tiger cat", "Persian_cat", "dog")


@pytest.mark.parametrize(
    ("text", "index"), [("tabby", 0), ("TIGER_CAT", 1), ("persian", 2), ("3", 3), ("0", 0)]
)
def test_classes_by_name_and_index(text, index):
    assert classifiers.choose_class(LABELS, text, 4) == index


@pytest.mark.parametrize(
    ("labels", "text", "message"),
    [
        (LABELS, "cat", r"fits 2 classes: tiger cat \(1\), Persian_cat \(2\)"),
        (LABELS, "tabbi", "no class is named 'tabbi'; close: tabby"),
        (LABELS, "4", r"classes 0\.\.3, received 4"),
        (None, "tabby", "--labels FILE"),
    ],
)
def test_classes_that_cannot_be_meant(labels, text, message):
    with pytest.raises(UsageError, match=message):
        classifiers.choose_class(labels, text, 4)


def test_an_application_without_a_network(monkeypatch, tmp_path):
    """The error says how to go on; nothing is fetched in this test."""

    def no_network(*args, **kwargs):
        raise Exception("URL fetch failure on https://example.org/weights.h5: None -- refused")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    with pytest.raises(KfcnError, match=r"cannot download.*--weights PATH") as caught:
        classifiers.open_classifier("mobilenet_v2")
    assert "\n" not in str(caught.value)


def test_an_application_with_weights_from_a_file(monkeypatch, tmp_path):
    small = keras.applications.MobileNetV2(weights=None)
    small.save_weights(tmp_path / "mine.weights.h5")

    def no_network(*args, **kwargs):
        raise Exception("refused")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    monkeypatch.setattr("keras.src.applications.imagenet_utils.CLASS_INDEX", None)
    found = classifiers.open_classifier("mobilenet-v2", weights=tmp_path / "mine.weights.h5")
    assert found.model.output_shape == (None, 1000)
    assert found.labels[281] == "tabby"
    np.testing.assert_array_equal(
        found.model.get_layer("Conv1").get_weights()[0], small.get_layer("Conv1").get_weights()[0]
    )
    pixels = np.full((2, 2, 3), 255, np.uint8)
    np.testing.assert_allclose(found.preprocess(pixels), 1.0)  # MobileNetV2's own: -1..1
    assert pixels.dtype == np.uint8


def test_the_shipped_classifier_opens_by_name_without_a_network():
    found = classifiers.open_classifier("efficientnet-lite0")
    assert found.model.output_shape == (None, 1000) and found.raw
    assert classifiers.choose_class(found.labels, "tabby", 1000) == 281
    assert classifiers.holds_normalization(found.model)
    with pytest.raises(UsageError, match="comes with its weights, received --weights x"):
        classifiers.open_classifier("EfficientNetLite0", weights="x")


@pytest.mark.parametrize("name", ["vgg16", "ResNet50V2", "mobilenet_v3_large", "convnext-tiny"])
def test_applications_are_found_whatever_the_case(name):
    function, preprocess = classifiers._application(name)
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    assert function.__name__.lower() == plain
    image = np.full((1, 1, 3), 255.0, np.float32)
    expected = {
        "vgg16": [151.061, 138.221, 131.32],  # BGR, ImageNet's mean removed
        "resnet50v2": [1, 1, 1],
        "mobilenetv3large": [255, 255, 255],  # normalised inside
        "convnexttiny": [255, 255, 255],
    }[plain]
    np.testing.assert_allclose(preprocess(image.copy())[0, 0], expected, atol=1e-3)


def test_pretrained_nets_are_classifiers_by_name():
    found = classifiers.open_classifier("voc_animals")
    assert found.labels == tuple(kfcn.pretrained.card("voc_animals")["classes"])
    assert found.raw and found.size is None
    assert class_heatmaps.classifier_size(found.model) == (1, 1)


def test_weights_that_are_not_finite_are_told(tmp_path):
    """Every share of a class would be NaN."""
    image = keras.Input((8, 8, 3))
    layer = keras.layers.Dense(2)
    net = keras.Model(image, layer(keras.layers.GlobalAveragePooling2D()(image)))
    layer.set_weights([np.full((3, 2), np.inf), np.zeros(2)])
    net.save(tmp_path / "net.keras")
    with pytest.raises(KfcnError, match=r"net\.keras: its weight .* contains NaN or inf"):
        classifiers.open_classifier(tmp_path / "net.keras")
