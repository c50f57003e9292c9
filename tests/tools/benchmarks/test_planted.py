"""Errors that are planted in labels."""

import numpy as np
import pytest
from kfcn_tools.benchmarks.labels import planted as bench

from kfcn.data.dataset import Dataset
from kfcn.errors import UsageError
from kfcn.labels import Classes


def drawn():
    """On class 0 an object of class 1 (20x10) and a speck; class 2 below, an unlabelled row."""
    labels = np.zeros((60, 80), np.uint8)
    labels[30:] = 2
    labels[8:18, 40:60] = 1
    labels[50:52, 5:7] = 1  # too small for an object
    labels[0] = 255
    return labels


def test_objects_are_regions_of_a_fair_size():
    (found,) = bench.objects(drawn())  # not the halves, which are large, nor the speck
    expected = np.zeros((60, 80), bool)
    expected[8:18, 40:60] = True
    np.testing.assert_array_equal(found, expected)
    assert bench.objects(np.zeros((60, 80), np.uint8)) == []


def test_surroundings_are_what_lies_around():
    labels = drawn()
    (found,) = bench.objects(labels)
    assert bench.surroundings(labels, found) == 0
    labels[8:29, 34:66][~found[8:29, 34:66]] = 2  # below and at the sides more than above
    assert bench.surroundings(labels, found) == 2
    assert bench.surroundings(np.where(found, labels, 255), found) == 255


def test_a_swapped_class_is_another_on_the_same_pixels():
    labels, (found,) = drawn(), bench.objects(drawn())
    seen = set()
    for seed in range(40):
        wrong = bench.plant(labels, "swapped", 4, np.random.default_rng(seed))
        np.testing.assert_array_equal(wrong != labels, found)
        (value,) = np.unique(wrong[found])
        seen.add(int(value))
    assert seen == {0, 2, 3}


def test_a_left_out_object_has_the_label_around_it():
    labels, (found,) = drawn(), bench.objects(drawn())
    wrong = bench.plant(labels, "left out", 4, np.random.default_rng(0))
    np.testing.assert_array_equal(wrong, np.where(found, 0, labels))


def test_a_shifted_mask_lies_elsewhere_by_its_size():
    labels, (found,) = drawn(), bench.objects(drawn())
    for seed in range(8):
        wrong = bench.plant(labels, "shifted", 4, np.random.default_rng(seed))
        ys, xs = np.nonzero((wrong == 1) & (np.arange(60) < 45)[:, None])
        before = np.array(np.nonzero(found)).mean(1)
        moved = np.hypot(*(np.array([ys.mean(), xs.mean()]) - before))
        assert len(ys) == 200 and abs(moved - 0.3 * np.sqrt(200)) < 0.75  # to whole pixels
        assert (wrong[found & (wrong != 1)] == 0).all() and (wrong[0] == 255).all()


def test_without_an_object_nothing_is_planted():
    for kind in bench.KINDS:
        assert bench.plant(np.zeros((60, 80), np.uint8), kind, 4, np.random.default_rng(0)) is None


class Drawn(Dataset):
    """`drawn()`, 40 times; every fourth has no object."""

    name, split = "drawn", "train"
    classes = Classes(("a", "b", "c", "d"), ((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)))

    def __len__(self):
        return 40

    def __getitem__(self, index):
        from kfcn.data.dataset import Sample

        labels = drawn() if index % 4 else np.zeros((60, 80), np.uint8)
        return Sample(np.zeros((60, 80, 3), np.uint8), labels, self.file_name(index))

    def file_name(self, index):
        return f"{index}.png"


def test_a_share_of_the_pictures_has_an_error_of_each_kind():
    made = bench.Planted(Drawn(), 0.1, seed=0)
    assert sorted(made.wrong.values()) == sorted([*bench.KINDS] * 4)
    for index in range(40):
        right, wrong = Drawn()[index].labels, made[index].labels
        assert (right != wrong).any() == (index in made.wrong)
    assert not [index for index in made.wrong if index % 4 == 0]
    again, other = (bench.Planted(Drawn(), 0.1, seed).wrong for seed in (0, 1))
    assert again == made.wrong != other
    assert bench.Planted(Drawn(), 0.0, 0).wrong == {}
    with pytest.raises(UsageError, match="too few pictures have an object"):
        bench.Planted(Drawn(), 0.3, 0)
