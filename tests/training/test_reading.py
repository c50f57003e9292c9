"""How pictures are read is chosen by the training data, stands in the card, and is kept to."""

import importlib
import json
import shutil

import numpy as np
import pytest
from drawn import SIZE, mask, picture, save, write
from PIL import Image

from kfcn import data
from kfcn.commands import evaluate as command
from kfcn.commands._cli import reading_of
from kfcn.data.formats.images import read_image
from kfcn.errors import DataError, UsageError
from kfcn.inference.evaluate import evaluate
from kfcn.inference.predict import predict
from kfcn.inference.segment import segment
from kfcn.saved import load_model
from kfcn.training import train

SHORT = {
    "arch": "convnet", "weights": "none", "epochs": 1, "crop": (32, 32), "batch_size": 2,
    "verbose": False,
}  # fmt: skip


def deep(root, value=255):
    """Pairs of 12 bits of grey in files of 16; the mask is stored as 255."""
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            grey = picture(index)[..., 0].astype(np.uint16) * 16
            save(root / f"images/{split}/p{index}.png", grey)
            save(root / f"labels/{split}/p{index}.png", mask(value))
    write(root / "classes.txt", "background\ncell\n")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("deep")
    deep(root / "data")
    run = train(root / "run", data="folder", data_dir=root / "data", ignore="none", **SHORT)
    return root / "data", run.run_dir


@pytest.mark.slow
def test_the_card_says_how_the_data_were_read(trained):
    _, run = trained
    card = json.loads((run / "model.json").read_text())
    assert card["reading"] == {
        "ignore": "none", "pages": "one", "unlabelled": "background", "stretch": [0, 4095],
    }  # fmt: skip
    assert data.Reading.of_card(card) == data.Reading("none", stretch=(0, 4095))
    assert data.Reading.of_card({}) == data.Reading()


def test_a_run_that_was_stopped_is_read_as_its_training_did(trained, tmp_path):
    folder, run = trained
    stopped = shutil.copytree(run, tmp_path / "stopped")
    (stopped / "model.json").unlink()
    expected, found = (evaluate(path, "folder", "val", folder) for path in (run, stopped))
    np.testing.assert_array_equal(found.matrix, expected.matrix)
    assert found.classes == expected.classes and expected.matrix[1].sum() > 0
    (stopped / "config.json").unlink()  # nothing says it: the masks' 255 is ignored
    assert evaluate(stopped, "folder", "val", folder).matrix[1].sum() == 0


def test_predict_reads_as_training_did(trained, tmp_path):
    folder, run = trained
    path = folder / "images/val/p0.png"
    predict(run, path, tmp_path / "out")
    found = np.array(Image.open(tmp_path / "out/p0.png"))
    model = load_model(run)
    np.testing.assert_array_equal(found, segment(model, read_image(path, stretch=(0, 4095))))
    assert read_image(path, stretch=(0, 4095)).max() > 10 * read_image(path).max()


@pytest.mark.parametrize("as_source", [False, True])
def test_evaluate_reads_as_training_did(trained, as_source):
    folder, run = trained
    named = (data.Source("folder", folder), "val") if as_source else ("folder", "val", folder)
    result = evaluate(run, *named)
    # Nothing is ignored: the stored 255 is the second class.
    assert result.matrix.sum() == 2 * SIZE[0] * SIZE[1]
    assert result.matrix.sum(axis=1).tolist() == [2 * (SIZE[0] * SIZE[1] - 560), 2 * 560]


@pytest.mark.parametrize(
    ("card", "flags", "absent"),
    [
        (True, [], []),
        (True, ["--ignore", "none"], []),
        (True, ["--ignore", "255"], None),
        (False, [], ["cell"]),
        (False, ["--ignore", "none"], []),
    ],
)
def test_evaluate_reads_by_the_card_and_refuses_what_contradicts_it(
    trained, tmp_path, capsys, card, flags, absent
):
    folder, run = trained
    for name in ("model.keras", *(["model.json"] if card else [])):
        shutil.copy(run / name, tmp_path)
    out = tmp_path / "figures.json"
    source = ["--data", "folder", "--data-dir", str(folder)]
    given = [str(tmp_path / "model.keras"), *source, *flags, "--json", str(out)]
    assert command.main(given) == (2 if absent is None else 0)
    if absent is None:
        assert "--ignore 255: the net was trained with --ignore none" in capsys.readouterr().err
    else:
        assert json.loads(out.read_text())["absent"] == absent


def test_the_data_of_the_run_are_measured_where_none_are_named(trained, tmp_path, capsys):
    _, run = trained
    out = tmp_path / "figures.json"
    assert command.main([str(run), "--json", str(out)]) == 0
    assert f"{run} on folder/val, 2 images" in capsys.readouterr().out
    assert json.loads(out.read_text())["absent"] == []
    shutil.copy(run / "model.keras", tmp_path)  # a file alone: the drawn scenes
    assert command.main([str(tmp_path / "model.keras")]) == 2
    assert "scenes has" in capsys.readouterr().err


@pytest.mark.parametrize("module, more", [
    ("kfcn.commands.tune_crf", ["{run}"]),
    ("kfcn.commands.data", ["suspects", "--model", "{run}", "--out", "{out}"]),
    ("kfcn_tools.convert.command", ["{run}", "--out", "{out}", "--size", "48", "64"]),
])  # fmt: skip
def test_the_other_commands_refuse_it_as_well(trained, tmp_path, capsys, module, more):
    folder, run = trained
    words = [word.format(run=run, out=tmp_path / "out") for word in more]
    source = ["--data", "folder"]
    if words[0] == "suspects":
        words, source = [words[0], "folder", *words[1:]], []
    given = [*words, *source, "--data-dir", str(folder), "--ignore", "255"]
    assert importlib.import_module(module).main(given) == 2
    assert "the net was trained with --ignore none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_data_set_without_the_choice_is_read_as_it_is(trained, tmp_path):
    """CVAT's masks are read by their colours: there is no number that could be a class or not."""
    _, run = trained
    for name in "abc":
        save(tmp_path / f"JPEGImages/{name}.png", picture())
        save(tmp_path / f"SegmentationClass/{name}.png", mask(255))
    write(tmp_path / "labelmap.txt", "background:0,0,0::\ncell:255,255,255::\n")
    result = evaluate(run, data.Source("folder", tmp_path), "val")
    assert result.matrix.sum(axis=1).tolist() == [SIZE[0] * SIZE[1] - 560, 560]
    with pytest.raises(UsageError, match="--ignore none: folder has no such choice here"):
        data.load("folder", "val", tmp_path, reading=data.Reading("none"))


def test_a_flag_leaves_the_rest_to_the_card():
    args = command.parser().parse_args(["model", "--pages", "all"])
    card = {"reading": {"ignore": "none", "stretch": [0, 4095]}}
    found = reading_of(args, card)
    assert found == data.Reading("none", "all", stretch=(0, 4095))
    assert found.inherited == {"ignore", "unlabelled"}
    assert reading_of(args) == data.Reading(pages="all")


def test_a_second_class_stored_as_255_stops_the_training(tmp_path):
    deep(tmp_path / "data")
    with pytest.raises(DataError, match=r"18\.2 % are 255 = ignore.*--ignore none"):
        train(tmp_path / "run", data="folder", data_dir=tmp_path / "data", **SHORT)
    assert not (tmp_path / "run/model.keras").exists()
