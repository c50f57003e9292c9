"""Errors that are planted in labels, what a ranking is compared with, and both measurements."""

import itertools
import json

import numpy as np
import pytest
from kfcn_tools.benchmarks import labels as bench

from kfcn.data.dataset import Dataset
from kfcn.errors import UsageError
from kfcn.labelling.suspects import average_precision
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
    planted = bench.Planted(Drawn(), 0.1, seed=0)
    assert sorted(planted.wrong.values()) == sorted([*bench.KINDS] * 4)
    for index in range(40):
        right, wrong = Drawn()[index].labels, planted[index].labels
        assert (right != wrong).any() == (index in planted.wrong)
    assert not [index for index in planted.wrong if index % 4 == 0]
    again, other = (bench.Planted(Drawn(), 0.1, seed).wrong for seed in (0, 1))
    assert again == planted.wrong != other
    assert bench.Planted(Drawn(), 0.0, 0).wrong == {}
    with pytest.raises(UsageError, match="too few pictures have an object"):
        bench.Planted(Drawn(), 0.3, 0)


@pytest.mark.parametrize(("count", "wrong"), [(1, 1), (5, 1), (6, 2), (7, 3), (5, 5)])
def test_chance_is_the_mean_over_all_orders(count, wrong):
    values = [
        average_precision(-np.arange(count), np.isin(np.arange(count), places))
        for places in itertools.combinations(range(count), wrong)
    ]
    assert bench.chance(count, wrong) == pytest.approx(np.mean(values), rel=1e-12)
    assert bench.chance(count, wrong) >= wrong / count


def test_tables_by_hand():
    kinds = {
        kind: {"soft minimum": 0.5, "worst region": 0.25, "chance": 0.1, "planted": ["x", "y"]}
        for kind in bench.KINDS
    }
    other = {kind: {**figures, "soft minimum": 0.7} for kind, figures in kinds.items()}
    table = bench.suspects_table({"seed 0": kinds, "seed 1": other})
    assert "| swapped | 2 | 60.0 (50.0 to 70.0) | 25.0 (25.0 to 25.0) | 10.0 (10.0 to 10.0) |" in (
        table
    )
    units = {
        "seed 0, round 0, next": {"mean_iou": 0.2}, "seed 1, round 0, next": {"mean_iou": 0.3},
        "seed 0, round 1, next": {"mean_iou": 0.4}, "seed 1, round 1, next": {"mean_iou": 0.4},
        "seed 0, round 1, random": {"mean_iou": 0.5}, "seed 1, round 1, random": {"mean_iou": 0.3},
    }  # fmt: skip
    lines = bench.next_table(units, 20).splitlines()
    assert lines[0] == "| labelled pictures | 20 | 40 |"
    assert lines[2] == "| random | 25.0 (20.0 to 30.0) | 40.0 (30.0 to 50.0) |"
    assert lines[3] == "| next | 25.0 (20.0 to 30.0) | 40.0 (40.0 to 40.0) |"
    assert lines[4] == "| next - random | +0.0 (+0.0 to +0.0) | +0.0 (-10.0 to +10.0) |"


@pytest.fixture
def small(pairs, tmp_path):
    """Arguments of a measurement of two steps on the drawn pairs."""
    return [
        *("folder", str(pairs), "--out", str(tmp_path / "out"), "--backbone", "mobilenet_v2"),
        *("--weights", "none", "--crop", "32", "32", "--batch-size", "2", "--steps", "2"),
    ]


@pytest.mark.slow
def test_suspects_from_end_to_end(small, tmp_path, capsys):
    arguments = ["suspects", *small, "--folds", "2", "--share", "0.12"]
    assert bench.main(arguments) == 0
    said = capsys.readouterr().out
    assert "| left out | 1 |" in said and "Average precision in percent; seed 0." in said
    file = tmp_path / "out" / "results.json"
    figures = json.loads(file.read_text())["units"]["seed 0"]
    assert figures["pictures"] == 9
    planted = [name for kind in bench.KINDS for name in figures[kind]["planted"]]
    assert len(set(planted)) == 3 and all(name.startswith("labels/train/") for name in planted)
    # One planted among seven: a rank of 1 to 7.
    for kind, name in itertools.product(bench.KINDS, ("soft minimum", "worst region")):
        assert any(figures[kind][name] == pytest.approx(1 / rank) for rank in range(1, 8))
        assert figures[kind]["chance"] == pytest.approx(sum(1 / r for r in range(1, 8)) / 7)
    assert (tmp_path / "out/seed-0/suspects.html").is_file()
    before = file.read_bytes()
    assert bench.main(arguments) == 0  # nothing is measured again
    assert file.read_bytes() == before and "trained" not in capsys.readouterr().out
    file.unlink()
    assert bench.main(arguments) == 0  # the nets of the folds are there
    assert "trained" not in capsys.readouterr().out
    assert json.loads(file.read_text())["units"] == json.loads(before)["units"]
    assert bench.main([*arguments, "--steps", "3"]) == 2
    assert "name another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_next_from_end_to_end(small, tmp_path, capsys):
    arguments = ["next", *small, "--count", "3", "--rounds", "2"]
    assert bench.main([*arguments, "--rounds", "9"]) == 2
    assert "expected at most the 9 pictures of folder/train" in capsys.readouterr().err
    (tmp_path / "out" / "results.json").unlink(missing_ok=True)
    assert bench.main(arguments) == 0
    units = json.loads((tmp_path / "out/results.json").read_text())["units"]
    assert set(units) == {
        "seed 0, round 0, next", "seed 0, round 1, random", "seed 0, round 1, next",
        "seed 0, round 2, random", "seed 0, round 2, next",
    }  # fmt: skip
    first = units["seed 0, round 0, next"]
    assert len(first["labelled"]) == 3 == len(first["chosen"])
    for way in bench.WAYS:
        second = units[f"seed 0, round 1, {way}"]["labelled"]
        assert second[:3] == first["labelled"] and len(set(second)) == 6
        assert sorted(units[f"seed 0, round 2, {way}"]["labelled"]) == list(range(9))
    assert units["seed 0, round 1, next"]["labelled"] == [*first["labelled"], *first["chosen"]]
    assert "chosen" not in units["seed 0, round 2, next"]
    said = capsys.readouterr().out
    assert "| labelled pictures | 3 | 6 | 9 |" in said and "Mean IoU in percent; seed 0." in said
    assert bench.main(arguments) == 0
    assert "round 0, next:" not in capsys.readouterr().out  # nothing is measured again
