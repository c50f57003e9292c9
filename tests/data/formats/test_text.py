"""Text files of every usual encoding, and lists of names as programs write them."""

import unicodedata

import pytest
from drawn import CORNERS, labelme, mask, picture, save, shape, shares, write

from kfcn import data
from kfcn.data.formats.classes_txt import class_lines, read_class_file
from kfcn.data.formats.lists import read_lines, read_names
from kfcn.data.formats.text import read_text
from kfcn.errors import DataError, UsageError
from kfcn.labels import Classes, voc_colour


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    save(tmp_path / "images/train/a.jpg", picture())
    save(tmp_path / "labels/train/a.png", mask())
    write(tmp_path / "classes.txt", "background\r\ncar\r\n", "utf-8-sig")
    train = data.load("folder", "train", tmp_path)
    assert train.classes.names == ("background", "car")
    labelme(tmp_path / "lm/train/a.json", "a.jpg", [shape("car", CORNERS)])
    save(tmp_path / "lm/train/a.jpg", picture())
    write(tmp_path / "lm/classes.txt", "background\ncar\n", "utf-8-sig")
    assert shares(data.load("folder", "train", tmp_path / "lm")) == [80.176, 19.824]
    for name in "ab":
        save(tmp_path / f"cvat/JPEGImages/{name}.jpg", picture())
        save(tmp_path / f"cvat/SegmentationClass/{name}.png", mask())
    write(tmp_path / "cvat/labelmap.txt", "background:0,0,0::\ncar:1,1,1::\n", "utf-8-sig")
    assert shares(data.load("folder", "train", tmp_path / "cvat")) == [81.771, 18.229]


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16 without a mark"), ("utf-32", "UTF-32"),
     ("latin-1", r"Latin-1 .*byte 0xf6")],
)  # fmt: skip
def test_another_encoding_is_named(tmp_path, encoding, words):
    path = write(tmp_path / "list.txt", "Größe.jpg\n", encoding)
    with pytest.raises(DataError, match=rf"list\.txt: is stored as {words}.*expected UTF-8"):
        read_lines(path)
    assert read_text(write(path, "Größe.jpg\n")) == "Größe.jpg\n"


def test_lists_are_read_as_they_are_meant(tmp_path):
    known = {"my image 1", "my image 2", "IMG-3", "sub/IMG-4"}
    lines = [
        '"my image 1"', "my image 2", "", "  ", "IMG-3 1", "IMG-3.jpg", "sub\\IMG-4.png",
        "'my image 2' -1",
    ]  # fmt: skip
    path = write(tmp_path / "train.txt", "\r\n".join(lines) + "\r\n", "utf-8-sig")
    assert read_names(path, known) == [
        "my image 1", "my image 2", "IMG-3", "IMG-3", "sub/IMG-4", "my image 2",
    ]  # fmt: skip
    # What is not known keeps its first word, for the message that it is missing.
    assert read_names(write(path, "gone 1\n"), known) == ["gone"]
    with pytest.raises(DataError, match=r"train\.txt: is empty; expected one name per line"):
        read_names(write(path, " \n\n"))


def test_names_are_compared_in_one_unicode_form(tmp_path):
    for form, other in (("NFD", "NFC"), ("NFC", "NFD")):
        root = tmp_path / form
        name = unicodedata.normalize(form, "Straße_München")
        save(root / f"images/train/{name}.jpg", picture())
        save(root / f"labels/train/{unicodedata.normalize(other, name)}.png", mask())
        write(root / "classes.txt", "background\ncar\n")
        assert shares(data.load("folder", "train", root)) == [81.771, 18.229]
        door = unicodedata.normalize(form, "Tür")
        labelme(
            root / f"lm/train/{name}.json", unicodedata.normalize(other, name) + ".jpg",
            [shape(unicodedata.normalize(other, door), CORNERS)],
        )  # fmt: skip
        save(root / f"lm/train/{name}.jpg", picture())
        write(root / "lm/classes.txt", f"background\n{door}\n")
        assert shares(data.load("folder", "train", root / "lm")) == [80.176, 19.824]


def class_file(tmp_path, text):
    return read_class_file(write(tmp_path / "classes.txt", text))


