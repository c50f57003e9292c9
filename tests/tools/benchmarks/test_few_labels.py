"""What few labels give: tables by hand, and each measurement from end to end in a few steps."""

import itertools
import json

import numpy as np
import pytest
from kfcn_tools import results
from kfcn_tools.benchmarks.labels.__main__ import main
from kfcn_tools.benchmarks.labels.next_pictures import WAYS, next_table
from kfcn_tools.benchmarks.labels.planted import KINDS
from kfcn_tools.benchmarks.labels.report import section
from kfcn_tools.benchmarks.labels.sparse import sparse_table
from kfcn_tools.benchmarks.labels.strokes import touched
from kfcn_tools.benchmarks.labels.suspects import chance, suspects_table
from kfcn_tools.benchmarks.labels.training import Relabelled, Shrunk, Training, Unseen
from kfcn_tools.benchmarks.labels.unlabelled import unlabelled_table

from kfcn.data.catalog import Source
from kfcn.data.dataset import Dataset, Sample
from kfcn.data.feed.views import Subset
from kfcn.errors import KfcnError
from kfcn.labelling.suspects import average_precision
from kfcn.labels import Classes


class Ramp(Dataset):
    """Three pictures of 6x9; labels are 0, 1, 2 by column, the last picture without any."""

    name, split = "ramp", "train"
    classes = Classes(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))

    def __len__(self):
        return 3

    def __getitem__(self, index):
        labels = np.repeat(np.arange(9, dtype=np.uint8)[None] // 3, 6, 0)
        image = np.repeat(labels[..., None] * 100, 3, -1)
        return Sample(image, labels if index < 2 else np.full_like(labels, 255), str(index))

    def file_name(self, index):
        return f"{index}.png"


def test_pictures_are_made_smaller_with_their_labels():
    image, labels, _ = Shrunk(Ramp(), 3)[0]
    np.testing.assert_array_equal(labels, [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(image[..., 0], [[0, 100, 200]] * 2)
    whole = Shrunk(Ramp(), 1)[0]
    np.testing.assert_array_equal(whole.image, Ramp()[0].image)
    np.testing.assert_array_equal(whole.labels, Ramp()[0].labels)


def test_labels_are_changed_and_left_out():
    changed = Relabelled(Ramp(), lambda labels: labels + 1)
    np.testing.assert_array_equal(changed[0].labels, Ramp()[0].labels + 1)
    unseen = Unseen(Ramp())
    assert not unseen[0].labels.any() and not unseen[2].labels.any()
    np.testing.assert_array_equal(unseen[0].image, Ramp()[0].image)


@pytest.mark.parametrize(("count", "wrong"), [(1, 1), (5, 1), (6, 2), (7, 3), (5, 5)])
def test_chance_is_the_mean_over_all_orders(count, wrong):
    values = [
        average_precision(-np.arange(count), np.isin(np.arange(count), places))
        for places in itertools.combinations(range(count), wrong)
    ]
    assert chance(count, wrong) == pytest.approx(np.mean(values), rel=1e-12)
    assert chance(count, wrong) >= wrong / count


def test_tables_by_hand():
    kinds = {
        kind: {"soft minimum": 0.5, "worst region": 0.25, "chance": 0.1, "planted": ["x", "y"]}
        for kind in KINDS
    }
    other = {kind: {**figures, "soft minimum": 0.7} for kind, figures in kinds.items()}
    table = suspects_table({}, {"seed 0": kinds, "seed 1": other})
    assert "| swapped | 2 | 60.0 (50.0 to 70.0) | 25.0 (25.0 to 25.0) | 10.0 (10.0 to 10.0) |" in (
        table
    )
    units = {
        "seed 0, round 0, next": {"mean_iou": 0.2}, "seed 1, round 0, next": {"mean_iou": 0.3},
        "seed 0, round 1, next": {"mean_iou": 0.4}, "seed 1, round 1, next": {"mean_iou": 0.4},
        "seed 0, round 1, random": {"mean_iou": 0.5}, "seed 1, round 1, random": {"mean_iou": 0.3},
    }  # fmt: skip
    lines = next_table({"count": 20}, units).splitlines()
    assert lines[0] == "| labelled pictures | 20 | 40 |"
    assert lines[2] == "| random | 25.0 (20.0 to 30.0) | 40.0 (30.0 to 50.0) |"
    assert lines[3] == "| next | 25.0 (20.0 to 30.0) | 40.0 (40.0 to 40.0) |"
    assert lines[4] == "| next - random | +0.0 (+0.0 to +0.0) | +0.0 (-10.0 to +10.0) |"

    units = {
        "seed 0, whole, cross entropy": {"mean_iou": 0.5, "touched": 1.0},
        "seed 0, points, cross entropy": {"mean_iou": 0.2, "touched": 0.01},
        "seed 1, points, cross entropy": {"mean_iou": 0.3, "touched": 0.01},
        "seed 0, points, gated CRF": {"mean_iou": 0.24, "touched": 0.01},
        "seed 1, points, gated CRF": {"mean_iou": 0.28, "touched": 0.01},
    }
    lines = sparse_table({"gated_crf": 0.01}, units).splitlines()
    assert lines[2:] == [
        "| whole | 100.0 | 50.0 | – | – |",
        "| points | 1.0 | 25.0 (20.0 to 30.0) | 26.0 (24.0 to 28.0) | +1.0 (-2.0 to +4.0) |",
        "| scribbles | – | – | – | – |",
    ]
    units = {
        "seed 0, 1/4, labels alone": {"mean_iou": 0.4, "pictures": 92},
        "seed 0, 1/4, with unlabelled": {"mean_iou": 0.45, "pictures": 92},
        "seed 0, 1/16, labels alone": {"mean_iou": 0.3, "pictures": 23},
        "seed 2, 1/16, labels alone": {"mean_iou": 0.2, "pictures": 23},
        "seed 2, 1/16, with unlabelled": {"mean_iou": 0.19, "pictures": 23},
    }
    assert unlabelled_table({}, units).splitlines()[2:] == [
        "| 1/16 | 23 | 0, 2 | 25.0 (20.0 to 30.0) | 19.0 | -1.0 |",
        "| 1/4 | 92 | 0 | 40.0 | 45.0 | +5.0 |",
    ]


@pytest.fixture
def small(pairs, tmp_path):
    """Arguments of a measurement of two steps on the drawn pairs."""
    return [
        *("folder", str(pairs), "--out", str(tmp_path / "out"), "--backbone", "mobilenet_v2"),
        *("--weights", "none", "--crop", "32", "32", "--batch-size", "2", "--steps", "2"),
    ]


@pytest.mark.long
def test_suspects_from_end_to_end(small, tmp_path, capsys):
    arguments = ["suspects", *small, "--folds", "2", "--share", "0.12"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "| left out | 1 |" in said and "Average precision in percent" in said
    file = tmp_path / "out" / "results.json"
    figures = json.loads(file.read_text())["units"]["seed 0"]
    assert figures["pictures"] == 9
    planted = [name for kind in KINDS for name in figures[kind]["planted"]]
    assert len(set(planted)) == 3 and all(name.startswith("labels/train/") for name in planted)
    # One planted among seven: a rank of 1 to 7.
    for kind, name in itertools.product(KINDS, ("soft minimum", "worst region")):
        assert any(figures[kind][name] == pytest.approx(1 / rank) for rank in range(1, 8))
        assert figures[kind]["chance"] == pytest.approx(sum(1 / r for r in range(1, 8)) / 7)
    assert (tmp_path / "out/seed-0/suspects.html").is_file()
    before = file.read_bytes()
    assert main(arguments) == 0  # nothing is measured again
    assert file.read_bytes() == before and "trained" not in capsys.readouterr().out
    file.unlink()
    assert main(arguments) == 0  # the nets of the folds are there
    assert "trained" not in capsys.readouterr().out
    assert json.loads(file.read_text())["units"] == json.loads(before)["units"]
    assert main([*arguments, "--steps", "3"]) == 2
    assert "name another --out" in capsys.readouterr().err


@pytest.mark.long
def test_next_from_end_to_end(small, tmp_path, capsys):
    arguments = ["next", *small, "--count", "3", "--rounds", "2"]
    assert main([*arguments, "--rounds", "9"]) == 2
    assert "expected at most the 9 pictures of folder/train" in capsys.readouterr().err
    (tmp_path / "out" / "results.json").unlink(missing_ok=True)
    assert main(arguments) == 0
    units = json.loads((tmp_path / "out/results.json").read_text())["units"]
    assert set(units) == {
        "seed 0, round 0, next", "seed 0, round 1, random", "seed 0, round 1, next",
        "seed 0, round 2, random", "seed 0, round 2, next",
    }  # fmt: skip
    first = units["seed 0, round 0, next"]
    assert len(first["labelled"]) == 3 == len(first["chosen"])
    for way in WAYS:
        second = units[f"seed 0, round 1, {way}"]["labelled"]
        assert second[:3] == first["labelled"] and len(set(second)) == 6
        assert sorted(units[f"seed 0, round 2, {way}"]["labelled"]) == list(range(9))
    assert units["seed 0, round 1, next"]["labelled"] == [*first["labelled"], *first["chosen"]]
    assert "chosen" not in units["seed 0, round 2, next"]
    said = capsys.readouterr().out
    assert "| labelled pictures | 3 | 6 | 9 |" in said and "Mean IoU in percent" in said
    assert main(arguments) == 0
    assert "round 0, next:" not in capsys.readouterr().out  # nothing is measured again


class Asked:
    """Stands in for a training: keeps what was asked for, and scores 0.1, 0.2 and so on."""

    def __init__(self, monkeypatch):
        self.trainings = []
        monkeypatch.setattr(Training, "run", self.run)
        monkeypatch.setattr(Training, "mean_iou", lambda training, model, dataset: model)

    def run(self, dataset, seed, unlabelled=None, gated_crf=0.0):
        self.trainings.append((dataset, seed, unlabelled, gated_crf))
        return len(self.trainings) / 10


def test_sparse_trains_on_what_is_touched(small, tmp_path, monkeypatch, capsys):
    asked, out = Asked(monkeypatch), tmp_path / "out"
    assert main(["sparse", *small, "--gated-crf", "0.02"]) == 0
    units = json.loads((out / "results.json").read_text())["units"]
    assert {name: unit["mean_iou"] for name, unit in units.items()} == {
        "seed 0, whole, cross entropy": 0.1, "seed 0, points, cross entropy": 0.2,
        "seed 0, points, gated CRF": 0.3, "seed 0, scribbles, cross entropy": 0.4,
        "seed 0, scribbles, gated CRF": 0.5,
    }  # fmt: skip
    assert [weight for *_, weight in asked.trainings] == [0, 0, 0.02, 0, 0.02]
    whole, points, _, scribbles, _ = (dataset for dataset, *_ in asked.trainings)
    for index in range(len(whole)):
        labels = whole[index].labels
        np.testing.assert_array_equal(points[index].labels, touched(labels, "points"))
        np.testing.assert_array_equal(scribbles[index].labels, touched(labels, "scribbles"))
    shares = [unit["touched"] for unit in units.values()]
    counts = [sum((d[i].labels != 255).sum() for i in range(len(d))) for d in (whole, points)]
    assert shares[0] == 1 and shares[1] == shares[2] == counts[1] / counts[0]

    assert main(["sparse", *small, "--gated-crf", "0.02", "--seeds", "0", "1"]) == 0  # goes on
    assert [seed for _, seed, *_ in asked.trainings] == 5 * [0] + 5 * [1]
    assert main(["sparse", *small]) == 2
    assert "name another --out" in capsys.readouterr().err


def test_unlabelled_are_the_pictures_that_are_not_labelled(small, tmp_path, monkeypatch, capsys):
    asked = Asked(monkeypatch)
    arguments = ["unlabelled", *small, "--parts", "3", "2", "--seeds", "0", "4"]
    assert main(arguments) == 0
    assert "| 1/3 | 3 | 0, 4 | 20.0 (10.0 to 30.0) | 30.0 (20.0 to 40.0) | +10.0" in (
        capsys.readouterr().out
    )
    files = {}
    for place, (dataset, seed, unlabelled, _) in enumerate(asked.trainings):
        names = [dataset.file_name(index) for index in range(len(dataset))]
        assert len(names) == (3 if place < 4 else 4)  # a third, then a half of nine
        assert files.setdefault((len(names), seed), names) == names
        assert (unlabelled is not None) == place % 2
        if unlabelled is not None:
            others = [unlabelled.file_name(index) for index in range(len(unlabelled))]
            assert len({*names, *others}) == 9 == len(names) + len(others)
    assert files[3, 0] != files[3, 4] and files[4, 0][:3] == files[3, 0]
    assert main(["unlabelled", *small, "--shrink", "0"]) == 2
    assert capsys.readouterr().err == (
        "python -m kfcn_tools.benchmarks.labels: error: --shrink 0: expected 1 or more\n"
    )


def test_what_was_measured_has_a_section_of_its_own(small, tmp_path, monkeypatch, capsys):
    Asked(monkeypatch)
    assert main(["unlabelled", *small, "--classes", "ground; toy = square, disc"]) == 0
    out, page, store = (tmp_path / name for name in ("out", "RESULTS.md", "store.json"))
    flags = ["--store", str(store), "--out", str(page)]
    assert results.main([str(out), *flags]) == 0
    title, text = section(out)
    assert title == "folder/val: pictures without labels"
    assert "2 steps of 2 crops of 32x32, scale 0.75 to 1.75" in text
    assert "Classes: `ground; toy = square, disc; rest = background`." in text
    before = page.read_text()
    assert f"## {title}\n\n{text}\n" in before
    assert results.main(flags) == 0 and page.read_text() == before  # the folder may be gone
    (out / "results.json").write_text("{}")
    with pytest.raises(KfcnError, match=r"results\.json is damaged"):
        section(out)


@pytest.mark.long
def test_a_training_learns_from_what_it_is_given(pairs):
    """Labels, the gated CRF loss and pictures without labels each lead to another net."""
    training = Training(
        Source("folder", pairs), 1, "fcn8s", "mobilenet_v2", "none", None, (32, 32), (1, 1), 2, 2
    )
    dataset = training.open("train")
    few = Subset(dataset, range(4))

    def weights(*args, **more):
        return np.concatenate([w.numpy().ravel() for w in training.run(*args, **more).weights])

    plain = weights(few, 0)
    np.testing.assert_array_equal(weights(few, 0), plain)
    others = (weights(few, 0, dataset), weights(few, 0, gated_crf=0.1), weights(dataset, 0))
    assert all(np.abs(other - plain).max() > 1e-6 for other in others)
    assert all(np.isfinite(other).all() for other in others)
