"""Nets that ship with kfcn are served by their names."""

import hashlib
import json
import re
import shutil

import pytest
from kfcn_mobile.bundle import BundleError
from kfcn_mobile.site import make_site, read_net
from kfcn_tools import serve as serve_shipped
from shipping import CLASSES, PALETTE, SIZE, tiny_bundle


@pytest.fixture
def shelf(tmp_path):
    """The folder of a net as it ships with kfcn."""
    folder = tmp_path / "shelf" / "pets"
    folder.mkdir(parents=True)
    for mode in ("int8", "float16"):
        source = tiny_bundle() / f"{'int8' if mode == 'int8' else 'float32'}.tflite"
        shutil.copy(source, folder / f"{mode}.tflite")
    (folder / "example.png").write_bytes((tiny_bundle() / "golden/0001_image.png").read_bytes())
    (folder / "model.keras").write_bytes(b"large")
    card = {
        "classes": CLASSES,
        "palette": PALETTE,
        "description": "A net for tests",
        "trained_on": "three pictures",
        "tflite": {"size": list(SIZE)},
        "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()},
    }
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def test_a_net_that_ships_is_served_with_its_example(shelf, bundle, litert):
    site = make_site([read_net(shelf), read_net(bundle), read_net(shelf)], print)
    nets = json.loads(site["nets.json"])["nets"]
    assert [net["name"] for net in nets] == ["shelf/pets", "my net", "shelf/pets"]
    assert nets[0]["about"] == "A net for tests. Trained on three pictures."
    assert [model["mode"] for model in nets[0]["models"]] == ["float16", "int8"]
    (example,) = nets[0]["examples"]
    assert re.fullmatch(r"nets/shelf-pets/example-0-[0-9a-f]{12}\.png", example)
    assert nets[2]["models"][0]["file"].startswith("nets/shelf-pets-2/float16-")
    assert not any("keras" in address or "model.json" in address for address in site)


def spoil(folder, change):
    card = json.loads((folder / "model.json").read_text())
    change(card)
    (folder / "model.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda card: card["files"].update({"int8.tflite": "0"}), "int8.tflite: changed since"),
        (lambda card: card.pop("tflite"), "its model.json names no .tflite files"),
        (lambda card: card.update(files=[1]), "its model.json names no .tflite files"),
        (lambda card: card.update(classes="abc"), "model.json: classes: expected a list"),
        (lambda card: card["tflite"].update(size=[0, 1]), "model.json: size: expected two whole"),
    ],
)
def test_a_card_that_is_wrong_is_one_line(shelf, change, expected):
    spoil(shelf, change)
    with pytest.raises(BundleError) as raised:
        read_net(shelf)
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_without_an_argument_the_nets_that_ship_are_served(shelf, litert, monkeypatch, tmp_path):
    from kfcn import pretrained

    monkeypatch.setattr(pretrained, "FOLDER", shelf.parent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()  # of pictures, say: it is no net
    assert "folder that kfcn-convert wrote, or one of pets; default: those" in " ".join(
        serve_shipped.parser().format_help().split()
    )
    for i, names in enumerate([[], ["pets"], [str(shelf)]]):
        out = tmp_path / f"out{i}"
        assert serve_shipped.main([*names, "--write", str(out)]) == 0
        assert list(out.glob("nets/pets/int8-*.tflite"))


def test_an_unknown_name_is_one_line(shelf, monkeypatch, capsys):
    from kfcn import pretrained

    monkeypatch.setattr(pretrained, "FOLDER", shelf.parent)
    assert serve_shipped.main(["cats"]) == 2
    assert "cats: no such folder; expected one of: a folder that kfcn-convert wrote, pets" in (
        capsys.readouterr().err
    )
