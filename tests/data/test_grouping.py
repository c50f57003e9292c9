"""`--classes`: what a list or file means, and what becomes of labels and colours."""

import json

import numpy as np
import pytest
from small_nets import PLAIN, settings

from kfcn import data, evaluate, train
from kfcn.data.audit.audit import Audit, audit_split
from kfcn.data.catalog import Source
from kfcn.data.dataset import Dataset, Sample
from kfcn.data.grouping import Grouping
from kfcn.data.regrouped import Regrouped
from kfcn.errors import DataError, UsageError
from kfcn.labels import Classes, voc_coloured

TOYS = Classes(
    ("floor", "cat", "dog", "cow", "person", "sofa, bed"),
    ((9, 9, 9), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0), (5, 0, 0)),
)
BLACK = (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "names", "palette", "labels"),
    [
        # What floor, cat, dog, cow, person and sofa become, 255 = ignored.
        ("person,cat", "background person cat", [BLACK, (4, 0, 0), (1, 0, 0)], [0, 2, 0, 0, 1, 0]),
        ("person, cat, rest=ignore", "person cat", [(4, 0, 0), (1, 0, 0)],
         [255, 1, 255, 255, 0, 255]),
        ("animal = cat, dog, cow", "background animal", [BLACK, (1, 0, 0)], [0, 1, 1, 1, 0, 0]),
        ("person, animal=cat, cow, rest=ignore", "person animal", [(4, 0, 0), (1, 0, 0)],
         [255, 1, 255, 1, 0, 255]),
        ("dog = cat, dog; floor", "background dog floor", [BLACK, (2, 0, 0), (9, 9, 9)],
         [2, 1, 1, 0, 0, 0]),
        ('person\nignore = cat, "sofa, bed"\n# a remark\n\nfloor', "background person floor",
         [BLACK, (4, 0, 0), (9, 9, 9)], [2, 255, 0, 0, 1, 255]),
        ("person; rest = floor", "floor person", [(9, 9, 9), (4, 0, 0)], [0, 0, 0, 0, 1, 0]),
        ("person; ground = floor; rest = ground", "person ground", [(4, 0, 0), (9, 9, 9)],
         [1, 1, 1, 1, 0, 1]),
        ('cow,dog,cat,person,floor,"sofa, bed"', "cow dog cat person floor sofa,_bed",
         [(3, 0, 0), (2, 0, 0), (1, 0, 0), (4, 0, 0), (9, 9, 9), (5, 0, 0)], [4, 2, 1, 0, 3, 5]),
    ],
)  # fmt: skip
def test_what_becomes_of_classes(text, names, palette, labels):
    grouping = Grouping.parse(text)
    assert Grouping.parse(str(grouping)) == grouping and "\n" not in str(grouping)
    classes, relabel = grouping.apply(TOYS, "toys")
    assert classes.names == tuple(name.replace("_", " ") for name in names.split())
    assert list(classes.palette) == palette
    assert [relabel[label] for label in range(6)] == labels


def test_the_rest_has_a_colour_of_its_own():
    """Black is taken here: the next of the VOC palette that is free."""
    classes = Classes(("road", "sky", "car"), (BLACK, (128, 0, 0), (5, 5, 5)))
    found, _ = Grouping.parse("road, car").apply(classes, "toys")
    assert found.palette == ((0, 128, 0), BLACK, (5, 5, 5))
    assert len(set(found.palette)) == 3


def test_the_rest_has_another_colour_than_a_group_that_took_its_class():
    """Or the net's card had one colour twice, and opened nowhere."""
    classes = voc_coloured(["background", "red", "green"])
    found, _ = Grouping.parse("stuff = background, red").apply(classes, "toys")
    assert found.names == ("background", "stuff")
    assert found.palette[1] == BLACK and found.palette[0] not in classes.palette


def test_letters_that_are_taken_apart_are_the_same():
    classes = voc_coloured(["a\u0308pfel", "b", "c"])
    assert Grouping.parse("\u00e4pfel, b").apply(classes, "toys")[1] == {0: 1, 1: 2, 2: 0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("person,dgo", "toys has no class 'dgo'; it has: floor, cat, dog, cow, person, sofa, bed"),
        ("ignore = dgo; cat, dog", "toys has no class 'dgo'"),
        ("cat,cat", "'cat' is named twice"),
        ("cat; pet = cat", "'cat' is to become 'cat' and 'pet'"),
        ("cat; ignore = cat", "'cat' is to become 'cat' and 'ignore'"),
        ("pet =", "'pet =': expected a name"),
        ("= cat", "'= cat': expected a name"),
        ("a = b = cat", "expected a name, or NAME = NAME"),
        ("ignore = cat", "expected names of classes"),
        ("", "expected names of classes"),
        ('"cat', "a quotation mark is not closed"),
        ("cat, rest = ignore, dog", "rest = ignore, dog: expected ignore or one class"),
        ("cat, rest = cat", "expected at least two; of toys they leave only cat"),
    ],
)
def test_what_makes_no_sense_is_told(text, told):
    with pytest.raises(UsageError) as caught:
        Grouping.parse(text).apply(TOYS, "toys")
    assert told in str(caught.value) and "\n" not in str(caught.value)


class Drawn(Dataset):
    """One picture with the labels that it is given."""

    name, split, classes = "drawn", "train", TOYS

    def __init__(self, labels):
        self.labels = np.array(labels, np.uint8)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return Sample(np.zeros((*self.labels.shape, 3), np.uint8), self.labels, "one.png")

    def file_name(self, index):
        return "one.png"


