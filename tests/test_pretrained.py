"""Nets by name: a tiny one in the place of those that ship, and the hashes of those that do."""

import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image
from small_nets import TINY

import kfcn
from kfcn import pretrained
from kfcn.cards import read_card
from kfcn.commands import predict
from kfcn.data.sets import nyudv2
from kfcn.errors import KfcnError, UsageError
from kfcn.files import sha256
from kfcn.inference.runtime import store
from kfcn.inference.runtime.from_keras import program_of
from kfcn.nets.fcn import fcn8s
from kfcn.saved import _NEWER, load_model, model_path, save_model


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of pretrained nets with one, `tiny`."""
    keras.utils.set_random_seed(0)
    folder = tmp_path / "shelf" / "tiny"
    folder.mkdir(parents=True)
    save_model(fcn8s(3, **TINY), folder / "model.keras")
    (folder / "int8.tflite").write_bytes(b"not looked into")
    files = {name: sha256(folder / name) for name in ("model.keras", "int8.tflite")}
    card = {
        "classes": ["background", "cat", "dog"],
        "palette": [[0, 0, 0], [64, 0, 0], [64, 0, 128]],
        "description": "a net for tests",
        "trained_on": "nothing",
        "files": files,
    }
    (folder / "model.json").write_text(json.dumps(card))
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shelf")
    return folder


def test_a_net_opens_by_name_wherever_a_model_is_named(shelf):
    assert kfcn.pretrained.names() == ["tiny"]
    assert model_path("tiny") == pretrained.path("tiny") == shelf / "model.keras"
    assert read_card("tiny")["classes"] == ["background", "cat", "dog"]
    image = np.random.default_rng(0).uniform(0, 255, (1, 33, 47, 3)).astype("float32")
    by_name, by_file = pretrained.load("tiny"), load_model(shelf)
    np.testing.assert_array_equal(by_name(image), by_file(image))
    assert pretrained.summary("tiny") == (
        "tiny: a net for tests. Knows cat, dog. Trained on nothing."
    )


def test_a_folder_of_that_name_goes_first(shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    save_model(fcn8s(3, **TINY), tmp_path / "tiny" / "model.keras")
    assert model_path("tiny").resolve() == tmp_path / "tiny" / "model.keras"


def test_a_folder_of_results_does_not_hide_the_net_of_its_name(shelf, tmp_path, monkeypatch):
    """`kfcn-predict tiny a.png --out tiny` worked once, and never again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "a.png").write_bytes(b"a result")
    assert model_path("tiny").parent == shelf


def test_predict_says_first_what_the_net_knows(shelf, tmp_path, capsys):
    picture = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    arguments = [str(tmp_path / "picture.png"), "--out", str(tmp_path / "out")]
    assert predict.main(["tiny", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[0] == pretrained.summary("tiny")
    assert predict.main([str(shelf), *arguments]) == 0  # a folder, not a name
    assert "Knows" not in capsys.readouterr().out


def test_an_unknown_name_lists_what_ships(shelf):
    with pytest.raises(UsageError, match=r"no pretrained net 'tinny'; expected one of: tiny"):
        pretrained.load("tinny")
    with pytest.raises(UsageError, match=r"tinny: no such file; .* pretrained net \(tiny\)"):
        model_path("tinny")
    with pytest.raises(UsageError, match=r"tiny has no int4\.tflite; expected one of: model"):
        pretrained.path("tiny", "int4.tflite")


def test_a_damaged_file_is_recognised_by_its_hash(shelf):
    content = bytearray((shelf / "model.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (shelf / "model.keras").write_bytes(content)
    with pytest.raises(KfcnError, match=r"missing or damaged .* install kfcn again"):
        pretrained.load("tiny")
    assert pretrained.path("tiny", "int8.tflite").is_file()


@pytest.mark.parametrize("name", pretrained.names())
def test_shipped_files_are_those_of_their_cards(name):
    card = pretrained.card(name)
    expected = {"model.keras", pretrained.OUTLINE, "int8.tflite", "float16.tflite"}
    assert expected <= card["files"].keys()
    for file in card["files"]:
        assert pretrained.path(name, file).is_file()
    net = pretrained.load(name)
    assert net.outputs[0].shape[-1] == len(card["classes"]) == len(card["palette"])
    for key in ("description", "trained_on", "terms", "does_not_know", "metrics", "command"):
        assert card[key], key


@pytest.mark.parametrize("name", pretrained.names())
def test_shipped_outlines_are_what_is_read_today(name):
    """Or a net would be another one from its second opening on than from its layers."""
    shipped, read = store.load(name), program_of(pretrained.load(name))
    assert shipped is not None and shipped[1:] == read[1:]
    for ours, theirs in zip(shipped.steps, read.steps, strict=True):
        assert ours[:3] == theirs[:3]
        assert ours.weights.keys() == theirs.weights.keys()
        for weight in ours.weights:
            np.testing.assert_array_equal(ours.weights[weight], theirs.weights[weight])


@pytest.mark.parametrize("name", pretrained.names())
def test_a_shipped_net_needs_neither_tensorflow_nor_keras(name, tmp_path):
    """Not even for its first picture: nothing is kept yet in the user's cache."""
    picture = np.random.default_rng(0).integers(0, 256, (40, 51, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "in.png")
    code = (
        "import sys\n"
        "from kfcn.commands.predict import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code, name, tmp_path / "in.png", "--out", tmp_path / "out"],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        check=True,
    )
    assert (tmp_path / "out" / "in.png").is_file() and not (tmp_path / "cache").exists()


def test_the_net_of_rooms_has_the_classes_of_the_data_set():
    """As the reader spells them, or `kfcn-evaluate nyudv2 --data nyudv2` would be refused."""
    assert tuple(pretrained.card("nyudv2")["classes"]) == nyudv2.NAMES


@pytest.mark.parametrize("name", pretrained.names())
def test_shipped_nets_are_read_by_older_keras(name):
    with zipfile.ZipFile(pretrained.path(name)) as archive:
        text = archive.read("config.json").decode()
    assert "BatchNormalization" in text
    assert not [argument for argument in _NEWER if argument in text]


def test_names_are_read_without_tensorflow():
    code = "import sys, kfcn; kfcn.pretrained.names(); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
