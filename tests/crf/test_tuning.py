"""The search for the CRF's widths and weights, and who reads what it found."""

import json
import shutil

import numpy as np
import pytest
from drawn import folder, mask, save
from PIL import Image
from small_nets import save_colour_run

from kfcn import pretrained
from kfcn.cards import read_crf
from kfcn.commands import tune_crf
from kfcn.crf import tuning
from kfcn.errors import KfcnError, UsageError
from kfcn.inference.evaluate import evaluate
from kfcn.training.resolution import resolve


def test_search_climbs_to_the_best_of_the_grid():
    def score(values):
        return -2 * (values["a"] - 3) ** 2 - (values["b"] - values["a"]) ** 2

    tried = tuning.coordinate_search(score, {"a": 0, "b": 0}, {"a": range(5), "b": range(5)}, 6)
    assert max(tried, key=lambda pair: pair[1]) == ({"a": 3, "b": 3}, 0)
    assert len({tuple(values.items()) for values, _ in tried}) == len(tried) < 25


def save_speckled(root):
    """A net that sees the class in the colour, and pictures of which a tenth is of wrong colours.

    There the net is wrong, and a CRF that smooths is right.
    """
    (root / "run").mkdir()
    palette = {"dark": (0, 0, 0), "red": (200, 0, 0), "green": (0, 200, 0)}
    kernel = 0.01 * np.eye(3)[:, [2, 0, 1]]
    save_colour_run(root / "run", palette, kernel, bias=(0.6, 0, 0))
    truth = [mask(1), mask(2)]
    folder(root / "data", truth, "dark\nred\ngreen\n")
    for index, labels in enumerate(truth):
        wrong = np.random.default_rng(index).random(labels.shape) < 0.1
        shown = np.array(list(palette.values()), np.uint8)[(labels + wrong) % 3]
        save(root / f"data/images/train/p{index}.png", shown)
    return root / "run", root / "data"


def test_what_was_found_is_written(tmp_path, monkeypatch, capsys):
    net, data = save_speckled(tmp_path)
    grid = {"bilateral_weight": (0.0,), "spatial_weight": (0.0, 3.0)}
    monkeypatch.setattr(tuning, "GRID", grid)
    assert tune_crf.main([str(net), "--data", "folder", "--data-dir", str(data)]) == 0
    found = json.loads((net / "crf.json").read_text())
    printed = capsys.readouterr().out
    assert f"{100 * found['found_on']['mean_iou']:6.2f}" in printed
    assert found["found_on"]["mean_iou"] > found["found_on"]["mean_iou_without"] + 0.1
    assert found["crf"]["spatial_weight"] == 3.0
    assert found["crf"]["theta_alpha"] == 160.0  # was not in the grid
    assert found["found_on"]["data"] == "folder/train"
    assert read_crf(net) == found["crf"]


@pytest.mark.parametrize("grid", [{"bilateral_weight": (0.0,), "spatial_weight": (0.0,)}, {}])
def test_where_no_crf_helps_the_net_alone_is_best(run, tmp_path, monkeypatch, capsys, grid):
    copy = shutil.copytree(run.run_dir, tmp_path / "run")
    monkeypatch.setattr(tuning, "GRID", grid)
    assert tune_crf.main([str(copy), "--images", "2"]) == 0
    printed = capsys.readouterr().out
    assert "on 2 images of folder/train\n" in printed  # the run's own, as none were named
    last = f"best: the net alone; use {copy} without --crf (wrote no crf.json)"
    assert printed.splitlines()[-1] == last
    assert not (copy / "crf.json").exists()


@pytest.mark.slow
def test_what_was_found_is_used(run, pairs, tmp_path):
    copy = shutil.copytree(run.run_dir, tmp_path / "run")
    values = {**tuning.PUBLISHED, "theta_beta": 30.0}
    (copy / "crf.json").write_text(json.dumps({"crf": values}))
    assert resolve(crf=True, init_from=copy, data="folder").crf_options == values
    # Without both filters a CRF changes nothing; with the published ones it does.
    plain = evaluate(copy, "folder", "val", pairs)
    off = {**values, "spatial_weight": 0.0, "bilateral_weight": 0.0}
    (copy / "crf.json").write_text(json.dumps({"crf": off}))
    same = evaluate(copy, "folder", "val", pairs, crf=True)
    assert (same.matrix == plain.matrix).all()
    assert same.cross_entropy == pytest.approx(plain.cross_entropy, rel=1e-5)
    (copy / "crf.json").unlink()
    refined = evaluate(copy, "folder", "val", pairs, crf=True)
    assert abs(refined.cross_entropy - plain.cross_entropy) > 0.01


@pytest.mark.parametrize("content", ["{", '{"crf": {"theta": 1}}', '{"crf": {"theta_beta": "x"}}'])
def test_a_file_that_holds_no_crf(run, tmp_path, content):
    copy = shutil.copytree(run.run_dir, tmp_path / "run")
    (copy / "crf.json").write_text(content)
    with pytest.raises(KfcnError, match=r"crf\.json is not a valid CRF configuration"):
        read_crf(copy)


def test_arguments_that_do_not_fit(run, pairs, capsys):
    with pytest.raises(SystemExit):
        tune_crf.parser().parse_args([str(run.run_dir), "--data", "scenes", "--images", "0"])
    assert (
        "--images: received '0'; expected a whole number of at least 1" in capsys.readouterr().err
    )
    with pytest.raises(UsageError, match="trained for 3 classes \\(ground, square, disc\\)"):
        tune_crf.work(tune_crf.parser().parse_args([str(run.run_dir), "--data", "scenes"]))


def test_a_net_that_came_with_kfcn_is_not_written_to(capsys):
    assert tune_crf.main(["voc_animals", "--data", "scenes"]) == 2
    assert "voc_animals comes with kfcn" in capsys.readouterr().err
    assert not (pretrained.folder("voc_animals") / "crf.json").exists()


@pytest.mark.parametrize(("size", "value", "told"), [
    ((20, 30), 0, "expected the same size"), (None, 9, "found label 9; expected 0 to 2"),
])  # fmt: skip
def test_a_mask_that_does_not_fit_is_one_line(run, pairs, tmp_path, capsys, size, value, told):
    copy = shutil.copytree(run.run_dir, tmp_path / "run")
    root = shutil.copytree(pairs, tmp_path / "pairs")
    mask = sorted((root / "labels" / "val").iterdir())[0]
    with Image.open(mask) as picture:
        shape = size or picture.size[::-1]
    Image.fromarray(np.full(shape, value, np.uint8)).save(mask)
    words = [str(copy), "--data", "folder", "--data-dir", str(root), "--split", "val"]
    assert tune_crf.main(words) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line and mask.name in line
