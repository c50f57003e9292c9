"""One replica, two replicas, two workers: the same numbers. Clusters that are wrong are told."""

import contextlib
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kfcn_tools.benchmarks.soak.watching import SPARE, watch
from kfcn_tools.benchmarks.soak.ways import draw_pairs, training_run
from processes import checkpoints, difference, finish, launch_command, load, train_command

from kfcn.errors import UsageError

STEPS = 90
"""Of three epochs."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run of 90 steps in three ways, and what the two workers held on the way.

    Batches of 3 pictures, so the shares are 1 and 2; how much of them is ignored differs from
    picture to picture. By momentum SGD: AdamW divides by the gradient's size, and where that is no
    more than rounding noise the weights drift apart by noise (7e-5 after 300 steps of 1e-5).
    A step has six exchanges: what each of them left behind would be hundreds after an epoch.
    """
    root = tmp_path_factory.mktemp("ways")
    pairs = draw_pairs(root / "pairs", STEPS, validation=4)
    flags = ("--optimizer", "sgd", "--learning-rate", 1e-5, "--ema", 0.5)
    flags = (*flags, "--batch-size", 3, "--epochs", 3)
    ways = {
        "one": train_command(pairs, root / "one", *flags),
        "mirrored": train_command(pairs, root / "mirrored", *flags, "--cpu-replicas", 2),
        "workers": launch_command(train_command(pairs, root / "workers", *flags)),
    }
    rows = {}
    for name, command in ways.items():
        run = training_run(command, root / name, STEPS, launched=name == "workers")
        rows[name] = watch(run, root / f"{name}.txt", every=STEPS // 3)
    return root, {name: (root / f"{name}.txt").read_text() for name in ways}, rows["workers"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["mirrored", "workers"])
def test_weights_loss_and_metrics_are_the_same(runs, way):
    root, outputs, _ = runs
    assert f"2 replicas on {'1 worker' if way == 'mirrored' else '2 workers'}" in outputs[way]
    (one, other) = (checkpoints(root / name)[-1] for name in ("one", way))
    assert one.name == other.name == f"step-{STEPS:08d}.npz"
    assert difference(one, other) < 1e-6
    for row, same in zip(load(one)[0]["rows"], load(other)[0]["rows"], strict=True):
        for name in row.keys() - {"seconds"}:
            assert same[name] == pytest.approx(row[name], rel=1e-5), name
    figures = [json.loads((root / n / "model.json").read_text())["metrics"] for n in ("one", way)]
    assert figures[0]["images"] == figures[1]["images"] == 4
    assert figures[1]["mean_iou"] == pytest.approx(figures[0]["mean_iou"], abs=1e-4)


@pytest.mark.slow
def test_the_weights_move_much_further_than_they_differ(runs):
    """The control of the test above, for each kernel and shift."""
    root, _, _ = runs
    first, last = (load(path)[1] for path in (checkpoints(root / "one")[i] for i in (0, -1)))
    other = load(checkpoints(root / "workers")[-1])[1]
    moved = [i for i, values in enumerate(first[:26]) if (values != last[i]).any()]
    assert len(moved) >= 18  # a scale of 1 has no digits for changes as small as these
    for i in moved:
        assert np.abs(last[i] - first[i]).max() > 20 * np.abs(last[i] - other[i]).max()


@pytest.mark.slow
def test_the_workers_threads_and_files_do_not_grow(runs):
    """With a time limit, each exchange of TensorFlow left two threads for minutes."""
    _, _, rows = runs
    settled, *later = [row.uses for row in rows if row.count >= STEPS // 3]
    assert rows[-1].count >= 2 * STEPS // 3 and len(settled) == 2
    for uses in later:
        for before, now in zip(settled, uses, strict=True):
            assert now.threads <= before.threads + SPARE
            assert now.files <= before.files + SPARE


@pytest.mark.slow
def test_the_workers_output_has_their_numbers_and_is_told_once(runs):
    _, outputs, _ = runs
    assert "[0] " in outputs["workers"]
    assert outputs["workers"].count("best net on folder/val") == 1


MEASURED = Path(__file__).with_name("replica_steps.py")


@pytest.fixture(scope="module")
def steps():
    """What `replica_steps.py` measures in a process with two logical CPU devices."""
    done = subprocess.run([sys.executable, MEASURED], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_batch_normalisation_is_over_all_replicas(steps):
    assert steps["synchronised"] < 1e-6
    assert steps["each for itself"] > 1e-3  # the control
    assert steps["average and weights"] > 1e-3  # the average is among what was compared
    assert steps["asked for in the saved net"] is False


@pytest.mark.slow
def test_a_step_exchanges_no_more_than_it_must(steps):
    """Two for each of two normalisations, one for the loss, and one for all that is summed."""
    assert steps["exchanges"] == {"1": 0, "2": 2 * 2 + 1 + 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("short", "CollectiveGatherV2"),
        ("long", "CollectiveReduceV2"),
        ("whole numbers", "CollectiveReduceV2"),
    ],
)
def test_sums_of_vectors_take_one_round_and_long_ones_share_the_work(steps, name, operation):
    assert steps["sums"][name] == {"operations": [operation], "wrong": 0.0, "kept": True}


@pytest.mark.slow
@pytest.mark.parametrize("replicas", ["1", "2"])
def test_a_loss_that_is_not_finite_leaves_the_net_as_it_was(steps, replicas):
    assert steps["not finite"][replicas] == {"finite": False, "changed": 0.0, "then finite": True}


@pytest.mark.slow
def test_the_loss_is_the_mean_over_all_valid_pixels(steps):
    assert steps["loss"]["1"] == pytest.approx(steps["loss"]["numpy"], rel=1e-5)
    assert steps["loss"]["2"] == pytest.approx(steps["loss"]["numpy"], rel=1e-5)
    assert abs(steps["loss"]["mean of means"] / steps["loss"]["numpy"] - 1) > 1e-3  # the control


@pytest.mark.slow
def test_the_soft_iou_is_over_all_replicas(steps):
    found = steps["soft IoU"]
    assert found["synchronised"] < 1e-6 and found["loss"] < 1e-6
    assert 0.3 < found["adds"] < 1  # of three classes told at random
    assert found["without it"] > 1e-3  # the control


@pytest.mark.slow
def test_the_gated_crf_loss_is_over_all_replicas(steps):
    found = steps["gated CRF"]
    assert found["synchronised"] < 1e-6 and found["loss"] < 1e-6
    assert found["adds"] > 0.01 and found["without it"] > 1e-5  # the controls


@pytest.mark.slow
def test_pictures_without_labels_are_learned_over_all_replicas(steps):
    """The shares of five and three are not equal, nor is what the average is sure of in them."""
    found = steps["unlabelled"]
    assert found["synchronised"] < 1e-6 and found["loss"] < 1e-6
    one, two = found["confident"]
    assert 0.1 < one < 0.95 and two == pytest.approx(one, abs=1e-6)
    assert found["adds"] > 0.01 and found["without it"] > 1e-4  # the controls


class Workers:
    """Enough of `Replicas`: what the sum over the workers is, as each of them is asked in turn."""

    def __init__(self, worker, sums):
        self.worker, self.workers, self.chief = worker, 3, worker == 0
        self.sums, self.given = iter(sums), []

    def sum(self, value):
        self.given.append(value)
        return next(self.sums)


def test_workers_with_other_files_are_told_on_each_of_them():
    from kfcn.training.resolution import resolve
    from kfcn.training.trainer import _check_same_data

    settings = resolve(data="folder", data_dir="here")
    same, other = {"train": "ab", "val": "cd"}, {"train": "ab", "val": "ce"}
    chief, second = Workers(0, [0, 0]), Workers(1, [0, 0])
    for workers, files in ((chief, same), (second, other)):
        with contextlib.suppress(UsageError):
            _check_same_data(settings, files, workers)
    first = chief.given[0]
    assert 0 < first < 2**63 and second.given[0] == 0  # the sum is the number of the first
    _check_same_data(settings, same, Workers(2, [first, 0]))
    ours = "(here: train of here and val of here); give all workers the same data"
    for worker, files, who in (
        (0, same, "1 of 3 workers"),
        (1, other, "worker 1"),
        (2, same, "1 of 3 workers"),
    ):
        workers = Workers(worker, [first, 1])
        with pytest.raises(UsageError) as caught:
            _check_same_data(settings, files, workers)
        assert str(caught.value) == f"{who} found different files from worker 0 {ours}"
        assert workers.given == [first if worker == 0 else 0, int(worker == 1)]


@pytest.mark.parametrize(("done", "total"), [(0, 1), (1, 1), (3, 8), (0, 6)])
def test_a_run_folder_that_is_not_shared_is_told(done, total):
    """The run is finished, or further, for another worker; of three."""
    from kfcn.errors import KfcnError
    from kfcn.training.run_folder import RunFolder
    from kfcn.training.trainer import _check_shared

    with pytest.raises(KfcnError, match="at different steps; expected a folder that all of them"):
        _check_shared(RunFolder("run"), done, Workers(1, [total]))
    _check_shared(RunFolder("run"), done, Workers(1, [3 * done]))


@pytest.mark.slow
def test_a_worker_with_fewer_pictures_is_told_before_anything_is_written(pairs, tmp_path):
    """Both would wait for each other: one in its second step, the other in the validation."""
    fewer = shutil.copytree(pairs, tmp_path / "fewer")
    for index in range(5):
        for kind in ("images", "labels"):
            (fewer / kind / "train" / f"train{index:02d}.png").unlink()
    code = (
        "import json, os, sys; from kfcn.commands.train import main\n"
        "index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
        "sys.exit(main([*sys.argv[3:], '--data-dir', sys.argv[1 + index]]))"
    )
    command = train_command(pairs, tmp_path / "run")[1:]
    at = command.index("--data-dir")
    command = [sys.executable, "-c", code, pairs, fewer, *command[:at], *command[at + 2 :]]
    status, output = finish(launch_command(command), tmp_path / "log.txt")
    assert status == 2, output
    for number, who, root in ((0, "1 of 2 workers", pairs), (1, "worker 1", fewer)):
        told = (
            f"[{number}] kfcn-train: error: {who} found different files from worker 0 (here: train"
        )
        assert f"{told} of {root} and val of {root})" in output
    assert not (tmp_path / "run").exists()


def config(**changed):
    whole = {
        "cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]},
        "task": {"type": "worker", "index": 0},
    }
    return json.dumps({**whole, **changed})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "TF_CONFIG is wrong: Expecting property name"),
        ('{"cluster": {}}', "TF_CONFIG is wrong: lacks 'task'"),
        ("[]", "TF_CONFIG is wrong"),
        (config(task={"type": "worker", "index": 2}), "task 'worker' 2, but its cluster has 2"),
        (config(task={"type": "ps", "index": 0}), "the job 'ps'; expected chief and worker only"),
        (config(cluster={"worker": ["a:1", "a:1"]}), "'a:1' twice; expected different host:port"),
        (config(cluster={"worker": ["a:1", "b"]}), "'b' as an address"),
    ],
)
def test_a_wrong_tf_config_is_told(text, told):
    from kfcn.training.replicas import read_tf_config

    with pytest.raises(UsageError, match=told):
        read_tf_config(text)


