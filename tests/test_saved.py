"""Model files: how they are called once they are loaded."""

import re
import warnings
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import small_disk
from shipping import picture, tiny_model

from kfcn.commands import predict
from kfcn.errors import KfcnError, WriteError
from kfcn.saved import _NEWER, _without_newer, load_model, save_model

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


def test_an_older_keras_reads_what_a_newer_one_wrote(tmp_path):
    """Arguments that it does not know stand in a file only where they say something."""
    net = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(2, 1),
            keras.layers.BatchNormalization(),
        ]
    )
    net = keras.Model(net.inputs, net.outputs)
    save_model(net, tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        text = archive.read("config.json").decode()
    assert not [name for name in _NEWER if name in text]
    configs = [
        [layer.get_config() for layer in n.layers]
        for n in (net, load_model(tmp_path / "net.keras"))
    ]
    assert configs[0] == configs[1]
    said = {"layers": [{"config": {"renorm": True, "renorm_momentum": 0.9, "momentum": 0.9}}]}
    assert _without_newer(said) == said


def test_a_file_that_is_no_archive_is_not_called_missing(tmp_path):
    (tmp_path / "net.keras").write_bytes(b"PK, once")
    with pytest.raises(KfcnError, match=r"net\.keras does not load as a Keras .*: expected a zip"):
        load_model(tmp_path / "net.keras")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("holiday.JPG", "is a picture; expected a Keras model file (.keras or .h5): MODEL comes "
         "before the pictures"),
        ("int8.tflite", "is not a Keras model file; expected one that ends in .keras or .h5"),
        ("notes", "is not a Keras model file; expected one that ends in .keras or .h5"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_model_is_one_short_line(tmp_path, capsys, name, told):
    file = tmp_path / name
    file.write_bytes(b"whatever it holds")
    with pytest.raises(KfcnError) as caught:
        load_model(file)
    assert str(caught.value) == f"{file} {told}"
    assert predict.main([str(file), str(file), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"kfcn-predict: error: {file} {told}\n"


def test_a_file_that_another_keras_wrote_and_this_one_refuses_names_both(tmp_path):
    save_model(tiny_model(), tmp_path / "net.keras")
    with (
        zipfile.ZipFile(tmp_path / "net.keras") as source,
        zipfile.ZipFile(tmp_path / "newer.keras", "w") as archive,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                content = content.replace(b'"ReLU"', b'"ReLU9"')
            if name == "metadata.json":
                content = b'{"keras_version": "9.1.0"}'
            archive.writestr(name, content)
    versions = rf"written by Keras 9\.1\.0; this is Keras {re.escape(keras.__version__)}"
    with pytest.raises(KfcnError, match=versions):
        load_model(tmp_path / "newer.keras")


@pytest.fixture
def little_memory(monkeypatch):
    """Keras as it is where a model takes more than half of the free memory; its HDF5 files."""
    from keras.src.saving import saving_lib

    beside, original = [], saving_lib.tempfile.NamedTemporaryFile

    def noted(*args, **options):
        file = original(*args, **options)
        beside.append(file.name)
        return file

    monkeypatch.setattr(saving_lib, "is_memory_sufficient", lambda model: False)
    monkeypatch.setattr(saving_lib.tempfile, "NamedTemporaryFile", noted)
    return beside


def test_no_hdf5_file_is_written_where_memory_is_short(little_memory, tmp_path):
    """HDF5 that meets a full disk takes the process down, and no error can be caught."""
    save_model(tiny_model(), tmp_path / "a.keras")
    assert not little_memory
    tiny_model().save(tmp_path / "b.keras")  # the control: Keras by itself writes one
    assert len(little_memory) == 1 and str(tmp_path) in little_memory[0]
    ours, theirs = (load_model(tmp_path / name).get_weights() for name in ("a.keras", "b.keras"))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", ["4k", "16k", "48k"])
def test_a_model_on_a_full_disk_is_one_line_and_the_old_one_stays(little_memory, tmp_path, size):
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(1024, 3)])
    with small_disk(tmp_path / "small", size) as small:
        (small / "model.keras").write_text("old")
        with pytest.raises(WriteError) as caught:
            save_model(model, small / "model.keras")
        assert str(caught.value) == (
            f"{small}/model.keras could not be written: No space left on device; free some space"
        )
        assert [path.name for path in small.iterdir()] == ["model.keras"]
        assert (small / "model.keras").read_text() == "old"
