"""The mean of nets: by value, with a card of its own, and only of nets that have one."""

import json
import shlex

import keras
import numpy as np
import pytest
from kfcn_tools.average import average, main
from small_nets import TINY, randomize, save_colour_run

from kfcn.cards import read_card
from kfcn.commands import evaluate
from kfcn.data import load
from kfcn.errors import UsageError
from kfcn.files import sha256
from kfcn.nets.fcn import fcn8s, fcn32s
from kfcn.saved import load_model, save_model

RED_AND_BLUE = {"background": (0, 0, 0), "red": (255, 0, 0), "blue": (0, 0, 255)}


@pytest.fixture
def runs(tmp_path):
    """Three runs of one net, whose cards have what a finished run's have."""
    folders = []
    for number, kernel in enumerate((np.eye(3), 3 * np.eye(3), np.full((3, 3), 4.0))):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        save_colour_run(folder, RED_AND_BLUE, kernel, bias=(number, 2 * number, 6))
        card = json.loads((folder / "model.json").read_text())
        told = {"epoch": 3, "metrics": {"mean_iou": 0.5}, "backbone": "none"}
        (folder / "model.json").write_text(json.dumps(card | told))
        folders.append(folder)
    return folders


def test_every_weight_is_the_mean_and_the_card_says_of_what(runs, tmp_path):
    out = average(runs, tmp_path / "mean")
    kernel, bias = load_model(out).get_weights()
    np.testing.assert_allclose(kernel[0, 0], (4 * np.eye(3) + 4.0) / 3, rtol=1e-6)
    np.testing.assert_allclose(bias, [1, 2, 6], rtol=1e-6)
    card = read_card(out)
    assert card["average_of"] == [sha256(run / "model.keras") for run in runs]
    assert card["sha256"] == sha256(out / "model.keras")
    assert card["classes"] == list(RED_AND_BLUE)
    assert not {"epoch", "metrics"} & set(card)  # they were another net's


def test_layers_of_one_name_in_nested_models_are_averaged_each_for_itself(tmp_path):
    """Their weights have one path: that of the layer inside the model that it lies in."""
    for number in (0, 1):
        inside, image = keras.Input((None, None, 3)), keras.Input((None, None, 3))
        body = keras.Model(inside, keras.layers.Conv2D(3, 1, name="score")(inside), name="body")
        net = keras.Model(image, keras.layers.Conv2D(3, 1, name="score")(body(image)))
        net.set_weights([np.full(w.shape, float(number)) for w in net.weights])
        net.save(tmp_path / f"{number}.keras")
    assert len({weight.path for weight in net.weights}) < len(net.weights)
    out = average([tmp_path / "0.keras", tmp_path / "1.keras"], tmp_path / "mean")
    for weight in load_model(out).get_weights():
        np.testing.assert_array_equal(weight, 0.5)


def test_moving_statistics_are_averaged_with_the_weights(tmp_path):
    nets = [randomize(fcn8s(3, **TINY), seed) for seed in (0, 1)]
    for number, net in enumerate(nets):
        for layer in net.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_variance.assign(layer.moving_variance + number)
        save_model(net, tmp_path / f"{number}.keras")
    average([tmp_path / "0.keras", tmp_path / "1.keras"], tmp_path / "mean")
    got = load_model(tmp_path / "mean").get_weights()
    assert not (tmp_path / "mean/model.json").exists()  # neither had a card
    moved = 0
    for mean, one, other in zip(got, *(net.get_weights() for net in nets), strict=True):
        np.testing.assert_allclose(mean, (one + other) / 2, atol=1e-6)
        moved += np.abs(one - other).max() > 0.5
    assert moved > 50


def test_what_has_no_mean_is_refused_by_name(runs, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    save_colour_run(other, {"background": (0, 0, 0), "car": (9, 9, 9), "blue": (0, 0, 255)})
    for models, told in (
        (runs[:1], "received 1 net; expected two or more"),
        ([runs[0], runs[0]], "received the same net twice"),
        ([runs[0], other], "other: backbone, classes differ from those of"),
        ([runs[0], tmp_path / "none"], "none: no such file"),
    ):
        with pytest.raises(UsageError, match=told):
            average(models, tmp_path / "mean")
    save_model(fcn8s(3, **TINY), tmp_path / "8.keras")
    save_model(fcn32s(3, **TINY), tmp_path / "32.keras")
    with pytest.raises(UsageError, match=r"32\.keras: weights of other shapes than .*8\.keras"):
        average([tmp_path / "8.keras", tmp_path / "32.keras"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_the_command_makes_a_new_folder_and_no_other(runs, tmp_path, capsys):
    given = [str(run) for run in runs] + ["--out", str(tmp_path / "mean")]
    assert main(given) == 0
    assert "the mean of 3 nets" in capsys.readouterr().out
    before = sha256(tmp_path / "mean/model.keras")
    assert main(given) == 2
    assert "mean: exists already; name a new folder" in capsys.readouterr().err
    assert sha256(tmp_path / "mean/model.keras") == before


def test_the_advised_command_measures_the_mean(tmp_path, capsys):
    """A mean has no run's `config.json`; its card says what the nets were validated on."""
    classes = load("scenes", "val").classes
    palette = dict(zip(classes.names, classes.palette, strict=True))
    for number in (0, 1):
        run = tmp_path / f"my run{number}"
        run.mkdir()
        save_colour_run(run, palette, np.full((3, 7), number), bias=range(7))
        card = json.loads((run / "model.json").read_text())
        card |= {"data": "scenes", "split": "val[0/50]"}
        (run / "model.json").write_text(json.dumps(card))
    runs = [str(tmp_path / "my run0"), str(tmp_path / "my run1")]
    assert main([*runs, "--out", str(tmp_path / "the mean")]) == 0
    command = shlex.split(capsys.readouterr().out.partition("measure ")[2])
    assert command == ["kfcn-evaluate", str(tmp_path / "the mean")]
    assert evaluate.main(command[1:]) == 0
    assert "on scenes/val[0/50], 2 images" in capsys.readouterr().out


def test_the_advised_command_names_the_folder_of_the_first_run(runs, tmp_path, capsys):
    settings = {"data": "folder", "data_dir": "my data", "seed": 4, "classes": None}
    config = {"settings": settings | {"val_split": "val"}, "data": {"val": "0" * 64}}
    (runs[0] / "config.json").write_text(json.dumps(config))
    assert main([str(run) for run in runs] + ["--out", str(tmp_path / "mean")]) == 0
    told = capsys.readouterr().out
    assert f"kfcn-evaluate {tmp_path / 'mean'} --data-dir 'my data'\n" in told