@pytest.mark.parametrize("text", [
    "0 background\n1 car\n", "0: background\n1: car\n", "0,background\n1,car\n",
    "background\t#000000  \ncar \n", "# a comment\nbackground\n#another\ncar\n",
    '"background"\n\'car\'\n', "background\rcar\r", "__ignore__\nbackground\ncar\n",
    "background\ncar\n__ignore__\n", "0 background\n1 car\n255 __ignore__\n",
])  # fmt: skip
def test_class_files_as_people_write_them(tmp_path, text):
    found = class_file(tmp_path, text)
    assert found.classes.names == ("background", "car") and found.stored == (0, 1)


def test_a_number_before_the_name_is_what_masks_hold(tmp_path):
    found = class_file(tmp_path, "7 road 128,64,128\n0 background 0 0 0\n")
    assert found.classes.names == ("road", "background") and found.stored == (7, 0)
    assert found.coloured and found.classes.palette == ((128, 64, 128), (0, 0, 0))
    # Not every number is one.
    assert class_file(tmp_path, "road\n2 wheeler\n4 wheeler\n").stored == (0, 1, 2)
    assert class_file(tmp_path, "2 wheeler\n4 wheeler\n").classes.names[0] == "2 wheeler"


def test_classes_without_a_colour_get_one_that_no_other_has(tmp_path):
    """Or the card of a net trained on them names two classes of one colour, and is refused."""
    found = class_file(tmp_path, "background #800000\ncar\nroad\nsky #c08000\nsea\n").classes
    assert found.palette == (
        (128, 0, 0), (128, 0, 128), (0, 128, 0), (192, 128, 0), (0, 0, 128)
    )  # fmt: skip
    assert found == Classes.from_json([*found.names], [[*colour] for colour in found.palette])
    many = [f"c{index}" for index in range(254)]
    palette = class_file(tmp_path, "\n".join(["first #800000", *many])).classes.palette
    assert len(set(palette)) == 255 and palette[1] == voc_colour(255)


@pytest.mark.parametrize("text, fault", [
    ("0 0 0 background\n255 0 0 car\n", "has a colour before its name; expected the name first"),
    ("#000000 background\n#ff0000 car\n", "has a colour before its name"),
    ("background\n__ignore__\ncar\n", "has __ignore__ before it; expected that in the first line"),
    ("back\x0bground\ncar\n", "has a character that cannot be printed"),
    ("background\u2028car\n", "has a character that cannot be printed"),
    ("1 background\n300 car\n", "has a stored number above 255"),
    ("__ignore__\n", "found 0 classes"),
    ("\n".join(f"c{index}" for index in range(300)), "found 300 classes; expected 1 to 255"),
])  # fmt: skip
def test_class_files_that_could_mean_something_else_are_refused(tmp_path, text, fault):
    with pytest.raises(DataError, match=fault):
        class_file(tmp_path, text)


def test_comments_in_lists(tmp_path):
    path = write(tmp_path / "train.txt", "# pictures\n#1\na\tb\n")
    assert read_names(path, {"a", "#1"}) == ["#1", "a"]
    with pytest.raises(DataError, match="holds only comments"):
        read_names(write(path, "# pictures\n"), {"a"})


def test_names_that_are_numbers_have_colours(tmp_path):
    found = class_file(tmp_path, "0 #000000\n1 255 0 0\n")
    assert found.classes == Classes(("0", "1"), ((0, 0, 0), (255, 0, 0))) and found.coloured


@pytest.mark.parametrize(
    "names", [("road", "car"), ("0", "1"), ("1 road", "2 car"), ("#1", "car"), ("a = 5", "b")]
)
def test_written_classes_are_read_again(tmp_path, names):
    classes = Classes(names, ((0, 0, 0), (255, 0, 0)))
    found = class_file(tmp_path, class_lines(classes))
    assert found.classes == classes and found.stored == (0, 1)


def test_a_name_that_no_class_file_holds_is_refused():
    with pytest.raises(UsageError, match=r"a classes\.txt cannot hold: __ignore__, car"):
        class_lines(Classes(("__ignore__", "car"), ((0, 0, 0), (255, 0, 0))))


@pytest.mark.parametrize("line", [".", "/", '" "', ".."])
def test_lines_of_lists_that_name_nothing(tmp_path, line):
    path = write(tmp_path / "train.txt", f"a\n{line}\n")
    assert read_names(path, {"a"}) in (["a"], ["a", line])
