"""What stands beside a model file: whose classes it has, and what it was validated on."""

import json
from types import SimpleNamespace

import pytest
from shipping import tiny_model
from small_nets import save_colour_run

from kfcn.cards import check_classes, data_of_run, data_to_measure
from kfcn.errors import KfcnError, UsageError


def test_classes_that_differ_further_down_are_told():
    names = ["sky", "road", "wall", "refrigerator"]
    dataset = SimpleNamespace(name="rooms", classes=SimpleNamespace(names=tuple(names)))
    check_classes({"classes": names}, dataset, 4)
    with pytest.raises(UsageError, match="class 3 is 'fridge' there and 'refrigerator' here"):
        check_classes({"classes": [*names[:3], "fridge"]}, dataset)
    with pytest.raises(UsageError, match=r"4 classes \(sky, path, wall, ...\); rooms has .*\)$"):
        check_classes({"classes": ["sky", "path", *names[2:]]}, dataset)


def test_what_a_net_without_a_run_was_validated_on_stands_on_its_card(tmp_path):
    save_colour_run(tmp_path, {"a": (0, 0, 0), "b": (1, 1, 1), "c": (2, 2, 2)})
    file = tmp_path / "model.json"
    card = json.loads(file.read_text())
    for path in (tmp_path, tmp_path / "model.keras"):
        file.write_text(json.dumps(card))
        assert data_of_run(path) is None
        file.write_text(json.dumps(card | {"data": "camvid", "split": "test"}))
        assert data_of_run(path) == ("camvid", None, 0, None, "test", None, "train")
    file.write_text(json.dumps(card | {"data": ["camvid"]}))
    with pytest.raises(KfcnError, match=r"data .*: expected a string"):
        data_of_run(tmp_path)


def test_what_is_not_asked_for_is_measured_as_the_run_was(tmp_path):
    save_colour_run(tmp_path, {"a": (0, 0, 0), "b": (1, 1, 1), "c": (2, 2, 2)})
    settings = {"data": "folder", "data_dir": "x", "seed": 4, "classes": None, "val_split": "dev"}
    settings["train_split"] = "fit"
    config = {"settings": settings, "data": {"dev": "known"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for data, given, found in (
        (None, {}, ("folder", "x", 4, None, "dev", "known", "fit")),
        (None, {"seed": 0, "data_dir": "y"}, ("folder", "y", 0, None, "dev", "known", "fit")),
        (None, {"split": "test"}, ("folder", "x", 4, None, "test", None, "fit")),
        ("camvid", {"data_dir": "z"}, ("camvid", "z", 0, None, "val", None, "train")),
    ):
        for path in (tmp_path, tmp_path / "model.keras"):
            assert data_to_measure(path, data, **given) == found
    assert data_to_measure(tiny_model(), None) == ("scenes", None, 0, None, "val", None, "train")
    run = data_to_measure(tmp_path, None)
    assert run.other_files(SimpleNamespace(fingerprint=lambda: "known")) is None
    assert run.other_files(SimpleNamespace(fingerprint=lambda: "another")) == (
        "dev of x holds other files than the run was validated on"
    )
