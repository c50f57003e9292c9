"""The table of results, from run folders that the test writes."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from kfcn_tools import results

from kfcn.errors import KfcnError, UsageError
from kfcn.training.resolution import resolve

FIGURES = {
    "pixel_accuracy": 0.9, "mean_accuracy": 0.8, "mean_iou": 0.7, "frequency_weighted_iou": 0.85,
    "boundary_iou": 0.25,
}  # fmt: skip
MACHINE = {"cpu": "Fast CPU", "cores": 2, "gpus": []}


def write_run(folder, machine=MACHINE, figures=FIGURES, **given):
    """A finished run of two epochs, 90 s each, as `train` leaves it."""
    folder.mkdir()
    config = {"settings": dataclasses.asdict(resolve(**given).for_steps(92))}
    config["versions"] = {"tensorflow": "2.21.0", "keras": "3.15.1"}
    if machine:
        config["machine"] = machine
    card = {
        "classes": ["a"], "palette": [[0, 0, 0]], "parameters": 2_340_000,
        "data": config["settings"]["data"], "split": "val", "metrics": {"images": 101, **figures},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.json").write_text(json.dumps(card))
    (folder / "model.keras").write_text("")
    (folder / "history.csv").write_text("epoch,seconds\n1,90.0\n2,90.0\n")
    return folder


CAMVID = {"data": "camvid", "data_dir": "/home/me/CamVid", "weights": "/home/me/body.h5"}


def test_seeds_share_a_row_and_what_changed_is_named(tmp_path, capsys):
    """Mean IoU 70, 71 and 73 of three seeds; a run with another rate stands alone."""
    runs = [
        write_run(tmp_path / f"s{i}", figures={**FIGURES, "mean_iou": value}, seed=i, **CAMVID)
        for i, value in enumerate((0.70, 0.71, 0.73))
    ]
    runs.append(write_run(tmp_path / "fast", learning_rate=2e-3, ema=0.998, **CAMVID))
    gpu = {**MACHINE, "gpus": ["Big GPU"]}
    runs.append(write_run(tmp_path / "gpu", machine=gpu, recipe="camvid_fcn8s", **CAMVID))
    out = tmp_path / "RESULTS.md"
    assert results.main([*map(str, runs), "--out", str(out)]) == 0
    text = out.read_text()
    assert "/home" not in text and str(tmp_path) not in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    head, _, three, fast, gpu = rows
    cell = {name: three[head.index(name)] for name in head}
    assert cell["net"] == "fcn8s, efficientnet_lite0"
    assert cell["changed"] == "-"
    assert cell["parameters"] == "2.34 M"
    assert cell["seeds"] == "0, 1, 2"
    assert cell["mean IoU"] == "71.3 (70.0 to 73.0)"
    assert cell["pixel acc."] == "90.0 (90.0 to 90.0)"
    assert cell["time"] == "3 min"
    assert cell["hardware"] == "Fast CPU, 2 cores"
    assert fast[head.index("changed")] == "learning_rate 0.002, ema 0.998"
    assert fast[head.index("mean IoU")] == "70.0"
    assert gpu[head.index("hardware")] == "Big GPU"
    assert "## camvid/val, 101 images, single scale" in text
    assert "own settings are: the defaults, weights body.h5." in text


def test_other_protocols_and_splits_have_tables_of_their_own(tmp_path):
    folder = write_run(tmp_path / "run", **CAMVID)
    found = {"model": "/home/me/run", "images": 233, **FIGURES}
    flip = {**found, "data": "camvid/test", "protocol": "single scale, flip"}
    (folder / "flip.json").write_text(json.dumps(flip))
    # The same as on the card, by a newer program.
    again = {**found, "images": 101, "data": "camvid/val", "protocol": "single scale"}
    (folder / "again.json").write_text(json.dumps({**again, "boundary_iou": 0.5}))
    (folder / "crf.json").write_text('{"crf": {}}')
    text = results.document(results.read_run(folder))
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## camvid/val, 101 images, single scale",
        "## camvid/test, 233 images, single scale, flip",
    ]
    assert " 50.0 |" in text


def test_an_evaluation_of_another_model_is_no_figure_of_this_run(tmp_path):
    folder = write_run(tmp_path / "run", **CAMVID)
    (folder / "model.keras").write_bytes(b"this run's")
    found = {"model": "runs/b", "images": 101, "data": "camvid/val", **FIGURES, "mean_iou": 0.99}
    own = hashlib.sha256(b"this run's").hexdigest()
    (folder / "numbers.json").write_text("3")
    (folder / "eval.json").write_text(json.dumps({**found, "model_sha256": own}))
    assert results.read_run(folder)[0].figures["mean_iou"] == 0.99
    (folder / "eval.json").write_text(json.dumps({**found, "model_sha256": "b" * 64}))
    with pytest.raises(KfcnError, match=r"eval\.json is an evaluation of another model \(runs/b\)"):
        results.read_run(folder)


def test_page_and_store_are_two_files(tmp_path, capsys):
    same = str(tmp_path / "x.json")
    assert results.main(["--store", same, "--out", same]) == 2
    assert "expected a file for each" in capsys.readouterr().err and not Path(same).exists()


def test_runs_of_old_are_read(tmp_path):
    """Without the machine, the boundary IoU, and settings that came later."""
    figures = {name: value for name, value in FIGURES.items() if name != "boundary_iou"}
    folder = write_run(tmp_path / "run", machine=None, figures=figures, **CAMVID)
    config = json.loads((folder / "config.json").read_text())
    for name in ("recipe", "ema", "optimizer", "power", "momentum", "scale", "output_stride"):
        del config["settings"][name]
    (folder / "config.json").write_text(json.dumps(config))
    row = results.document(results.read_run(folder)).splitlines()
    (row,) = [line for line in row if line.startswith("| fcn8s")]
    assert row.endswith("| 70.0 | 85.0 | - | 3 min | not recorded |")


def test_the_store_keeps_what_run_folders_told(tmp_path, capsys):
    store, out = tmp_path / "results.json", tmp_path / "RESULTS.md"
    flags = ["--store", str(store), "--out", str(out)]
    first = write_run(tmp_path / "a", **CAMVID)
    other = write_run(tmp_path / "b", **CAMVID, learning_rate=2e-3, crop=(320, 320))
    assert results.main([str(first), str(other), *flags]) == 0
    both = out.read_text()
    assert results.main(flags) == 0  # the folders may be gone
    assert out.read_text() == both

    shutil.rmtree(first)
    better = write_run(first, figures={**FIGURES, "mean_iou": 0.75}, **CAMVID)
    assert results.main([str(better), *flags]) == 0
    rows = [line for line in out.read_text().splitlines() if line.startswith("| fcn8s")]
    assert [" 75.0 |" in row for row in rows] == [True, False]  # measured again, not twice
    assert "/home" not in store.read_text()

    kept = json.loads(store.read_text())
    del kept["results"][0]["settings"]["iou_loss"]  # a setting that came later
    store.write_text(json.dumps(kept))
    assert results.main(flags) == 0 and " 75.0 |" in out.read_text()
    store.write_text("[1]")
    assert results.main(flags) == 1
    assert "results.json is damaged" in capsys.readouterr().err
    assert results.main([]) == 2
    out.write_text("my notes")
    assert results.main([str(first), "--out", str(out)]) == 2
    assert out.read_text() == "my notes"


def test_what_is_no_finished_run_is_told(tmp_path):
    with pytest.raises(UsageError, match="expected the folder of a finished run"):
        results.read_run(tmp_path)
    folder = write_run(tmp_path / "run", **CAMVID)
    (folder / "history.csv").write_text("epoch\n1\n")
    with pytest.raises(KfcnError, match="run is damaged: 'seconds'"):
        results.read_run(folder)