def test_labels_are_changed_and_wrong_ones_stay_wrong():
    dataset = Regrouped(Drawn([[0, 1, 2, 255], [4, 5, 77, 6]]), Grouping.parse("cat, person"))
    np.testing.assert_array_equal(dataset[0].labels, [[0, 1, 0, 255], [2, 0, 77, 6]])
    assert dataset.classes.names == ("background", "cat", "person")
    with pytest.raises(DataError, match=r"one\.png.*6"):
        data.check(dataset)
    assert data.check(Regrouped(Drawn([[0, 1, 4]]), Grouping.parse("cat, person"))).images == 1


def test_any_data_set_is_regrouped(pairs):
    raw = data.load("folder", "val", pairs)
    for text in ("shape = square, disc", "disc, rest = ignore; square"):
        classes, relabel = Grouping.parse(text).apply(raw.classes, "folder")
        seen = data.load("folder", "val", pairs, classes=text)
        table = np.array([relabel[i] for i in range(3)] + [255] * 253, np.uint8)
        assert seen.classes == classes and len(seen) == len(raw) == 4
        for index in range(4):
            np.testing.assert_array_equal(seen[index].labels, table[raw[index].labels])
            np.testing.assert_array_equal(seen[index].image, raw[index].image)
            assert seen.image_file(index) == raw.image_file(index)


def test_a_file_says_what_a_list_says(pairs, tmp_path):
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeffshape = square, disc\nignore = ground\n".encode())
    source = Source("folder", pairs, classes=str(file))
    assert source.chosen_classes() == "shape = square, disc; ignore = ground; rest = background"
    with pytest.raises(UsageError, match="expected at least two"):
        source.open("val")
    with pytest.raises(UsageError, match=r"classes no-such\.txt: cannot be read"):
        data.load("folder", "val", pairs, classes="no-such.txt")
    file.write_bytes(b"\n")
    with pytest.raises(UsageError, match=r"classes .*mine\.txt: the file is empty"):
        source.open("val")
    file.write_text("# animals\n# later\n")
    with pytest.raises(UsageError, match=r"^classes \S*mine\.txt: expected names of classes"):
        source.open("val")
    file.write_text('square\n# was: disc; ground\n  # pipes of 6" and more\n')
    assert source.chosen_classes() == "square; rest = background"
    file.write_text("square, disc, square\n")
    with pytest.raises(UsageError, match=r"^classes \S*mine\.txt: 'square' is named twice"):
        source.open("val")
    file.write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match="cannot be read"):
        data.load("folder", "val", pairs, classes=str(file))
    with pytest.raises(UsageError, match="folder has no class 'voc'; it has: ground, square, disc"):
        data.load("folder", "val", pairs, classes="voc")


def test_a_net_of_classes_that_the_data_lack_is_told_without_a_flag_that_nobody_gave(pairs):
    card = {"classes": ["background", "person"], "grouping": "person; rest = background"}
    source = Source("folder", pairs)
    with pytest.raises(UsageError) as caught:
        source.open_for(card, "val")
    assert str(caught.value) == (
        "the net was trained for background, person; folder has ground, square, disc: name "
        "those that are the net's with --classes, or choose other data"
    )
    named = Source("folder", pairs, classes="person = disc").open_for(card, "val")
    assert named.classes.names == ("background", "person")


def test_the_audit_shows_it(pairs):
    dataset = data.load("folder", "val", pairs, classes="shape = square, disc")
    text = Audit([audit_split(dataset)]).table()
    assert (
        "folder/val: classes background, shape; background is ground; shape is square, disc" in text
    )


def test_classes_that_keep_their_names_need_no_words(pairs):
    dataset = data.load("folder", "val", pairs, classes="disc, square, rest = ground")
    assert dataset.notes[-1] == "folder/val: classes ground, disc, square"


@pytest.mark.slow
def test_a_net_keeps_its_classes(pairs, tmp_path):
    """In config.json and on the card; measured on the raw data set as it was trained."""
    file = tmp_path / "mine.txt"
    file.write_text("shape = square, disc\n")
    given = settings(pairs, epochs=1, classes=str(file), **PLAIN)
    result = train(tmp_path / "run", **given)
    written = "shape = square, disc; rest = background"
    config = json.loads((tmp_path / "run/config.json").read_text())
    card = json.loads((tmp_path / "run/model.json").read_text())
    assert config["settings"]["classes"] == card["grouping"] == written
    assert card["classes"] == ["background", "shape"] == list(result.evaluation.classes)
    assert card["palette"] == [[0, 0, 0], [255, 0, 0]]

    file.unlink()
    assert train(tmp_path / "run", **{**given, "classes": "shape=square,disc"}).evaluation
    with pytest.raises(UsageError, match="classes=shape = square, disc; rest = background"):
        train(tmp_path / "run", **{**given, "classes": "square"})

    raw = data.load("folder", "val", pairs)
    again = evaluate(tmp_path / "run", "folder", "val", pairs)
    assert again.classes == ("background", "shape")
    pixels = sum(np.bincount(s.labels.ravel(), minlength=256) for s in raw)
    assert again.matrix.sum(1).tolist() == [pixels[0], pixels[1] + pixels[2]]
    np.testing.assert_array_equal(again.matrix, result.evaluation.matrix)
    with pytest.raises(UsageError, match="trained for 2 classes"):
        evaluate(tmp_path / "run", "folder", "val", pairs, classes="square,disc")
