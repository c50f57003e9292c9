"""What is said before a run starts: the audit's warnings, one line for one cause."""

import sys

import pytest
from drawn import RING, coco, mask, picture, save, write
from PIL import Image

from kfcn import data
from kfcn.commands.data import main
from kfcn.data.audit.audit import Audit, audit_split
from kfcn.errors import DataError, UsageError


def folder(root, size=(48, 48), orientation=None, value=1, counts=(("train", 3), ("val", 2))):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    number = 0
    for split, count in counts:
        for index in range(count):
            number += 1
            save(root / f"images/{split}/p{index}.jpg", picture(number, size), exif=exif)
            save(root / f"labels/{split}/p{index}.png", mask(value, size))
    write(root / "classes.txt", "background\ncar\n")
    return root


def load(root, split):
    return data.load("folder", split, root)


def test_the_warnings_are_those_of_the_audit(tmp_path):
    folder(tmp_path)
    save(tmp_path / "images/val/p0.jpg", picture(1, (48, 48)), exif=Image.Exif())
    write(tmp_path / "images/train/readme.txt", "no picture")
    train, val = load(tmp_path, "train"), load(tmp_path, "val")
    counts, warnings = data.before_training(train, val)
    assert counts.images == 3 and counts.pixels.tolist() == data.check(train).pixels.tolist()
    assert "left out 1 file of another kind: readme.txt" in warnings[0]
    assert warnings[1].startswith("1 image is in two splits, with the same pixels")
    audit = Audit([audit_split(split) for split in (train, val)])
    assert warnings == audit.notes + audit.warnings and len(warnings) == 2


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_square_photograph_that_is_turned_is_said(tmp_path, orientation):
    folder(tmp_path, orientation=orientation)
    warnings = data.before_training(load(tmp_path, "train"), load(tmp_path, "val"))[1]
    assert [w for w in warnings if f"EXIF orientation {orientation}" in w] == [
        f"{split}: {count} images are turned upright by the EXIF orientation {orientation}, "
        f"such as images/{split}/p0.jpg; their label maps are not: look at the overlays"
        for split, count in (("train", 3), ("val", 2))
    ]
    upright = folder(tmp_path / "upright")
    assert data.before_training(load(upright, "train"), load(upright, "val"))[1] == []


def test_a_size_error_names_the_orientation(tmp_path):
    folder(tmp_path, size=(48, 64), orientation=6)
    with pytest.raises(DataError) as error:
        data.check(load(tmp_path, "train"))
    assert str(error.value) == (
        "images/train/p0.jpg: the image is 64x48 and its label map labels/train/p0.png is 48x64 "
        "(height x width); expected the same size: the image is turned upright by its EXIF "
        "orientation 6, the label map is not"
    )


def test_one_class_alone_is_not_trained_on(tmp_path):
    folder(tmp_path, value=255)
    with pytest.raises(DataError, match="split 'train' holds one class of 2"):
        data.before_training(load(tmp_path, "train"), load(tmp_path, "val"))
    # Nor on a data set that has no more than one: every answer would be right.
    folder(tmp_path / "cars", value=0)
    write(tmp_path / "cars/classes.txt", "car\n")
    with pytest.raises(DataError, match="its only class is car; expected at least two"):
        data.before_training(load(tmp_path / "cars", "train"), load(tmp_path / "cars", "val"))


@pytest.mark.parametrize(("package", "kind"), [("pycocotools", "coco"), ("scipy", "voc")])
def test_a_missing_package_is_said_once(tmp_path, monkeypatch, capsys, package, kind):
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    names = [f"p{i}.jpg" for i in range(20)]
    for name in names:
        save(tmp_path / "JPEGImages" / name, picture())
        save(tmp_path / "images" / name, picture())
    if kind == "coco":
        coco(tmp_path / "result.json", names, [(0, 1, {"segmentation": [RING]})])
    else:
        for split in ("train", "val"):
            write(tmp_path / f"ImageSets/Segmentation/{split}.txt", "p0\np1\n")
        write(tmp_path / "SBD/cls/p0.mat", "")
        write(tmp_path / "SBD/cls/p1.mat", "")
        for split in ("train", "val"):
            write(tmp_path / f"SBD/{split}.txt", "p0\np1\n")
    name = "folder" if kind == "coco" else "voc"
    with pytest.raises(UsageError, match=package):
        data.load(name, "train", tmp_path)
    assert main(["check", name, "--data-dir", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    said = capsys.readouterr().err
    assert said.count(package) == 1 and "pip install 'kfcn[data]'" in said
