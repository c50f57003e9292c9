import csv
import json
import shutil
import signal

import keras
import numpy as np
import pytest
from PIL import Image
from processes import signalled
from small_nets import PLAIN, settings

from kfcn import data as data_sets
from kfcn import evaluate, predict, train
from kfcn.errors import DataError, KfcnError, Stopped, UsageError
from kfcn.metrics import NAMES
from kfcn.training import checkpoint, trainer
from kfcn.training.recorder import DRAWINGS, is_drawn


def test_run_folder_is_complete(run, pairs):
    names = {p.name for p in run.run_dir.iterdir()}
    assert names == {
        "config.json", "model.keras", "model.json", "checkpoints", "history.csv", "curves.png",
        "overlays.png", "tensorboard",
    }  # fmt: skip
    config = json.loads((run.run_dir / "config.json").read_text())
    assert config["settings"]["crop"] == [32, 40]
    assert config["settings"]["data_dir"] == str(pairs)
    assert config["versions"]["keras"] == keras.__version__
    assert config["machine"]["cpu"] and config["machine"]["cores"] >= 1
    assert isinstance(config["machine"]["gpus"], list)
    with (run.run_dir / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    with Image.open(run.overlays) as picture:
        assert picture.height > 4 * 40  # four validation images
    assert list((run.run_dir / "tensorboard").glob("events*"))


def test_a_run_of_many_short_epochs_is_drawn_now_and_then():
    def drawn(epochs):
        return [epoch for epoch in range(1, epochs + 1) if is_drawn(epoch, epochs)]

    assert drawn(3) == [1, 2, 3]
    assert drawn(DRAWINGS) == list(range(1, DRAWINGS + 1))
    assert drawn(125) == [1, *range(3, 125, 3), 125]
    assert len(drawn(10_000)) == DRAWINGS + 1


def test_card_holds_classes_and_metrics(run):
    card = json.loads((run.run_dir / "model.json").read_text())
    assert card["classes"] == ["ground", "square", "disc"]
    assert card["palette"] == [[128, 128, 128], [255, 0, 0], [0, 255, 0]]
    assert set(NAMES) <= set(card["metrics"])
    assert card["split"] == "val"
    assert card["metrics"]["class_iou"].keys() == {"ground", "square", "disc"}
    assert card["metrics"]["mean_iou"] == run.evaluation.scores["mean_iou"]


def test_best_net_is_kept(run, pairs):
    with (run.run_dir / "history.csv").open() as file:
        best = max(float(row["val_mean_iou"]) for row in csv.DictReader(file))
    result = evaluate(run.run_dir, "folder", "val", pairs)
    assert result.scores["mean_iou"] == pytest.approx(best, abs=1e-6)
    assert result.matrix.sum() == sum(
        (s.labels != 255).sum() for s in data_sets.load("folder", "val", pairs)
    )


def test_history_agrees_with_an_independent_count(run, pairs):
    """Loss and metrics of the kept net, image by image in plain NumPy."""
    model = keras.saving.load_model(run.model)
    total = count = right = 0.0
    for sample in data_sets.load("folder", "val", pairs):
        logits = np.asarray(model(sample.image[None].astype("float32")))[0].astype(np.float64)
        valid = sample.labels != 255
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        total -= np.log(p[valid, sample.labels[valid]]).sum()
        right += (logits.argmax(-1) == sample.labels)[valid].sum()
        count += valid.sum()
    assert run.evaluation.cross_entropy == pytest.approx(total / count, rel=1e-4)
    assert run.evaluation.scores["pixel_accuracy"] == pytest.approx(right / count, abs=1e-3)


@pytest.mark.slow
def test_stopped_run_ends_with_the_same_bits(run, pairs, tmp_path):
    """Ctrl-C in the second epoch, and started again with nothing but its folder."""
    from kfcn.training.loop import Loop

    with (
        signalled(Loop, "one_step", signal.SIGINT, lambda loop: loop.progress.step == 4),
        pytest.raises(Stopped, match="the same command continues from there") as caught,
    ):
        train(tmp_path / "run", **settings(pairs))
    assert caught.value.code == 130
    train(tmp_path / "run", verbose=False)
    assert (tmp_path / "run" / "model.keras").exists()
    a, b = (
        np.load(folder / "checkpoints" / "step-00000009.npz")
        for folder in (run.run_dir, tmp_path / "run")
    )
    keys = [k for k in a.files if k != "note"]
    assert len(keys) > 200
    assert all(np.array_equal(a[k], b[k]) for k in keys)
    first = np.load(tmp_path / "run" / "checkpoints" / "step-00000006.npz")
    assert not all(np.array_equal(first[k], b[k]) for k in keys)


def test_without_a_sound_checkpoint_nothing_is_guessed(tmp_path):
    for step in (3, 6):
        (tmp_path / f"step-{step:08d}.npz").write_bytes(b"")
    said = []
    with pytest.raises(KfcnError, match="none of the 2 checkpoints"):
        checkpoint.restore(tmp_path, [], warn=said.append)
    assert len(said) == 2


@pytest.mark.slow
def test_finished_run_is_told_again_without_training(run, monkeypatch, capsys):
    """The training pictures are not even read, and nothing is written."""
    monkeypatch.setattr("kfcn.training.loop.Loop.one_step", None)
    monkeypatch.setattr("kfcn.training.trainer.before_training", None)
    before = {file: file.stat().st_mtime_ns for file in run.run_dir.rglob("*")}
    again = train(run.run_dir)
    assert again.evaluation.scores == run.evaluation.scores
    assert {file: file.stat().st_mtime_ns for file in run.run_dir.rglob("*")} == before
    assert capsys.readouterr().out.splitlines() == [
        f"{run.run_dir} is finished, 3 epochs; to train further, start another run from its net: "
        f"--init-from {run.run_dir} --run-dir ANOTHER"
    ]


def test_what_a_run_starts_from_is_looked_for_before_the_data(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("kfcn.training.trainer._opened", None)
    with pytest.raises(UsageError, match=r"^voc_animls: no such file; expected .* pretrained net"):
        train(tmp_path / "run", **settings(pairs), init_from="voc_animls")
    for name in ("imagenett", "gone.h5", "gone.keras"):
        told = rf"^--weights {name}: no such file; expected imagenet, none or a path$"
        with pytest.raises(UsageError, match=told):
            train(tmp_path / "run", **settings(pairs) | {"weights": name})
    (tmp_path / "lite.h5").write_bytes(b"")
    lite = {"weights": str(tmp_path / "lite.h5"), "backbone": "efficientnet_lite0", "alpha": None}
    with pytest.raises(KfcnError, match=r"expected imagenet, or a \.keras or \.npz file of eff"):
        train(tmp_path / "run", **settings(pairs) | lite)


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and holds no run"):
        train(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_bad_pair_stops_before_training(pairs, tmp_path):
    bad = tmp_path / "pairs"
    shutil.copytree(pairs, bad)
    labels = np.zeros((50, 50), np.uint8)
    labels[3, 3] = 77
    image = np.zeros((50, 50, 3), np.uint8)
    Image.fromarray(labels).save(bad / "labels/train/train04.png")
    Image.fromarray(image).save(bad / "images/train/train04.png")
    with pytest.raises(DataError, match=r"train04\.png.*77"):
        train(tmp_path / "run", **settings(bad))
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def plain(pairs, tmp_path_factory):
    """An epoch of a small net."""
    return train(tmp_path_factory.mktemp("plain") / "run", **settings(pairs, epochs=1, **PLAIN))


@pytest.mark.slow
def test_init_from_a_run(plain, run, pairs, tmp_path):
    given = settings(pairs, epochs=1, **PLAIN)
    again = train(tmp_path / "again", **given, init_from=plain.run_dir)
    assert again.evaluation.images == 4
    assert again.evaluation.cross_entropy < 1.05 * plain.evaluation.cross_entropy
    with pytest.raises(KfcnError, match="fits nothing there"):
        train(tmp_path / "back", **settings(pairs), arch="fcn32s", init_from=run.run_dir)
    assert not (tmp_path / "back").exists()


@pytest.mark.slow
def test_a_start_that_is_not_finite_is_told_before_a_step(plain, pairs, tmp_path):
    """The first loss would be NaN, and the pictures of its batch be suspected."""
    net = keras.saving.load_model(plain.model)
    weight = net.trainable_weights[0]
    weight.assign(weight * np.nan)
    net.save(tmp_path / "diverged.keras")
    given = settings(pairs, epochs=1, **PLAIN)
    with pytest.raises(KfcnError, match=rf"diverged\.keras: its weight {weight.path} contains NaN"):
        train(tmp_path / "run", **given, init_from=tmp_path / "diverged.keras")
    assert not (tmp_path / "run").exists()


def test_predict_writes_maps_and_overlays(run, pairs, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(pairs / "images" / "val", source)
    (source / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    result = predict(run.run_dir, source, tmp_path / "out")
    assert [p.name for p in result.failed] == ["broken.jpg"]
    assert len(result.written) == 4
    for path in result.written:
        with Image.open(path) as found, Image.open(source / path.name) as image:
            assert found.mode == "P"
            assert found.size == image.size
            assert tuple(found.getpalette()[3:6]) == (255, 0, 0)
            assert np.asarray(found).max() <= 2
        assert (tmp_path / "out" / f"{path.stem}_overlay.jpg").is_file()


def test_predictions_that_would_overwrite_each_other_are_refused(run, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "x.png")
    with pytest.raises(UsageError, match=r"would both be written to x\.png"):
        predict(run.run_dir, [tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_evaluating_on_other_classes_is_refused(run):
    with pytest.raises(UsageError, match=r"trained for 3 classes .*; scenes has 7"):
        evaluate(run.run_dir, "scenes")


@pytest.mark.slow
def test_crf_rnn_is_trained_from_a_run_and_saved(plain, pairs, tmp_path):
    with pytest.raises(UsageError, match="name its run with --init-from"):
        train(tmp_path / "crf", **settings(pairs), crf=True)
    short = settings(pairs, epochs=1, crop=(32, 32), deterministic=False, **PLAIN)
    result = train(tmp_path / "crf", **short, crf=True, init_from=plain.run_dir)
    assert json.loads((result.run_dir / "model.json").read_text())["crf"]
    from kfcn.saved import load_model

    layer = load_model(result.run_dir).get_layer("crf")
    matrix = np.asarray(layer.compatibility_matrix)
    assert np.abs(matrix - (1 - np.eye(3))).max() > 1e-6  # it has learned
    assert layer.theta_alpha == 160


def test_crf_is_applied_without_training(run, pairs):
    plain = evaluate(run.run_dir, "folder", "val", pairs)
    refined = evaluate(run.run_dir, "folder", "val", pairs, crf=True)
    assert refined.images == plain.images
    assert abs(refined.cross_entropy - plain.cross_entropy) > 0.01


def test_bfloat16_is_refused_where_onednn_has_none(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "onednn_lacks_avx512", lambda: True)
    with pytest.raises(UsageError, match="mixed_bfloat16 needs AVX-512"):
        train(tmp_path / "run", **settings(pairs, precision="mixed_bfloat16"))
    assert not (tmp_path / "run").exists()
