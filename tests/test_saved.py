"""Model files: how they are called once they are loaded."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from shipping import picture, tiny_model

from kfcn.saved import load_model, save_model

STRUCTURE = "structure of `inputs`"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file as `save_model` writes it, and as it wrote it when it passed a list of inputs."""
    folder, model = tmp_path_factory.mktemp("files"), tiny_model()
    save_model(model, folder / "one.keras")
    keras.Model(list(model.inputs), model.outputs[0], name=model.name).save(folder / "list.keras")
    return folder


@pytest.mark.parametrize("load", [load_model, keras.models.load_model])
def test_a_loaded_net_is_called_with_a_tensor_and_without_a_warning(files, load):
    image = picture(0, (40, 56))[None].astype("float32")
    expected = np.asarray(tiny_model()(image, training=False))
    found = {}
    for name in ("one", "list"):
        net = load(files / f"{name}.keras")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            np.testing.assert_array_equal(net(image, training=False), expected)
        found[name] = any(STRUCTURE in str(warning.message) for warning in caught)
    # The older file warns, which shows that the newer one would be heard.
    assert found == {"one": False, "list": True}


def test_an_exported_net_is_served_with_a_tensor(files, tmp_path):
    net = load_model(files / "one.keras")  # not called before
    net.export(tmp_path / "exported", verbose=False)
    image = picture(1, (33, 47))[None].astype("float32")
    exported = tf.saved_model.load(str(tmp_path / "exported"))  # functions keep no variables
    served = exported.serve(tf.constant(image))
    np.testing.assert_allclose(served, tiny_model()(image, training=False), atol=1e-4)
