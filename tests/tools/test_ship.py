"""A run folder becomes a pretrained net: files, hashes, card and page."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from kfcn_mobile import gates
from kfcn_tools.ship import FACTS, main, renew, round_kernels, ship
from kfcn_tools.ship_page import draw, page
from PIL import Image
from shipping import settle
from small_nets import TINY

import kfcn
from kfcn import data, pretrained
from kfcn.errors import UsageError, WriteError
from kfcn.files import sha256
from kfcn.inference.runtime.net import open_net
from kfcn.nets.fcn import fcn8s
from kfcn.pretrained import OUTLINE
from kfcn.saved import load_model, save_model

WORDS = {name: f"some {name}" for name in FACTS} | {"measured_on": "drawn scenes"}
SOURCE = data.Source("scenes")


def test_kernels_become_half_precision_numbers_and_vectors_stay():
    net = fcn8s(3, **TINY)
    settle(net)
    before = net.get_weights()
    round_kernels(net)
    changed = 0
    for old, new in zip(before, net.get_weights(), strict=True):
        if old.ndim == 1:
            np.testing.assert_array_equal(old, new)
        else:
            np.testing.assert_array_equal(new, new.astype(np.float16).astype(np.float32))
            np.testing.assert_allclose(new, old, rtol=2.0**-11, atol=2.0**-25)
            changed += np.count_nonzero(old != new)
    assert changed > 1000


def test_a_missing_fact_is_named(tmp_path):
    dataset = data.load("scenes", "val")
    save_model(fcn8s(7, **TINY), tmp_path / "model.keras")
    (tmp_path / "model.json").write_text(json.dumps(_card(dataset)))
    facts = {k: v for k, v in WORDS.items() if k != "terms"}
    with pytest.raises(UsageError, match="facts: terms missing; expected description"):
        ship(tmp_path, tmp_path / "out", (64, 96), dataset, SOURCE, facts)


def test_a_new_net_needs_a_size_and_facts(tmp_path, capsys):
    given = ["run", "mine", "--data", "scenes", "--package", str(tmp_path), "--docs", str(tmp_path)]
    assert main(given) == 2
    assert "a new net needs --size H W and --facts FILE.json" in capsys.readouterr().err


def _card(dataset):
    return {
        "classes": list(dataset.classes.names),
        "palette": [list(colour) for colour in dataset.classes.palette],
        "architecture": "fcn8s",
        "backbone": "mobilenet_v2",
        "parameters": 1,
    }


def test_renewing_leaves_all_as_it_was_or_all_renewed(tmp_path, monkeypatch):
    """A full disk at each of the four files in turn, and none."""
    fresh = {"int8.tflite": b"new int8", "float16.tflite": b"new 16", OUTLINE: b"new outline"}
    old = dict.fromkeys(fresh, b"old") | {"model.json": b'{"tflite": {"size": [8, 9]}}'}

    def convert(folder, size, source, golden):
        for mode in ("int8", "float16"):
            (folder / f"{mode}.tflite").write_bytes(fresh[f"{mode}.tflite"])
        return {"size": list(size)}

    really, written, renamed = shutil.copyfile, [], []

    def copyfile(source, to, **options):
        if Path(to).parent == net:
            written.append(source.name)
            if len(written) == fails_at:
                Path(to).write_bytes(b"ne")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(source, to, **options)

    def replace(path, target):
        renamed.append(target.name)
        return path.rename(target)

    monkeypatch.setattr("kfcn_tools.ship._convert", convert)
    monkeypatch.setattr("kfcn_tools.ship.load_model", lambda folder: None)
    monkeypatch.setattr("kfcn_tools.ship.outline", lambda net, file: fresh[OUTLINE])
    monkeypatch.setattr("shutil.copyfile", copyfile)
    for fails_at in (1, 2, 3, 4):
        net = tmp_path / str(fails_at)
        net.mkdir()
        for name, content in old.items():
            (net / name).write_bytes(content)
        written.clear()
        with pytest.raises(WriteError, match=r"\w could not be written: No space left"):
            renew(net, SOURCE)
        assert {path.name: path.read_bytes() for path in net.iterdir()} == old
    fails_at = 0
    monkeypatch.setattr(Path, "replace", replace)
    renew(net, SOURCE)
    assert {name: (net / name).read_bytes() for name in fresh} == fresh
    assert json.loads((net / "model.json").read_text())["files"].keys() == fresh.keys()
    assert len(list(net.iterdir())) == 4 and renamed[-1] == "model.json"


@pytest.mark.long
def test_a_run_becomes_a_net_that_opens_by_name(tmp_path, monkeypatch):
    # An untrained net changes more labels in 8 bits than the gates allow.
    loose = gates.Limits(0.0, None, 0.0)
    for name, mode in gates.MODES.items():
        monkeypatch.setitem(gates.MODES, name, dataclasses.replace(mode, limits=loose))
    keras.utils.set_random_seed(3)
    dataset, run = data.load("scenes", "val"), tmp_path / "run"
    run.mkdir()
    net = fcn8s(len(dataset.classes), **TINY)
    settle(net)
    save_model(net, run / "model.keras")
    (run / "model.json").write_text(json.dumps(_card(dataset)))
    shelf = tmp_path / "shelf"
    picture = tmp_path / "Drawn.PNG"
    Image.fromarray(dataset[0].image).save(picture)
    out = ship(
        run, shelf / "scenes", (64, 96), dataset, SOURCE, WORDS, golden=2, examples=[picture]
    )
    monkeypatch.setattr(pretrained, "FOLDER", shelf)
    assert pretrained.names() == ["scenes"]
    card = kfcn.pretrained.card("scenes")
    files = {"model.keras", OUTLINE, "int8.tflite", "float16.tflite", "example_1.png"}
    assert set(card["files"]) == files
    assert open_net("scenes")[0].name == "litert"
    assert all(pretrained.path("scenes", file).is_file() for file in card["files"])
    kernels = [w for w in load_model(out).get_weights() if w.ndim > 1]
    assert all((k == k.astype(np.float16)).all() for k in kernels)
    assert 0 <= card["labels_changed_by_rounding"] < 0.05
    text = page("scenes", card)
    for part in ("some terms", "| `int8.tflite` |", "disc", "kfcn-predict scenes photo.jpg"):
        assert part in text
    assert "](scenes_example_1.png)" in text and "| of the twin |" not in text
    twin = page("scenes", card | {"unseen_class_iou": dict.fromkeys(card["classes"], 0.125)})
    assert twin.count("| 12.5 |") == len(card["classes"])
    draw("scenes", out, tmp_path)
    both = np.asarray(Image.open(tmp_path / "scenes_example_1.png"))
    image = dataset[0].image
    np.testing.assert_array_equal(both[:, : image.shape[1]], image)
    assert both.shape[1] == 2 * image.shape[1]
    with pytest.raises(UsageError, match="exists already"):
        ship(run, out, (64, 96), dataset, SOURCE, WORDS)
    # Its `.tflite` files can be made anew, from itself.
    for name in ("int8.tflite", "float16.tflite"):
        (out / name).write_bytes(b"older")
    weights, before = load_model(out).get_weights(), (out / "model.keras").read_bytes()
    renew(out, SOURCE, golden=3)
    renewed = json.loads((out / "model.json").read_text())
    assert renewed["files"] == {path: sha256(out / path) for path in card["files"]}
    assert renewed["tflite"]["golden_images"] == 3 and card["tflite"]["golden_images"] == 2
    assert {name for name in card if renewed[name] != card[name]} <= {"tflite", "files"}
    assert (out / "model.keras").read_bytes() == before
    assert all(map(np.array_equal, weights, load_model(out).get_weights()))
