"""A few strokes in each picture: with --unlabelled ignore all else is unknown."""

import numpy as np
import pytest
from drawn import CORNERS, RING, SIZE, coco, labelme, picture, save, shape, write

from kfcn import data
from kfcn.commands.data import main
from kfcn.errors import UsageError

SPARSE = data.Reading(unlabelled="ignore")
STROKES = [
    shape("car", [[20, 15], [35, 25]], "line"),
    shape("background", [[5, 40], [60, 45]], "linestrip"),
    shape("car", [[14, 12]], "point"),
]


def scribbled(root, classes="background\ncar\n"):
    for split in ("train", "val"):
        for index in range(2):
            save(root / f"{split}/p{index}.jpg", picture(index))
            labelme(root / f"{split}/p{index}.json", f"p{index}.jpg", STROKES)
    write(root / "classes.txt", classes)
    return root


def test_what_no_stroke_covers_is_unknown(tmp_path):
    scribbled(tmp_path)
    full = data.load("folder", "train", tmp_path)[0].labels
    sparse = data.load("folder", "train", tmp_path, reading=SPARSE)[0].labels
    touched = sparse != 255
    np.testing.assert_array_equal(sparse[touched], full[touched])
    assert (full[~touched] == 0).all() and set(np.unique(sparse)) == {0, 1, 255}
    # The strokes themselves: 10 wide lines and a disc, about a third of this small picture.
    assert 0.2 < touched.mean() < 0.45
    assert sparse[20, 27] == 1 and sparse[42, 30] == 0 and sparse[30, 55] == 255


def test_objects_of_coco(tmp_path):
    names = ["a.jpg", "b.jpg"]
    for name in names:
        save(tmp_path / "images" / name, picture())
    objects = [(i, 1, {"segmentation": [RING]}) for i in range(2)]
    coco(tmp_path / "result.json", names, objects)
    sparse = data.load("folder", "train", tmp_path, reading=SPARSE)[0].labels
    assert (sparse == 1).sum() == 560 and (sparse == 255).sum() == SIZE[0] * SIZE[1] - 560


def test_the_command_says_how_much_is_known(tmp_path, capsys):
    scribbled(tmp_path)
    command = ["check", "folder", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*command, "--unlabelled", "ignore"]) == 0
    said = capsys.readouterr().out
    labels = data.load("folder", "train", tmp_path, reading=SPARSE)[0].labels
    assert f"{100 * (labels == 255).mean():.1f} % ignored" in said


def test_masks_say_themselves_what_is_unknown(pairs, tmp_path):
    with pytest.raises(UsageError, match="--unlabelled ignore: folder has no such choice here"):
        data.load("folder", "train", pairs, reading=SPARSE)
    labelme(tmp_path / "train/a.json", "a.jpg", [shape("car", CORNERS)])
    save(tmp_path / "train/a.jpg", picture())
    with pytest.raises(UsageError, match="--ignore none: folder has no such choice here"):
        data.load("folder", "train", tmp_path, reading=data.Reading(ignore="none"))
