"""A run goes on with the settings and the data that it was started with, wherever the data lie."""

import base64
import dataclasses
import io
import json
import shutil

import pytest
from PIL import Image
from small_nets import PLAIN, settings

from kfcn import data, train
from kfcn.cards import open_model, read_card
from kfcn.errors import KfcnError, UsageError
from kfcn.training.resolution import OtherStartError, continued, resolve
from kfcn.training.run_folder import RunFolder
from kfcn.training.stages import plan
from kfcn.training.start import card_of


@pytest.fixture
def finished(run, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(run.run_dir, tmp_path / "run")


def test_more_epochs_are_told_how_to_go_on(finished):
    with pytest.raises(UsageError) as caught:
        train(finished, epochs=5, seed=7)
    assert str(caught.value) == (
        f"{finished} was started with epochs=3 (now 5), seed=0 (now 7); continue it without these "
        f"changes, or start another run from its net: --init-from {finished} --run-dir ANOTHER"
    )


def test_a_run_without_a_net_is_not_called_one_to_start_from(tmp_path):
    """It was stopped in its first epoch; what is said can be copied to a shell."""
    path = tmp_path / "Läufe 1"
    RunFolder(path).start(resolve(crop=(128, 128), epochs=2), {"train": "a"})
    begin = f"{path} was started with crop=128 128 (now 96 96); continue it without these changes, "
    with pytest.raises(OtherStartError) as caught:
        train(path, crop=(96, 96))
    assert str(caught.value) == (
        f"{begin}choose another --run-dir, or remove {path}, which holds no net yet"
    )
    (path / "model.keras").touch()
    with pytest.raises(OtherStartError) as caught:
        train(path, crop=(96, 96))
    assert str(caught.value) == (
        f"{begin}or start another run from its net: --init-from '{path}' --run-dir ANOTHER"
    )
    assert caught.value.difference == f"{path} was started with crop=128 128 (now 96 96)"


@pytest.mark.parametrize(
    ("left", "taken"),
    [
        (["checkpoints/"], False),
        (["checkpoints/.lock", "checkpoints/.kfcn-1a2b.part.npz", ".kfcn-3c4d.part.json"], False),
        (["checkpoints/step-00000001.npz"], True),
        (["checkpoints/mine.txt"], True),
        (["checkpoints"], True),  # a file
        ([".kfcn-3c4d.part.json/"], True),
        (["checkpoints/", "thesis.txt"], True),
    ],
)
def test_what_a_start_leaves_that_ended_at_once_is_an_empty_folder(tmp_path, left, taken):
    """The disk was full when `config.json` was to be written, or the process was killed."""
    for name in left:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.mkdir() if name.endswith("/") else file.touch()
    if taken:
        with pytest.raises(UsageError, match="is not empty and holds no run"):
            RunFolder(tmp_path).stored_settings()
    else:
        assert RunFolder(tmp_path).stored_settings() is None


@pytest.mark.slow
def test_a_moved_folder_is_no_difference(finished, pairs, tmp_path):
    moved = shutil.copytree(pairs, tmp_path / "moved")
    again = train(finished, data_dir=moved, verbose=False)
    assert again.evaluation.images == 4
    stored = RunFolder(finished).stored_settings()
    assert continued(stored, {"data_dir": moved}, finished).data_dir == str(moved)


@pytest.mark.parametrize("change", ["larger", "another", "less"])
def test_other_data_are_told(finished, pairs, tmp_path, change):
    """A file of another size, another name, one file less; in the folder that is named."""
    moved = shutil.copytree(pairs, tmp_path / "moved")
    file = moved / "images/val/val00.png"
    if change == "larger":
        Image.open(file).save(file, compress_level=0)
    elif change == "another":
        file.rename(file.with_name("new.png"))
        (moved / "labels/val/val00.png").rename(moved / "labels/val/new.png")
    else:
        file.unlink()
        (moved / "labels/val/val00.png").unlink()
    with pytest.raises(UsageError) as caught:
        train(finished, data_dir=moved, verbose=False)
    told = str(caught.value)
    assert f"other data: val of {moved} has other files than val of {pairs} had; " in told
    assert f"--init-from {finished}" in told and "\n" not in told


def test_every_part_of_the_data_that_is_another_is_named(finished):
    run = RunFolder(finished)
    config = json.loads(run.config.read_text())
    config["settings"] |= {"unlabelled_dir": "photos", "ema": 0.998, "crop": [32, 32]}
    run.config.write_text(json.dumps(config))
    stored, known = run.stored_settings(), config["data"] | {"unlabelled_dir": "ab"}
    run.config.write_text(json.dumps(config | {"data": known}))
    now = dataclasses.replace(stored, unlabelled_dir="moved")
    run.check_data(now, known)
    place = stored.data_dir
    for changed, words in (
        (("train", "val"), f"train of {place} had other files then; val of {place} had other f"),
        (("unlabelled_dir",), "moved has other files than photos had; continue it"),
        (("unlabelled_dir", "val"), f"moved has other files than photos had; val of {place} had"),
    ):
        with pytest.raises(UsageError) as caught:
            run.check_data(now, known | dict.fromkeys(changed, "other"))
        assert f"{finished} was started with other data: {words}" in str(caught.value)


def test_a_run_without_fingerprints_goes_on_in_its_own_folder_only(finished, pairs, tmp_path):
    file = finished / "config.json"
    config = json.loads(file.read_text())
    del config["data"]
    file.write_text(json.dumps(config))
    run, stored = RunFolder(finished), RunFolder(finished).stored_settings()
    run.check_data(stored, {"train": "x", "val": "y"})
    moved = continued(stored, {"data_dir": tmp_path}, finished)
    with pytest.raises(UsageError, match="does not say which files were there"):
        run.check_data(moved, {"train": "x", "val": "y"})


def test_fingerprints_do_not_depend_on_the_place(pairs, tmp_path):
    moved = shutil.copytree(pairs, tmp_path / "moved")
    here, there = data.load("folder", "val", pairs), data.load("folder", "val", moved)
    assert here.fingerprint() == there.fingerprint()
    assert here.fingerprint() != data.load("folder", "train", pairs).fingerprint()
    label = moved / "labels/val/val00.png"
    label.write_bytes(label.read_bytes() + b"\0")
    assert here.fingerprint() != there.fingerprint()
    scenes = [data.load("scenes", split).fingerprint() for split in ("train", "val", "val")]
    assert scenes[0] != scenes[1] == scenes[2]


def test_the_fingerprint_knows_labels_whose_pictures_lie_within_them(tmp_path):
    """Files of labelme with imageData: changed, they were the same data to a run."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 6)).save(picture, "PNG")
    content = {
        "shapes": [{"label": "car", "points": [[1, 1], [4, 1], [4, 4]]}],
        "imageData": base64.b64encode(picture.getvalue()).decode(),
        "imageHeight": 6,
        "imageWidth": 8,
    }
    (tmp_path / "train").mkdir()
    file = tmp_path / "train/a.json"
    file.write_text(json.dumps(content))
    before = data.load("folder", "train", tmp_path).fingerprint()
    assert data.load("folder", "train", tmp_path).fingerprint() == before
    content["shapes"][0]["points"].append([1, 4])
    file.write_text(json.dumps(content))
    assert data.load("folder", "train", tmp_path).fingerprint() != before


def test_classes_are_compared_by_what_they_say():
    stored = resolve(data="camvid", data_dir="x", classes="car, road")
    assert stored.classes == "car; road; rest = background"
    assert continued(stored, {"classes": "car,road"}, "runs/a") == stored
    with pytest.raises(UsageError, match="classes=car; road; rest = background"):
        continued(stored, {"classes": "road,car"}, "runs/a")


def test_a_written_out_list_longer_than_a_file_name_stands_on_the_card():
    """Linux knows no such name (ENAMETOOLONG), and none of 255 bytes is a list of 40 classes."""
    names = data.load("scenes", "val").classes.names[1:]
    listed = "; ".join(f"{name} {'x' * 60} = {name}" for name in names) + "; rest = background"
    config = resolve(data="scenes", classes=listed)
    assert len(config.classes) > 300
    card = card_of(config, config.source.open("val"))
    assert card["grouping"] == config.classes
    assert card["classes"][1:] == [f"{name} {'x' * 60}" for name in names]


CARDS = [
    ({"classes": ["a", "b"]}, "names 2 classes (a, b); the net beside it has 3"),
    ({"palette": [[0, 0, 0]] * 2}, "one colour a class"),
    ({"classes": ["a", "a", "b"]}, "two classes of the name a"),
    ({"classes": "abc"}, "expected a list of names"),
    ({"classes": [1, 2, 3]}, "expected a list of names"),
    ({"classes": ["a", "", "b"]}, "expected a list of names"),
    ({"palette": [[0, 0, 0], [1, 1, 1], [1, 1, 1]]}, "two classes of the colour (1, 1, 1)"),
    ({"palette": [[0, 0, 0], [1, 1, 1], [256, 1, 1]]}, "three numbers of 0 to 255"),
    ({"palette": [[0, 0, 0], [1, 1, 1], [1.5, 1, 1]]}, "three numbers of 0 to 255"),
    ({"palette": [[0, 0, 0], [1, 1, 1], [1, 1]]}, "three numbers of 0 to 255"),
    ({"palette": {"a": 1}}, "three numbers of 0 to 255"),
    ({"grouping": 3}, "grouping 3: expected a string"),
]


@pytest.mark.parametrize(("change", "told"), CARDS)
def test_a_card_that_does_not_fit_is_refused(finished, change, told):
    card = json.loads((finished / "model.json").read_text()) | change
    if "classes" in change and len(change["classes"]) == 2:
        card["palette"] = card["palette"][:2]
    (finished / "model.json").write_text(json.dumps(card))
    with pytest.raises(KfcnError) as caught:
        open_model(finished)
    assert told in str(caught.value) and str(finished / "model.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{}", '{"classes": ["a"]}', "[" * 100_000, "\udcff"]
)
def test_what_is_no_card_is_refused(finished, text):
    (finished / "model.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(KfcnError, match="is not a valid model card"):
        read_card(finished)


@pytest.mark.slow
def test_epochs_that_follow_the_pictures_are_stored(pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kfcn.training.settings.MOST_STEPS", 4)
    given = settings(pairs, verbose=True, **PLAIN)
    del given["epochs"]
    result = train(**given)
    written = json.loads((result.run_dir / "config.json").read_text())["settings"]["epochs"]
    steps = -(-len(data.load("folder", "train", pairs)) // given["batch_size"])
    assert written == -(-4 // steps) and f"{written} epochs of {steps} steps for" in (
        capsys.readouterr().out
    )
    assert len((result.run_dir / "history.csv").read_text().splitlines()) == written + 1
    (result.run_dir / "model.json").rename(tmp_path / "kept.json")  # as if it were unfinished
    del given["verbose"]
    (stage,) = plan(None, given)
    assert stage.run.path == result.run_dir and stage.config.epochs == written
