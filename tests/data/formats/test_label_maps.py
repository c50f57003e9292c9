"""Masks in every way that people store them: the right labels, or why not."""

import numpy as np
import pytest
from drawn import SHARE, folder, mask, picture, save, shares, write
from PIL import Image

from kfcn import data
from kfcn.data.formats.classes_txt import read_class_file
from kfcn.data.formats.label_maps import read_labels
from kfcn.errors import DataError

BOX_SHARE = [round(100 - 100 * SHARE, 3), round(100 * SHARE, 3)]  # 81.771, 18.229


def test_a_second_class_stored_as_255_is_said_and_not_trained_on(tmp_path):
    folder(tmp_path, [mask(255)] * 3)
    with pytest.raises(DataError) as error:
        data.check(data.load("folder", "train", tmp_path))
    for words in ("one class of 2", "18.2 % are 255 = ignore", "a second class is stored as 1",
                  "--ignore none", "`lesion = 255`"):  # fmt: skip
        assert words in str(error.value)
    none = data.load("folder", "train", tmp_path, reading=data.Reading(ignore="none"))
    assert shares(none) == BOX_SHARE
    write(tmp_path / "classes.txt", "background\nlesion = 255\n")
    assert shares(data.load("folder", "train", tmp_path)) == BOX_SHARE
    # Where nothing else is meant, 255 is still ignored.
    other = folder(tmp_path / "b", [np.where(np.arange(64) < 2, 255, mask()).astype(np.uint8)])
    assert data.load("folder", "train", other)[0].labels[0, 0] == 255


def test_one_class_alone_is_for_validation_only_a_warning(tmp_path):
    folder(tmp_path, [mask(0)], split="val")
    assert data.check(data.load("folder", "val", tmp_path)).images == 1
    with pytest.raises(DataError, match=r"one class of 2: 100\.0 % of its pixels are background"):
        data.check(data.load("folder", "val", tmp_path), training=True)


def test_masks_in_the_colours_of_the_classes(tmp_path):
    colours = np.zeros((48, 64, 3), np.uint8)
    colours[mask() > 0] = (255, 0, 0)
    folder(tmp_path, [colours], "background #000000\ncar #ff0000\n")
    assert shares(data.load("folder", "train", tmp_path)) == BOX_SHARE
    colours[0, 0] = (254, 0, 0)
    folder(tmp_path, [colours], "background #000000\ncar #ff0000\n")
    with pytest.raises(DataError, match=r"p0\.png: found the colour \(254, 0, 0\)"):
        data.check(data.load("folder", "train", tmp_path))


def test_black_and_white_by_their_colours(tmp_path):
    folder(tmp_path, [mask(255)], "background 0 0 0\ndefect 255 255 255\n")
    assert shares(data.load("folder", "train", tmp_path)) == BOX_SHARE


@pytest.mark.parametrize("twin", ["grey", "palette", "one bit", "RGB"])
def test_cvats_grey_masks_are_read_as_their_twin_in_colour(tmp_path, twin):
    image = Image.fromarray(mask(255))
    if twin == "palette":
        image = Image.fromarray(mask(1))
        image.putpalette([0, 0, 0, 255, 255, 255])
    elif twin != "grey":
        image = image.convert({"one bit": "1", "RGB": "RGB"}[twin])
    save(tmp_path / "JPEGImages/a.jpg", picture())
    save(tmp_path / "JPEGImages/b.jpg", picture(1))
    for name in "ab":
        save(tmp_path / f"SegmentationClass/{name}.png", image)
    write(tmp_path / "labelmap.txt", "background:0,0,0::\ndefect:255,255,255::\n")
    assert shares(data.load("folder", "train", tmp_path)) == BOX_SHARE


def test_three_equal_channels_and_whole_floats_are_numbers(tmp_path):
    labels = mask(7)
    save(tmp_path / "rgb.png", np.repeat(labels[..., None], 3, axis=2))
    save(tmp_path / "float.tif", labels.astype(np.float32))
    save(tmp_path / "deep.tif", labels.astype(np.uint16))
    for name in ("rgb.png", "float.tif", "deep.tif"):
        np.testing.assert_array_equal(read_labels(tmp_path / name), labels)
    save(tmp_path / "half.tif", labels.astype(np.float32) / 2)
    with pytest.raises(DataError, match=r"half\.tif: found label 3\.5; expected class indices"):
        read_labels(tmp_path / "half.tif")
    save(tmp_path / "nan.tif", np.full((3, 3), np.nan, np.float32))
    with pytest.raises(DataError, match="found label nan"):
        read_labels(tmp_path / "nan.tif")


@pytest.mark.parametrize(
    ("suffix", "words"),
    [(".jpg", "a JPEG cannot hold labels"), (".gif", "a GIF cannot hold labels"),
     (".npy", "a NumPy file; save the array as PNG"), (".npz", "a zip archive, such as NumPy's")],
)  # fmt: skip
def test_files_that_hold_no_labels_are_named_as_what_they_are(tmp_path, suffix, words):
    write(tmp_path / "classes.txt", "background\ncar\n")
    save(tmp_path / "images/train/a.jpg", picture())
    path = tmp_path / f"labels/train/a{suffix}"
    path.parent.mkdir(parents=True)
    if suffix == ".npy":
        np.save(path, mask())
    elif suffix == ".npz":
        np.savez(path, mask())
    else:
        save(path, mask())
    with pytest.raises(DataError, match=f"1 label map.*{words}"):
        data.load("folder", "train", tmp_path)
    renamed = path.rename(path.with_suffix(".png"))  # a JPEG that is called PNG
    with pytest.raises(DataError, match=words):
        read_labels(renamed)


def test_a_file_of_classes_with_two_of_one_name_colour_or_number(tmp_path):
    for text, fault in (
        ("a\nb\na\n", "a class named before"),
        ("a #ff0000\nb 255 0 0\n", "the colour of 'a'"),
        ("a = 3\nb = 3\n", "the stored number of 'a'"),
        ("a = 256\n", "a stored number above 255"),
        ("a 1 2 300\n", "a colour above 255"),
        ("\n \n", "found 0 classes"),
    ):
        with pytest.raises(DataError, match=fault):
            read_class_file(write(tmp_path / "classes.txt", text))
    found = read_class_file(write(tmp_path / "classes.txt", "red car  #ff0080 = 7\nroad 1 2 3\n"))
    assert found.classes.names == ("red car", "road") and found.stored == (7, 1)
    assert found.classes.palette == ((255, 0, 128), (1, 2, 3)) and found.coloured


def test_two_classes_of_one_name_or_colour_in_a_labelmap(tmp_path):
    for text, fault in (
        ("a:0,0,0::\na:1,1,1::\n", "names the class 'a' a second time"),
        ("a:0,0,0::\nb:0,0,0::\n", "'a' and 'b' have the same colour"),
        ("a:0,0\n", "not of the form"),
        ("a:0,0,256::\n", "numbers from 0 to 255"),
    ):
        write(tmp_path / "labelmap.txt", text)
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=fault):
            data.load("folder", "train", tmp_path)
