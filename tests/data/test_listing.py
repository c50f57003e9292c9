"""Files of a data set by their names: found, paired, divided into splits."""

import unicodedata

import pytest

from kfcn.data.dataset import spread
from kfcn.data.listing import (
    all_splits,
    find_file,
    list_files,
    match_files,
    part,
    split_in_path,
    split_names,
)
from kfcn.errors import DataError

IMAGES = frozenset({".jpg", ".png"})


def touch(folder, *names):
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def test_hidden_files_are_no_part_and_others_are_left_out(tmp_path):
    touch(tmp_path, "b.JPG", "a/x.png", "._b.jpg", ".cache/y.jpg", "a/notes.txt")
    found = list_files(tmp_path, IMAGES)
    assert found.files == {"a/x": tmp_path / "a/x.png", "b": tmp_path / "b.JPG"}
    assert found.left_out == ["a/notes.txt"]
    assert list(list_files(tmp_path, IMAGES, deep=False).files) == ["b"]


def test_other_suffixes_are_taken_where_no_wanted_file_has_the_name(tmp_path):
    touch(tmp_path, "a.png", "a.npy", "b.npy")
    found = list_files(tmp_path, IMAGES, besides=frozenset({".npy"}))
    assert found.files == {"a": tmp_path / "a.png", "b": tmp_path / "b.npy"}


def test_two_files_of_one_stem_are_refused(tmp_path):
    touch(tmp_path, "a.jpg", "a.png")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png have the same stem"):
        list_files(tmp_path, IMAGES)
    with pytest.raises(DataError, match="missing: no such folder"):
        list_files(tmp_path / "missing", IMAGES)


def test_links_that_lead_back_end(tmp_path):
    touch(tmp_path, "a/x.jpg")
    (tmp_path / "a/again").symlink_to(tmp_path / "a")
    assert list(list_files(tmp_path, frozenset({".jpg"})).files) == ["a/x"]


def test_masks_are_paired_by_the_names_of_their_images(tmp_path):
    touch(tmp_path / "images", "a.jpg", "a_mask.jpg", "s/b.jpg")
    touch(tmp_path / "labels", "a.png", "a_mask.png", "s/b_labels.png")
    pairs = match_files(tmp_path / "images", tmp_path / "labels").pairs
    assert {name: labels.name for name, (_, labels) in pairs.items()} == {
        "a": "a.png", "a_mask": "a_mask.png", "s/b": "b_labels.png",
    }  # fmt: skip


def test_a_file_is_found_whatever_the_unicode_form_of_its_path(tmp_path):
    composed = unicodedata.normalize("NFC", "\u00e4/\u00f6.png")
    touch(tmp_path, unicodedata.normalize("NFD", composed).replace(".png", ".PNG"))
    found = find_file(tmp_path / composed)
    assert found is not None and found.samefile(next(tmp_path.rglob("*.PNG")))
    assert find_file(tmp_path / "o.png") is None


def test_splits_have_several_names():
    assert split_names(["Valid", "training", "train", "other"]) == {
        "train": "train",
        "val": "Valid",
    }
    assert split_in_path("monday/Testing/train.jpg") == "test"
    assert split_in_path("train.jpg") is None
    assert list(all_splits(["other", "Valid", "val", "train"]).items()) == [
        ("train", "train"), ("val", "val"), ("other", "other"), ("Valid", "Valid"),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 7])
def test_of_a_few_pictures_one_is_held_out(count):
    for first in range(40):
        names = [f"p{i}" for i in range(first, first + count)]
        train, val = part(names, "train"), part(names, "val")
        assert train and val and train | val == set(names) and not train & val


def test_the_rule_keeps_a_picture_where_it_was():
    names = [f"picture{i}" for i in range(300)]
    before, after = part(names[:200], "val"), part(names, "val")
    assert before == after & set(names[:200]) and 15 <= len(after) <= 45


@pytest.mark.parametrize(
    ("length", "count", "expected"),
    [
        (0, 3, []),
        (1, 3, [0]),
        (3, 8, [0, 1, 2]),
        (9, 1, [0]),
        (9, 3, [0, 4, 8]),
        (6, 4, [0, 2, 3, 5]),
    ],
)
def test_a_few_are_spread_from_the_first_to_the_last(length, count, expected):
    assert spread(length, count) == expected
