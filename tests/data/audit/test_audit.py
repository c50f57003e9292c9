"""The label audit: each kind of fault is drawn once and must be told once."""

import json

import numpy as np
import pytest
from PIL import Image

from kfcn import data
from kfcn.commands.data import main
from kfcn.data.audit.audit import Audit, audit_split
from kfcn.data.audit.page import page
from kfcn.errors import DataError


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


@pytest.fixture
def pairs(tmp_path):
    """Sound training pairs a, b, c and validation pairs v, w in three classes."""
    (tmp_path / "classes.txt").write_text("sky\nsea\n<land>\n")
    labels = {"a": [[0, 0, 1]], "b": [[1, 1, 255]], "c": [[0, 1, 1], [0, 0, 0]]}
    for number, (name, array) in enumerate(labels.items()):
        write(tmp_path / f"labels/train/{name}.png", array)
        write(tmp_path / f"images/train/{name}.png", np.full((*np.shape(array), 3), number))
    for number, name in enumerate("vw", start=10):
        write(tmp_path / f"labels/val/{name}.png", [[0, 1, 2]])
        write(tmp_path / f"images/val/{name}.png", np.full((1, 3, 3), number))
    return tmp_path


def audited(root, splits=("train", "val")):
    return Audit([audit_split(data.load("folder", split, root)) for split in splits])


def test_sound_pairs_are_counted(pairs):
    audit = audited(pairs)
    assert audit.errors == []
    train = audit.as_dict()["splits"]["train"]
    assert train["label_values"] == {"0": 6, "1": 5, "255": 1}
    # Frequencies: sky 6 of the 9 pixels of its images, sea 5 of 11; the median is 0.5606.
    assert train["classes"]["sea"] == {
        "pixels": 5, "share": pytest.approx(5 / 11), "images": 3,
        "weight_median": 1.2333, "weight_sqrt": 1.1106,
    }  # fmt: skip
    assert train["sizes"] == {"1x3": 2, "2x3": 1}
    assert train["masks"] == {"grey PNG": 3}
    assert audit.warnings == ["train: no pixel of <land>"]
    assert "no errors: ready for training" in audit.table()
    assert "mostly 1x3 (2)" in audit.table()


def test_the_weights_are_those_of_training(pairs):
    train = data.load("folder", "train", pairs)
    facts = audited(pairs).as_dict()["splits"]["train"]["classes"]
    for kind in ("median", "sqrt"):
        weights = data.class_weights(data.check(train), kind)
        found = [value[f"weight_{kind}"] for value in facts.values()]
        np.testing.assert_allclose(found, weights, atol=5e-5)


def faults(pairs):
    write(pairs / "labels/train/a.png", [[0, 77, 1]])
    write(pairs / "labels/train/b.png", [[0, 1]])
    (pairs / "images/train/c.png").write_bytes(b"\x89PNG no picture")
    write(pairs / "labels/train/d.png", [[[0, 1, 2]]])  # RGB
    write(pairs / "images/train/d.png", [[[9, 9, 9]]])
    write(pairs / "labels/val/v.png", [[255, 255, 255]])
    write(pairs / "images/train/e.png", np.full((1, 3, 3), 11))  # the same as val/w
    write(pairs / "labels/train/e.png", [[0, 0, 0]])


def test_every_fault_is_told_in_the_words_of_the_check_before_training(pairs):
    faults(pairs)
    audit = audited(pairs)
    told = {kind: errors for split in audit.splits for kind, errors in split.errors.items()}
    assert told.keys() == {"label", "size", "unreadable"} and len(audit.errors) == 4
    assert told["label"][0].startswith("labels/train/a.png: found label 77; expected 0 to 2")
    assert "the image is 1x3 and its label map labels/train/b.png is 1x2" in told["size"][0]
    assert any("stored as RGB colours" in error for error in told["unreadable"])
    with pytest.raises(DataError) as caught:
        data.check(data.load("folder", "train", pairs))
    assert str(caught.value) == told["label"][0]
    warnings = "\n".join(audit.warnings)
    assert "1 image is in two splits" in warnings
    assert audit.duplicates == [("train: images/train/e.png", "val: images/val/w.png")]
    assert "val: 1 image has no labelled pixel, such as images/val/v.png" in warnings
    assert "train: 1 mask is stored in RGB colours" in warnings
    assert "no errors" not in audit.table()


