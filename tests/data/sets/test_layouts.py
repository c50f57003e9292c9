"""Folders as annotation programs and people leave them: every picture is found, or is named."""

import base64
import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
from drawn import (
    CORNERS,
    RING,
    coco,
    labelme,
    mask,
    picture,
    save,
    shape,
    shares,
    write,
    write_json,
)
from PIL import Image

from kfcn import data
from kfcn.data.formats.coco import Instances
from kfcn.errors import DataError

CAR = [shape("car", CORNERS)]
TWO = "background\ncar\n"


def pair(root, name, suffix=".jpg", mask_ending=""):
    images, labels = root / "images", root / "labels"
    save(images / f"{name}{suffix}", picture(len(name)))
    save(labels / f"{name}{mask_ending}.png", mask())


def sizes(root, **options):
    return {s: len(data.load("folder", s, root, **options)) for s in data.splits("folder", root)}


def everything(root):
    """Names of the pictures of train and val."""
    sets = [data.load("folder", split, root) for split in ("train", "val")]
    return sorted(d.file_name(i) for d in sets for i in range(len(d)))


def test_folders_within_a_split_are_followed(tmp_path):
    for name in ("train/a", "train/monday/a", "train/monday/deep/b", "val/c"):
        pair(tmp_path, name)
    write(tmp_path / "classes.txt", TWO)
    assert sizes(tmp_path) == {"train": 3, "val": 1}
    train = data.load("folder", "train", tmp_path)
    assert [train.file_name(i) for i in range(3)] == [
        "images/train/a.jpg", "images/train/monday/a.jpg", "images/train/monday/deep/b.jpg",
    ]  # fmt: skip
    assert shares(train) == [81.771, 18.229]


def test_pictures_beside_a_folder_are_not_lost(tmp_path):
    for name in [f"p{i}" for i in range(12)] + ["monday/q"]:
        pair(tmp_path, name)
    write(tmp_path / "classes.txt", TWO)
    assert len(everything(tmp_path)) == 13
    pair(tmp_path, "val/r")  # beside a folder named like a split they are for training
    assert sizes(tmp_path) == {"train": 12, "monday": 1, "val": 1}


def test_what_lies_outside_of_the_splits_is_told(tmp_path):
    for name in ("train/a", "val/b", "loose"):
        pair(tmp_path, name)
    pair(tmp_path, "extra/c")
    shutil.rmtree(tmp_path / "labels/extra")
    write(tmp_path / "classes.txt", TWO)
    assert sizes(tmp_path) == {"train": 1, "val": 1}
    notes = " ".join(data.load("folder", "train", tmp_path).notes)
    assert "images: left out 1 folder that its twin lacks: extra" in notes
    assert "images: left out 1 file beside the folders of the splits: loose" in notes
    assert "labels: left out 1 file beside" in notes


def test_more_names_of_shapes_than_classes_can_be_are_refused(tmp_path):
    """255 of them would make the last class the label that is ignored."""
    shapes = [
        {"label": f"car {n:03}", "shape_type": "polygon", "points": [[0, 0], [3, 0], [3, 3]]}
        for n in range(255)
    ]
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    content = {"imagePath": "a.png", "shapes": shapes, "imageHeight": 8, "imageWidth": 8}
    write(tmp_path / "a.json", json.dumps(content))
    with pytest.raises(DataError, match=r"shapes of 255 names \(car 000, .*up to 254"):
        everything(tmp_path)
    write(tmp_path / "a.json", json.dumps({**content, "shapes": shapes[1:]}))
    assert len(everything(tmp_path)) == 1


def test_masks_with_an_ending_of_their_own_and_hidden_files(tmp_path):
    pair(tmp_path, "train/a", mask_ending="_mask")
    pair(tmp_path, "train/b", ".JPG")
    write(tmp_path / "images/train/._a.jpg", "of macOS")
    write(tmp_path / "images/train/.cache/x.jpg", "hidden")
    write(tmp_path / "images/train/notes.docx", "no picture")
    write(tmp_path / "classes.txt", TWO)
    train = data.load("folder", "train", tmp_path)
    assert len(train) == 2 and shares(train) == [81.771, 18.229]
    assert len(train.notes) == 1 and "left out 1 file" in train.notes[0]
    assert "notes.docx" in train.notes[0]
    pair(tmp_path, "train/c")
    (tmp_path / "images/train/c.jpg").unlink()
    with pytest.raises(DataError, match=r"1 label map without an image .*c\.png"):
        data.load("folder", "train", tmp_path)


