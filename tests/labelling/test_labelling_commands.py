"""`kfcn-data next` and `suspects` from the command line, on drawn pairs."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from kfcn import data
from kfcn.commands.data import main
from kfcn.data.feed.views import split_of
from kfcn.errors import UsageError
from kfcn.labelling.suspects import average_precision
from kfcn.saved import save_model
from kfcn.training.resolution import resolve
from kfcn.training.run_folder import RunFolder


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_parts_of_a_split_are_runs_of_neighbours(pairs):
    whole = data.load("folder", "train", pairs)
    names = [whole.file_name(i) for i in range(len(whole))]
    parts = [data.load("folder", f"train[{k}/3]", pairs) for k in range(3)]
    found = [part.file_name(i) for part in parts for i in range(len(part))]
    assert found == names and max(map(len, parts)) - min(map(len, parts)) <= 1
    rest = data.load("folder", "train[!1/3]", pairs)
    assert [rest.file_name(i) for i in range(len(rest))] == [
        name for name in names if name not in found[len(parts[0]) : len(parts[0]) + len(parts[1])]
    ]
    assert rest.split == "train[!1/3]"
    image, labels, name = rest[0]
    np.testing.assert_array_equal(image, whole[0].image)
    np.testing.assert_array_equal(labels, whole[0].labels)
    assert name == names[0] and rest.image_file(0) == whole.image_file(0)
    with pytest.raises(UsageError, match=r"'train\[3/3\]': expected a part from 0 to 2"):
        split_of("train[3/3]")


@pytest.mark.slow
def test_next_writes_labels_to_correct_and_keeps_corrected_ones(run, pairs, tmp_path, capsys):
    new = tmp_path / "new"
    new.mkdir()
    for file in sorted((pairs / "images" / "val").iterdir()):
        shutil.copy(file, new / f"new-{file.name}")
    known = [next((pairs / "images" / split).iterdir()) for split in ("train", "val")]
    for file in known:  # they have labels already
        shutil.copy(file, new)
    (new / "broken.png").write_bytes(b"no picture")
    arguments = [
        "next",
        str(run.run_dir),
        str(new),
        "--count",
        "2",
        "--out",
        str(tmp_path / "todo"),
    ]
    assert main(arguments) == 1  # the broken one
    told = capsys.readouterr()
    assert "2 of 4 pictures chosen, 2 have the same name as a labelled one" in told.out
    assert "broken.png" in told.err and "broken.png" not in told.out
    table = rows(tmp_path / "todo" / "next.csv")
    assert [row["order"] for row in table] == ["1", "2", "", ""]
    assert all(row["picture"].rsplit("/", 1)[-1].startswith("new-") for row in table)
    first = next(iter(sorted((tmp_path / "todo").glob("*.json"))))
    assert len(list((tmp_path / "todo").glob("*.json"))) == 2
    page = (tmp_path / "todo" / "next.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 6 and "2 pictures to label next" in page
    # A person corrects one; it stays as it is.
    content = json.loads(first.read_text(encoding="utf-8"))
    content["shapes"] = []
    first.write_text(json.dumps(content), encoding="utf-8")
    (new / "broken.png").unlink()
    assert main(arguments) == 0
    assert json.loads(first.read_text(encoding="utf-8"))["shapes"] == []
    assert "1 corrected file kept" in capsys.readouterr().out


def test_what_next_leaves_out_or_cannot_look_at_goes_to_stderr(painter, pairs, tmp_path, capsys):
    """So that what it tells about its work can be read by a program."""
    (tmp_path / "new").mkdir()
    shutil.copy(next((pairs / "images" / "val").iterdir()), tmp_path / "new/a.png")
    (tmp_path / "new/c.heic").write_bytes(b"a picture of a phone")
    settings = resolve(data="folder", data_dir=str(tmp_path / "gone"))
    RunFolder(painter).start(settings, {})
    given = ["next", str(painter), str(tmp_path / "new"), "--out", str(tmp_path / "todo")]
    assert main(given) == 1  # in the end: it is no net of kfcn
    told = capsys.readouterr()
    assert told.out == ""
    for line, note in zip(told.err.splitlines(), ("c.heic", "gone: no such", "score"), strict=True):
        assert line.startswith("kfcn-data: ") and note in line


@pytest.mark.slow
def test_next_with_nothing_left_is_one_line(run, pairs, tmp_path, capsys):
    images = str(pairs / "images" / "train")
    assert main(["next", str(run.run_dir), images, "--out", str(tmp_path / "todo")]) == 2
    assert "is left to choose from" in capsys.readouterr().err
    assert not (tmp_path / "todo").exists()


@pytest.fixture
def painter(pairs, tmp_path):
    """A net that tells the drawn things by their colour, as a run folder."""
    image = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(3, 1)
    net = keras.Model(image, layer(image))
    kernel = np.array([[0, 1, -0.5], [0, -0.5, 1], [0, -0.5, -0.5]]) / 8  # (RGB, class)
    layer.set_weights([kernel[None, None], np.array([40.0, 0.0, 0.0]) / 8])
    folder = tmp_path / "painter"
    folder.mkdir()
    save_model(net, folder / "model.keras")
    classes = data.load("folder", "val", pairs).classes
    card = {"classes": list(classes.names), "palette": [list(c) for c in classes.palette]}
    (folder / "model.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def test_suspects_of_a_net_name_planted_regions(painter, pairs, tmp_path, capsys):
    root, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(pairs, root)
    arguments = ["suspects", "folder", "--data-dir", str(root), "--split", "val", "--out", str(out)]
    arguments += ["--model", str(painter)]
    assert main(arguments) == 0
    assert rows(out / "regions.csv") == []  # control: the drawn labels are right
    file = root / "labels" / "val" / "val02.png"
    labels = np.array(Image.open(file))
    square = labels == 1
    labels[square] = 2  # a class swapped
    Image.fromarray(labels).save(file)
    assert main(arguments) == 0
    (region,) = rows(out / "regions.csv")
    assert region["labels"] == "labels/val/val02.png" and region["picture"].endswith("val02.png")
    assert (region["label"], region["seen"]) == ("disc", "square")
    ys, xs = np.nonzero(square)
    box = [int(region[side]) for side in ("left", "top", "right", "bottom")]
    assert np.abs(np.array(box) - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).max() <= 1
    pictures = rows(out / "pictures.csv")
    assert pictures[0]["labels"] == "labels/val/val02.png" and len(pictures) == 4
    page = (out / "suspects.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 4 and "labelled disc, seen as square" in page
    assert 'href="../data/labels/val/val02.png"' in page
    told = capsys.readouterr().out
    assert "1 suspicious region in 4 pictures" in told


def test_folds_of_other_settings_are_not_to_be_started_from(pairs, tmp_path, capsys):
    """Their nets have seen the labels that they would judge."""
    fold = tmp_path / "out" / "fold-1"
    run = {"data": "folder", "data_dir": pairs, "train_split": "train[!0/3]"}
    RunFolder(fold).start(resolve(**run, val_split="train[0/3]", epochs=1))
    (fold / "model.keras").touch()
    arguments = ["suspects", "folder", "--data-dir", str(pairs), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--epochs", "2"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"kfcn-data: error: {fold} was started with epochs=1 (now 2); continue with what it was "
        "started with, or choose another --out"
    )


@pytest.mark.long
def test_suspects_without_a_model_trains_folds_and_goes_on(pairs, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        *("suspects", "folder", "--data-dir", str(pairs), "--folds", "2", "--epochs", "1"),
        *("--out", str(out)),
    ]
    assert main(arguments) == 0
    assert {p.name for p in out.glob("fold-*")} == {"fold-1", "fold-2"}
    card = json.loads((out / "fold-2" / "model.json").read_text(encoding="utf-8"))
    assert card["split"] == "train[1/2]"
    before = (out / "pictures.csv").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(arguments) == 0  # nothing is trained again
    assert (out / "pictures.csv").read_text(encoding="utf-8") == before
    assert "epoch 1/1" not in capsys.readouterr().out


@pytest.mark.long
def test_planted_errors_rank_above_chance(tmp_path):
    """Drawn scenes with a class swapped in a fifth of the pictures; nets of two folds find them."""
    from kfcn.data.catalog import Source
    from kfcn.labelling.folds import train_folds
    from kfcn.labelling.search import find_suspects
    from kfcn.visualize import palette_picture

    scenes = data.load("scenes", "train")
    rng, swapped = np.random.default_rng(0), []
    for index in range(60):
        image, labels, _ = scenes[index]
        present = [c for c in np.unique(labels).tolist() if c not in (0, 255)]
        if index % 5 == 0 and present:
            chosen = int(rng.choice(present))
            labels = np.where(labels == chosen, chosen % (len(scenes.classes) - 1) + 1, labels)
            swapped.append(f"{index:03d}.png")
        for kind, picture in (
            ("images", Image.fromarray(image)),
            ("labels", palette_picture(labels, scenes.classes.palette)),
        ):
            (tmp_path / kind / "train").mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / kind / "train" / f"{index:03d}.png")
    (tmp_path / "classes.txt").write_text("\n".join(scenes.classes.names))
    source = Source("folder", tmp_path)
    settings = {"epochs": 25, "crop": (96, 128), "scale": (0.8, 1.25)}
    whole = source.open("train")
    found = find_suspects(whole, train_folds(source, "train", 2, tmp_path / "out", **settings))
    wrong = [whole.label_name(i).rsplit("/", 1)[-1] in swapped for i in range(len(whole))]
    assert average_precision(found.picture_scores(), wrong) > 2 * np.mean(wrong)
    assert average_precision(-found.scores, wrong) > 1.5 * np.mean(wrong)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda labels: np.where(labels == 1, 7, labels), "found label 7; expected 0 to 2"),
        (lambda labels: labels[:-2], "val02.png has"),
    ],
)
def test_suspects_of_labels_that_are_none_is_one_line(
    painter, pairs, tmp_path, capsys, change, told
):
    root = shutil.copytree(pairs, tmp_path / "data")
    file = root / "labels" / "val" / "val02.png"
    Image.fromarray(change(np.array(Image.open(file))).astype(np.uint8)).save(file)
    arguments = ["suspects", "folder", "--data-dir", str(root), "--split", "val"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--model", str(painter)]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "val02.png" in line and told.removeprefix("val02.png has") in line


def test_flags_of_a_training_that_does_not_come_are_refused(painter, pairs, tmp_path, capsys):
    arguments = ["suspects", "folder", "--data-dir", str(pairs), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--model", str(painter), "--folds", "7", "--epochs", "2"]) == 2
    assert "--epochs, --folds: with --model nothing is trained" in capsys.readouterr().err
    assert main([*arguments, "--split", "val", "--folds", "0"]) == 2  # not the usual number
    assert "0" in (told := capsys.readouterr().err) and "fold" in told


@pytest.mark.parametrize(
    ("format", "there", "told"),
    [
        ("lableme", None, "format 'lableme': expected one of"),
        ("labelme", "next.csv", "next.csv already exists"),
    ],
)
def test_next_refuses_before_it_looks_at_pictures(
    painter, pairs, tmp_path, capsys, monkeypatch, format, there, told
):
    from kfcn.labelling import proposal

    monkeypatch.setattr(proposal, "propose", lambda *_, **__: pytest.fail("it looked"))
    out = tmp_path / "out"
    if there:
        out.mkdir()
        (out / there).write_text("mine")
    pictures = str(pairs / "images" / "val")
    assert main(["next", str(painter), pictures, "--out", str(out), "--format", format]) == 2
    assert told in capsys.readouterr().err


def test_what_is_labelled_is_read_as_the_net_reads_pictures(tmp_path):
    """Of more than 8 bits, by the stretch on its card, or all of it would be nearly black."""
    from kfcn.commands.labelling import _labelled
    from kfcn.training.settings import Settings

    root, run = tmp_path / "data", tmp_path / "run"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        deep = np.full((8, 8), 4000, np.uint16)
        Image.fromarray(deep).save(root / f"images/{split}/{split}.png")
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(root / f"labels/{split}/{split}.png")
    (root / "classes.txt").write_text("ground\nline\n")
    run.mkdir()
    settings = {"data": "folder", "data_dir": str(root), "train_split": "train", "val_split": "val"}
    (run / "config.json").write_text(json.dumps({"settings": settings}))
    assert isinstance(Settings(**settings), Settings)
    for stretch, white in (((0, 4095), 249), (None, 16)):
        for model in (run, run / "model.keras"):
            (train, val) = _labelled(str(model), stretch)
            assert int(train[0].image.max()) == int(val[0].image.max()) == white
