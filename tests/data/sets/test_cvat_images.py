"""CVAT's XML for images: shapes by value, beside what labelme's of the same points give."""

import math

import numpy as np
import pytest
from drawn import CORNERS, SIZE, cvat, labelme, picture, save, shape, shares, write

from kfcn import data
from kfcn.errors import DataError

USUAL = data.Reading()
SPARSE = data.Reading(unlabelled="ignore")
CAR = '<polygon label="car" points="12,10;40,10;40,30;12,30"/>'


def export(root, shapes, labels=("road", "car"), size=SIZE):
    """A task of one drawing, twice: one picture for training and one for validation."""
    names = ("a.png", "b.png")
    for name in names:
        save(root / "images" / name, picture(size=size))
    return cvat(root / "annotations.xml", dict.fromkeys(names, shapes), labels, size)


def labels_of(root, reading=USUAL):
    return data.load("folder", "train", root, reading=reading)[0].labels


def as_labelme(root, shapes, reading=USUAL):
    """What labelme's file of the same shapes gives."""
    for split in ("train", "val"):
        save(root / split / "a.png", picture())
        labelme(root / split / "a.json", "a.png", shapes)
    write(root / "classes.txt", "background\nroad\ncar\n")
    return labels_of(root, reading)


STROKES = (
    '<polyline label="car" points="20.00,15.00;35.50,25.25;50,20" occluded="0" z_order="0"/>'
    '<polyline label="background" points="5,40;60,45"/>'
    '<points label="road" points="14,12;50.5,8"/>'
)
SAME = [
    shape("car", [[20, 15], [35.5, 25.25], [50, 20]], "linestrip"),
    shape("background", [[5, 40], [60, 45]], "linestrip"),
    shape("road", [[14, 12]], "point"),
    shape("road", [[50.5, 8]], "point"),
]


def test_lines_and_points_are_drawn_as_those_of_labelme(tmp_path):
    export(tmp_path / "cvat", STROKES)
    for number, reading in enumerate((USUAL, SPARSE)):
        found = labels_of(tmp_path / "cvat", reading)
        np.testing.assert_array_equal(found, as_labelme(tmp_path / str(number), SAME, reading))
    assert set(np.unique(found)) == {0, 1, 2, 255}
    other = as_labelme(tmp_path / "control", SAME[:2], SPARSE)  # without the points
    assert (other != found).any()


def test_by_hand(tmp_path):
    line = '<polyline label="car" points="10,20;40,20"/>'
    export(tmp_path, line + '<points label="road" points="55,40"/>')
    found = labels_of(tmp_path, SPARSE)
    rows, columns = np.nonzero(found == 2)
    assert (columns.min(), columns.max()) == (10, 40) and np.ptp(rows) == 9  # ten pixels wide
    assert (rows >= 15).all() and (rows <= 25).all()
    rows, columns = np.nonzero(found == 1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (35, 45, 50, 60)
    assert (found == 0).sum() == 0
    full = labels_of(tmp_path)
    np.testing.assert_array_equal(full == 0, found == 255)  # background where nothing is said


def test_classes_are_the_background_and_the_labels_of_the_task(tmp_path):
    export(tmp_path, CAR)
    dataset = data.load("folder", "val", tmp_path)
    assert dataset.classes.names == ("background", "road", "car")
    assert dataset.classes.palette == ((0, 0, 0), (0, 0, 0x60), (0, 0, 0x61))
    assert dataset.label_name(0).startswith("annotations.xml: ")
    assert shares(dataset) == [80.176, 0.0, 19.824]  # 21 x 29 of 48 x 64, as in labelme
    np.testing.assert_array_equal(
        dataset[0].labels, as_labelme(tmp_path / "labelme", [shape("car", CORNERS)])
    )
    write(tmp_path / "classes.txt", "car\nroad\n")  # goes first
    dataset = data.load("folder", "val", tmp_path)
    assert dataset.classes.names == ("car", "road")
    assert set(np.unique(dataset[0].labels)) == {0, 255}  # there is no background


def test_what_is_drawn_as_ignored_is_no_class(tmp_path):
    """It was a class of the net's, which no pixel ever had."""
    ignored = '<box label="__ignore__" xtl="0" ytl="0" xbr="4" ybr="2"/>'
    export(tmp_path, CAR + ignored, ("__ignore__", "road", "car"))
    assert data.load("folder", "train", tmp_path).classes.names == ("background", "road", "car")
    found = labels_of(tmp_path)
    assert np.unique(found).tolist() == [0, 2, 255]
    assert (found == 255).sum() == 5 * 3


def test_boxes_ellipses_and_masks(tmp_path):
    export(tmp_path, '<box label="car" xtl="10" ytl="5" xbr="20" ybr="9"/>')
    rows, columns = np.nonzero(labels_of(tmp_path) == 2)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 9, 10, 20)
    export(tmp_path, '<box label="car" xtl="10" ytl="20" xbr="40" ybr="30" rotation="90"/>')
    rows, columns = np.nonzero(labels_of(tmp_path) == 2)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 40, 20, 30)
    export(tmp_path, '<box label="car" xtl="10" ytl="20" xbr="40" ybr="30" rotation="30"/>')
    rows, columns = np.nonzero(labels_of(tmp_path) == 2)
    assert rows[columns.argmin()] < 25 < rows[columns.argmax()]  # clockwise: right end is lower
    export(tmp_path, '<ellipse label="road" cx="30" cy="24" rx="20" ry="10" rotation="0"/>')
    found = labels_of(tmp_path) == 1
    assert abs(found.sum() / (math.pi * 20.5 * 10.5) - 1) < 0.03
    assert found[24, 10] and found[24, 50] and not found[12, 30] and not found[24, 52]
    runs = '<mask label="car" rle="1, 2, 1, 4" left="7" top="3" width="4" height="2"/>'
    export(tmp_path, runs)
    expected = np.zeros(SIZE, bool)
    expected[3, 8:10] = expected[4, 7:11] = True
    np.testing.assert_array_equal(labels_of(tmp_path) == 2, expected)