def test_masks_beside_their_pictures(tmp_path):
    names = [f"p{i}" for i in range(7)]
    for name in names:
        save(tmp_path / f"{name}.jpg", picture())
        save(tmp_path / f"{name}_mask.png", mask())
    save(tmp_path / "alone.jpg", picture())
    write(tmp_path / "classes.txt", TWO)
    assert everything(tmp_path) == [f"{name}.jpg" for name in names]
    assert "without a mask: alone.jpg" in data.load("folder", "train", tmp_path).notes[0]


def test_roboflows_masks_with_their_csv(tmp_path):
    for split in ("train", "valid"):
        for i in range(2):
            save(tmp_path / f"{split}/p{i}_jpg.rf.0a.jpg", picture(i))
            save(tmp_path / f"{split}/p{i}_jpg.rf.0a_mask.png", mask(7))
        write(tmp_path / f"{split}/_classes.csv", "Pixel Value, Class\n0, background\n7, car\n")
    assert sizes(tmp_path) == {"train": 2, "val": 2}
    train = data.load("folder", "train", tmp_path)
    assert train.classes.names == ("background", "car") and shares(train) == [81.771, 18.229]
    save(tmp_path / "train/p0_jpg.rf.0a_mask.png", mask(5))
    with pytest.raises(DataError, match=r"found label 5; expected one of 0, 7, 255 \(_classes"):
        data.check(data.load("folder", "train", tmp_path))
    write(tmp_path / "train/_classes.csv", "Pixel Value, Class\n0, a\n0, b\n")
    with pytest.raises(DataError, match="line 3 has a value or a class named before"):
        data.load("folder", "train", tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".jfif"])
def test_cvat_masks_in_the_folders_of_the_task(tmp_path, suffix):
    names = [*(f"a{i}" for i in range(6)), *(f"tuesday/a{i}" for i in range(4))]
    for name in names:
        save(tmp_path / f"JPEGImages/{name}{suffix}", Image.fromarray(picture()),
             format="PNG" if suffix == ".PNG" else "JPEG")  # fmt: skip
        save(tmp_path / f"SegmentationClass/{name}.png", mask())
    write(tmp_path / "ImageSets/Segmentation/default.txt", "\n".join(names))
    write(tmp_path / "labelmap.txt", "background:0,0,0::\ncar:1,1,1::\n")
    assert len(everything(tmp_path)) == 10
    assert shares(data.load("folder", "train", tmp_path)) == [81.771, 18.229]


def embedded():
    content = io.BytesIO()
    Image.fromarray(picture()).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


