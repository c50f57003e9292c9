"""Data that says two things at once is refused in one line, and not read as one of them."""

import base64

import numpy as np
import pytest
from drawn import CORNERS, labelme, mask, picture, save, shape, write
from PIL import Image

from kfcn import data
from kfcn.data.sets.voc import CLASSES as VOC
from kfcn.errors import DataError


def optimised(labels, colours):
    """What a program that makes PNG smaller writes: the colours that occur, numbered anew."""
    found, inverse = np.unique(labels, return_inverse=True)
    image = Image.fromarray(inverse.reshape(labels.shape).astype(np.uint8))
    image.putpalette([int(part) for label in found for part in colours[label]])
    return image


def labels_of(*values):
    return np.repeat(np.array(values, np.uint8), 64 * 48 // len(values)).reshape(48, 64)


def folder(root, stored, classes):
    write(root / "classes.txt", classes)
    save(root / "images/train/a.png", picture())
    save(root / "labels/train/a.png", stored)
    return data.load("folder", "train", root)


GREYS = [(value,) * 3 for value in range(256)]
TWENTY = "".join(f"class {n}\n" for n in range(21))


@pytest.mark.parametrize("values", [(0, 12, 15), (14, 15, 16, 17), (0, 15, 255)])
def test_greys_that_were_numbered_anew(tmp_path, values):
    labels = labels_of(*values)
    dataset = folder(tmp_path, labels, TWENTY)
    np.testing.assert_array_equal(dataset[0].labels, labels)
    save(tmp_path / "labels/train/a.png", optimised(labels, GREYS))
    with pytest.raises(DataError, match=r"a\.png: the index \d+ of its palette is shown as the"):
        dataset[0]


@pytest.mark.parametrize(
    ("values", "colours"),
    [
        ((0, 1), [(0, 0, 0), (255, 255, 255)]),
        ((0, 1, 2), [(0, 0, 0), (128, 128, 128), (255, 255, 255)]),
        ((0, 1, 2), [(0, 0, 0)] * 3),
        ((0, 7), VOC.palette),
        ((0, 1, 2, 20), GREYS),
    ],
)
def test_palettes_that_say_nothing_else_are_read_by_their_indices(tmp_path, values, colours):
    labels = labels_of(*values)
    stored = Image.fromarray(labels)
    stored.putpalette([part for colour in colours for part in colour])
    np.testing.assert_array_equal(folder(tmp_path, stored, TWENTY)[0].labels, labels)


def test_vocs_colours_that_were_numbered_anew(tmp_path):
    root = tmp_path / "VOC2012"
    labels = labels_of(0, 12, 15, 255)
    write(root / "ImageSets/Segmentation/train.txt", "a\n")
    save(root / "JPEGImages/a.jpg", picture())
    colours = {**dict(enumerate(VOC.palette)), 255: (224, 224, 192)}
    whole = Image.fromarray(labels)
    whole.putpalette([part for n in range(256) for part in colours.get(n, (1, 2, 3))])
    save(root / "SegmentationClass/a.png", whole)
    dataset = data.load("voc", "train", tmp_path)
    np.testing.assert_array_equal(dataset[0].labels, labels)
    save(root / "SegmentationClass/a.png", optimised(labels, colours))
    with pytest.raises(DataError, match=r"the index 1 of its palette has the colour of class 12"):
        dataset[0]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_white_that_is_a_class_and_a_number(tmp_path, mode):
    shown = Image.fromarray(labels_of(0, 255)).convert(mode)
    classes = "background #000000\nwater #0000ff\nbuilding #ffffff\n"
    dataset = folder(tmp_path, shown.convert("RGB"), classes)
    np.testing.assert_array_equal(dataset[0].labels, labels_of(0, 2))
    save(tmp_path / "labels/train/a.png", shown)
    with pytest.raises(DataError, match=r"is in grey, and its 0, 255 are colours of classes"):
        dataset[0]
    save(tmp_path / "labels/train/a.png", labels_of(0, 1, 2, 255))  # numbers, beyond doubt
    np.testing.assert_array_equal(dataset[0].labels, labels_of(0, 1, 2, 255))


def test_splits_of_other_classes(tmp_path):
    for split, names in (("train", "cat dog"), ("valid", "dog cat")):
        save(tmp_path / split / "a.png", picture())
        save(tmp_path / split / "a_mask.png", mask())
        rows = [f"{value}, {name}\n" for value, name in enumerate(f"background {names}".split())]
        write(tmp_path / split / "_classes.csv", "Pixel Value, Class\n" + "".join(rows))
    source = data.Source("folder", tmp_path)
    with pytest.raises(DataError, match="train are background, cat, dog, those of val background"):
        data.open_splits(source, ["train", "val"])
    assert len(data.open_splits(source, ["val"])) == 1


def test_two_masks_of_one_picture(tmp_path):
    write(tmp_path / "a/classes.txt", "background\ncar\n")
    for name in ("images/train/x.png", "labels/train/x_mask.png", "labels/train/x_seg.png"):
        save(tmp_path / "a" / name, mask())
    write(tmp_path / "b/classes.txt", "background\ncar\n")
    for name in ("x.jpg", "x_mask.png", "x_label.png"):
        save(tmp_path / "b" / name, mask())
    for root in ("a", "b"):
        with pytest.raises(DataError, match=r"x_\w+\.png are both label maps of the picture x"):
            data.load("folder", "train", tmp_path / root)


def test_a_labelme_file_that_names_the_picture_of_another(tmp_path):
    shapes = [shape("car", CORNERS)]
    for name in "abcd":
        save(tmp_path / f"{name}.png", picture(ord(name)))
        labelme(tmp_path / f"{name}.json", f"{name}.png", shapes)
    (tmp_path / "d.json").unlink()
    labelme(tmp_path / "c.json", "d.png", shapes)  # as after d.png was given the name c.png
    with pytest.raises(DataError, match=r"c\.json: its imagePath names d\.png, and c\.png has its"):
        [data.load("folder", split, tmp_path) for split in ("train", "val")]
    embedded = base64.b64encode((tmp_path / "c.png").read_bytes()).decode()
    labelme(tmp_path / "c.json", "d.png", shapes, imageData=embedded)
    found = [data.load("folder", split, tmp_path) for split in ("train", "val")]
    pictures = {d.label_name(i): d.file_name(i) for d in found for i in range(len(d))}
    assert pictures["c.json"] == "c.png"