def test_the_chief_comes_first():
    from kfcn.training.replicas import read_tf_config

    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for kind, index, number in (("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)):
        text = config(cluster=cluster, task={"type": kind, "index": index})
        assert read_tf_config(text) == (number, ["a:1", "b:1", "c:1"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("many",), "expected one of auto, one, mirrored, multiworker"),
        (("one", 2), "cpu_replicas are for the strategy mirrored"),
        (("auto", -1), "expected 0 or more"),
        (("multiworker",), "needs a cluster; start the workers with kfcn-launch"),
        (("mirrored",), "found no GPU; give --cpu-replicas"),
    ],
)
def test_strategies_that_make_no_sense(arguments, told, monkeypatch):
    import tensorflow as tf

    from kfcn.training import replicas

    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [])
    with pytest.raises(UsageError, match=told):
        replicas.start(*arguments)


def test_slurm_gives_the_cluster(monkeypatch):
    """The variables as srun sets them for the third of four tasks on two nodes."""
    from kfcn.training import replicas

    for name, value in {
        "PROCID": "2", "STEP_NUM_TASKS": "4", "STEP_NODELIST": "node[1-2]",
        "STEP_TASKS_PER_NODE": "2(x2)",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(replicas.shutil, "which", lambda name: None)
    _, worker, addresses = replicas._cluster()
    assert worker == 2
    assert addresses == ["node1:8888", "node1:8889", "node2:8888", "node2:8889"]


@pytest.mark.slow
def test_a_worker_that_never_comes_is_told(pairs, tmp_path):
    """TensorFlow alone would wait for an hour."""
    code = (
        "from kfcn.training import replicas; replicas.CLUSTER_SECONDS = 3\n"
        "replicas.start('multiworker')"
    )
    text = config(cluster={"worker": ["127.0.0.1:28881", "127.0.0.1:28882"]})
    status, output = finish([sys.executable, "-c", code], tmp_path / "log.txt", TF_CONFIG=text)
    assert status == 1
    assert "worker 0 (127.0.0.1:28881) waits for 127.0.0.1:28882 (ends in 3 s" in output


def test_shares_of_all_replicas_are_the_batch():
    from kfcn.data.feed.batches import Shares, training_batches
    from kfcn.data.sets.scenes import Scenes

    scenes = Scenes("val", None, 0)

    def read(shares, count):
        stream = training_batches(scenes, 7, (32, 32), 1, 2, shares=shares).take(count)
        return [(x.numpy(), y.numpy()) for x, y in stream]

    whole = read(Shares(), 3)
    parts = read(Shares(3, 2, 0), 6), read(Shares(3, 1, 2), 3)
    for step, (images, labels) in enumerate(whole):
        shares = [*parts[0][2 * step : 2 * step + 2], parts[1][step]]
        assert max(len(x) for x, _ in shares) - min(len(x) for x, _ in shares) <= 1
        np.testing.assert_array_equal(np.concatenate([x for x, _ in shares]), images)
        np.testing.assert_array_equal(np.concatenate([y for _, y in shares]), labels)
    with pytest.raises(UsageError, match="cannot be divided over 8 replicas"):
        training_batches(scenes, 7, (32, 32), 1, shares=Shares(8))


@pytest.mark.slow
def test_history_is_written_by_the_chief_alone(runs):
    root, _, _ = runs
    with (root / "workers" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