def test_the_deeper_lies_below_and_of_one_depth_the_earlier(tmp_path):
    above = '<box label="car" xtl="0" ytl="0" xbr="20" ybr="20" z_order="{}"/>'
    below = '<box label="road" xtl="10" ytl="0" xbr="30" ybr="20" z_order="0"/>'
    for depth, at_overlap in (("1", 2), ("0", 1), ("-1", 1)):
        export(tmp_path, above.format(depth) + below)
        assert labels_of(tmp_path)[10, 15] == at_overlap, depth


def test_what_covers_nothing_is_left_out_and_counted(tmp_path):
    export(tmp_path, CAR + '<tag label="road"/><cuboid label="car" xtl1="1"/>')
    dataset = data.load("folder", "train", tmp_path)
    assert "left out 2 cuboid, 2 tag" in dataset.notes[0]
    assert set(np.unique(dataset[0].labels)) == {0, 2}


def test_pictures_that_the_file_does_not_name_are_counted(tmp_path):
    export(tmp_path, CAR)
    assert data.load("folder", "train", tmp_path).notes == ()
    save(tmp_path / "images/c.png", picture())
    assert data.load("folder", "train", tmp_path).notes == (
        f"{tmp_path}: left out 1 file that annotations.xml does not name: c",
    )


def test_subsets_of_a_project_are_splits(tmp_path):
    names = ("x/1.png", "2.png", "3.png")
    for name, subset in zip(names, ("Train", "Train", "Validation"), strict=True):
        save(tmp_path / "images" / subset / name, picture())
    shapes = dict.fromkeys(names, CAR)
    subsets = dict(zip(names, ("Train", "Train", "Validation"), strict=True))
    cvat(tmp_path / "annotations.xml", shapes, **subsets)
    assert data.splits("folder", tmp_path) == ("train", "val")
    train = data.load("folder", "train", tmp_path)
    assert [train.file_name(i) for i in range(2)] == [
        "images/Train/2.png", "images/Train/x/1.png",
    ]  # fmt: skip
    assert len(data.load("folder", "val", tmp_path)) == 1


FAULTS = {
    '<polyline label="bus" points="1,1;9,9"/>': "found a shape named 'bus'; expected one of",
    '<polyline label="car" points="1,1"/>': r"1 point; expected 2 or more",
    '<polyline label="car" points="1,nan;9,9"/>': "points 'nan'; expected a number",
    '<polyline label="car" points="1,1;9"/>': r"found the point \[9.0\]; expected \[x, y\]",
    '<points label="car" points="1,9999"/>': "far outside of the image",
    '<points points="1,1"/>': "a points without a label",
    '<box label="car" xtl="1" ytl="1" xbr="9"/>': "ybr None; expected a number",
    '<mask label="car" rle="1,2" left="0" top="0" width="4" height="2"/>': "runs of 3 pixels",
    '<polygon label="car" points="': "cannot be read as XML",
}


@pytest.mark.parametrize("shapes", FAULTS)
def test_a_shape_that_cannot_be_painted_is_one_line(tmp_path, shapes):
    export(tmp_path, shapes)
    with pytest.raises(DataError, match=FAULTS[shapes]) as fault:
        data.load("folder", "train", tmp_path)[0]
    assert "annotations.xml" in str(fault.value) and "\n" not in str(fault.value)


def test_other_files_are_refused_with_what_to_do(tmp_path):
    path = export(tmp_path, CAR)
    good = path.read_text()
    for wrong, message in (
        (good.replace("<image ", "<track id='0'/><image ", 1), 'export as "CVAT for images 1.1"'),
        (good.replace("annotations>", "note>"), "holds 'note'; expected annotations of images"),
        (good.replace("?>", "?><!DOCTYPE x>", 1), "has a document type"),
        (good.replace('width="64"', 'width="0"'), "has height '48' and width '0'"),
        (good.replace('width="64"', 'width="65"'), "is 48x65 there; the image is 48x64"),
        (good.replace('name="a.png"', 'name=""'), "an image without a name"),
        (good.replace("b.png", "a.png"), "both labels of the picture"),
        (good.replace("b.png", "c.png"), "1 of 1 image in neither"),
    ):
        path.write_text(wrong)
        with pytest.raises(DataError, match=message):
            for split in ("train", "val"):
                data.load("folder", split, tmp_path)[0]