def test_grey_masks_are_not_called_coloured_whatever_they_are_stored_as(pairs):
    for name, mode in (("a", "RGB"), ("b", "RGBA")):
        with Image.open(pairs / f"labels/train/{name}.png") as mask:
            mask.convert(mode).save(pairs / f"labels/train/{name}.png")
    audit = audited(pairs)
    assert not audit.errors and not any("colours" in warning for warning in audit.warnings)
    assert audit.splits[0].masks == {"grey as RGB PNG": 1, "grey as RGBA PNG": 1, "grey PNG": 1}
    with Image.open(pairs / "labels/train/a.png") as mask:
        mask.convert("L").convert("LA").save(pairs / "labels/train/a.png")
    assert audited(pairs).splits[0].masks["LA PNG"] == 1
    mask = Image.new("LA", (3, 1), (1, 128))
    mask.save(pairs / "labels/train/a.png")
    (error,) = audited(pairs).errors
    assert "stored as grey with transparency (LA); expected one class index per pixel" in error


def test_a_split_without_any_label_is_refused_by_both(pairs):
    for name in "vw":
        write(pairs / f"labels/val/{name}.png", [[255, 255, 255]])
    (error,) = audited(pairs).errors
    with pytest.raises(DataError, match="split 'val' has no labelled pixel: all 6 are 255"):
        data.check(data.load("folder", "val", pairs))
    assert "split 'val' has no labelled pixel" in error


def test_duplicates_within_a_split_are_another_warning(pairs):
    write(pairs / "images/train/b.png", np.zeros((1, 3, 3)))  # as a
    assert any("1 image appears twice in one split" in line for line in audited(pairs).warnings)


def test_the_page_shows_the_sound_pairs_and_escapes_names(pairs):
    faults(pairs)
    shown = page(audited(pairs))
    assert shown.count("<figure>") == 2 + 2  # train a and e, val v and w
    assert "&lt;land&gt;" in shown and "<land>" not in shown
    assert "found label 77" in shown


def test_the_command_writes_both_and_its_exit_code_says_whether_all_is_well(
    pairs, tmp_path, capsys
):
    call = ["check", "folder", "--data-dir", str(pairs), "--out", str(tmp_path / "out")]
    assert main(call) == 0
    assert "ready for training" in capsys.readouterr().out
    facts = json.loads((tmp_path / "out/check.json").read_text())
    assert facts["splits"].keys() == {"train", "val"}
    faults(pairs)
    assert main([*call, "--splits", "val"]) == 0
    assert main(call) == 1
    assert json.loads((tmp_path / "out/check.json").read_text())["errors"]
    with pytest.raises(SystemExit, match="2"):
        main(["check", "moon"])


def test_an_input_is_never_replaced(tmp_path, capsys):
    for name in ("check", "other"):
        image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
        write(tmp_path / f"{name}.png", image + (name == "other"))
        outline = {"label": "sea", "points": [[0, 0], [3, 0], [3, 3]], "shape_type": "polygon"}
        content = {"version": "5", "shapes": [outline], "imagePath": f"{name}.png"}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    before = (tmp_path / "check.json").read_bytes()
    words = ["check", "folder", "--data-dir", str(tmp_path), "--out", str(tmp_path)]
    for flags in ([], ["--overwrite"]):
        assert main([*words, *flags]) == 2
        assert "check.json" in capsys.readouterr().err
    assert (tmp_path / "check.json").read_bytes() == before


def test_a_line_break_in_a_name_is_written_out(pairs):
    (pairs / "labels/train/a.png").rename(pairs / "labels/train/a\nb.png")
    with pytest.raises(DataError) as caught:
        audited(pairs)
    assert "\n" not in str(caught.value)
    (pairs / "images/train/a.png").rename(pairs / "images/train/a\nb.png")
    (pairs / "labels/train/a\nb.png").write_bytes(b"")
    (fault,) = audited(pairs).errors
    assert "\n" not in fault and "a\\nb.png" in fault