LAYOUTS = {
    "images and json": ("images/{}.jpg", "json/{}.json", "..\\images\\{}.jpg", {}),
    "images and labels": ("images/{}.jpg", "labels/{}.json", "../images/{}.jpg", {}),
    "of another machine": ("{}.jpg", "{}.json", "D:\\photos\\2024\\{}.jpg", {}),
    "another folder": ("{}.png", "{}.json", "..\\files\\{}.jpg", {}),
    "embedded": (None, "{}.json", "{}.jpg", {"imageData": embedded()}),
    "no size": ("{}.jpg", "{}.json", "{}.jpg", {"imageHeight": None, "imageWidth": None}),
    "deep": ("a/x/{}.jpg", "a/x/{}.json", "{}.jpg", {}),
    "splits of labels": ("images/day/{}.jpg", "labels/day/{}.json", "{}.jpg", {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labelmes_layouts(tmp_path, layout):
    image, annotation, stored, more = LAYOUTS[layout]
    names = [f"p{i}" for i in range(6)]
    for name in names:
        if image:
            save(tmp_path / image.format(name), picture())
        labelme(tmp_path / annotation.format(name), stored.format(name), CAR, **more)
    write(tmp_path / "classes.txt", TWO)
    sets = [data.load("folder", split, tmp_path) for split in ("train", "val")]
    assert sum(map(len, sets)) == 6 and len(sets[1]) >= 1
    for dataset in sets:
        assert shares(dataset) == [80.176, 19.824]
        assert np.abs(dataset[0].image.astype(int) - picture()).mean() < 12
    # A folder that only holds JSON is no split.
    assert "json" not in data.splits("folder", tmp_path)
    assert "labels" not in data.splits("folder", tmp_path)


def test_roboflows_coco_as_it_comes(tmp_path):
    rows = ("vehicles-abcd", "car")
    for split in ("train", "valid"):
        names = [f"{split}{i}_jpg.rf.0{i}.jpg" for i in range(3)]
        for name in names:
            save(tmp_path / split / name, picture())
        annotations = [(i, 1, {"segmentation": [RING], "area": 560}) for i in range(3)]
        path = coco(tmp_path / split / "_annotations.coco.json", names, annotations, rows, first=0)
        text = path.read_text().replace(
            '"name": "car"', '"name": "car", "supercategory": "vehicles-abcd"'
        )
        path.write_text(text)
    assert Instances(path).groups == {0}
    assert sizes(tmp_path) == {"train": 3, "val": 3}
    train = data.load("folder", "train", tmp_path)
    assert train.classes.names == ("background", "car") and shares(train) == [81.771, 18.229]


@pytest.mark.parametrize("place", ["result.json", "annotations/instances_default.json"])
def test_coco_with_backslashes_at_the_root(tmp_path, place):
    names = [f"p{i}.jpg" for i in range(6)]
    for name in names:
        save(tmp_path / "images" / name, picture())
    annotations = [(i, 0, {"segmentation": [RING]}) for i in range(6)]
    coco(tmp_path / place, [f"images\\{n}" for n in names], annotations, ("car",), first=0)
    assert everything(tmp_path) == [f"images/{name}" for name in names]
    assert shares(data.load("folder", "train", tmp_path)) == [81.771, 18.229]


def test_ids_of_another_type_are_the_same_ids(tmp_path):
    outlines = [(image, 1, {"segmentation": [RING]}) for image in (0, 1)]
    path = coco(tmp_path / "a.json", ["a.jpg", "b.jpg"], outlines)
    content = json.loads(path.read_text())
    for item in content["annotations"]:
        item.update(image_id=str(item["image_id"]), category_id=1.0)
    write_json(path, content)
    for name in "ab":
        save(tmp_path / f"{name}.jpg", picture())
    assert shares(data.load("folder", "train", tmp_path)) == [81.771, 18.229]


@pytest.mark.parametrize("what", ["ids of categories", "entries of a picture", "files of a name"])
def test_what_is_there_twice_in_coco_is_refused(tmp_path, what):
    path = coco(tmp_path / "a.json", ["a.jpg", "b.jpg"], [(0, 1, {"segmentation": [RING]})])
    content = json.loads(path.read_text())
    entry = content["images"][0]
    if what == "ids of categories":
        content["categories"].append({"id": 1, "name": "road"})
    else:
        other = "other/a.jpg" if what == "files of a name" else "a.jpg"
        content["images"].append({**entry, "id": 7, "file_name": other})
    write_json(path, content)
    for name in "ab":
        save(tmp_path / f"{name}.jpg", picture())
    said = (
        "two categories have the same id" if what == "ids of categories" else "are both labels of"
    )
    with pytest.raises(DataError, match=said):
        for split in ("train", "val"):
            data.load("folder", split, tmp_path)


def test_two_labelme_files_of_one_picture_are_refused(tmp_path):
    save(tmp_path / "a.jpg", picture())
    for name in ("a", "a copy"):
        labelme(tmp_path / f"train/{name}.json", "../a.jpg", [shape("car", CORNERS)])
    with pytest.raises(DataError, match=r"a\.json and .*a copy\.json are both labels of the pict"):
        data.load("folder", "train", tmp_path)


def test_cvat_names_the_pictures_without_a_mask(tmp_path):
    for name in "abc":
        save(tmp_path / f"JPEGImages/{name}.jpg", picture())
    for name in "ab":
        save(tmp_path / f"SegmentationClass/{name}.png", mask())
    write(tmp_path / "labelmap.txt", "background:0,0,0::\ncar:250,50,83::\n")
    notes = data.load("folder", "train", tmp_path).notes
    assert [note.partition(": ")[2] for note in notes] == ["left out 1 file without a mask: c.jpg"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_a_name_that_is_not_in_utf8_is_refused(tmp_path):
    for name in "abc":
        pair(tmp_path, name)
    for folder, suffix in (("images", ".jpg"), ("labels", ".png")):
        file = tmp_path / folder / f"b{suffix}"
        file.rename(file.with_name(os.fsdecode(b"\xff" + suffix.encode())))
    write(tmp_path / "classes.txt", TWO)
    with pytest.raises(DataError, match=r"images: the name '\\udcff\.jpg' is not in UTF-8"):
        data.load("folder", "train", tmp_path)
