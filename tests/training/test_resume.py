"""Killed or stopped: the same command goes on and ends with the same bits."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from processes import (
    EACH_STEP,
    Process,
    checkpoints,
    difference,
    finish,
    finish_here,
    launch_command,
    load,
    newest,
    signalled,
    train_command,
)
from small_nets import PLAIN, settings

from kfcn.errors import UsageError
from kfcn.training import train
from kfcn.training.loop import Loop

WAYS = {
    "one process": lambda command: command,
    "mirrored": lambda command: [*command, "--cpu-replicas", "2"],
    "two workers": lambda command: launch_command(command, restarts=2),
}


@pytest.fixture(scope="module")
def undisturbed(pairs, tmp_path_factory):
    """The last checkpoint of a run that nobody touched, by way of running."""
    root = tmp_path_factory.mktemp("undisturbed")

    def last(way):
        folder = root / way.replace(" ", "-")
        if not folder.exists():
            code, output = finish(WAYS[way](train_command(pairs, folder)), root / "log.txt")
            assert code == 0, output
        return checkpoints(folder)[-1]

    return last


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        "one process",
        *(pytest.param(w, marks=pytest.mark.long) for w in ("mirrored", "two workers")),
    ],
)
def test_killed_run_ends_with_the_same_bits(undisturbed, pairs, tmp_path, way):
    """kill -9 in the second epoch; of two workers one is killed and the launcher starts again."""
    command = WAYS[way](train_command(pairs, tmp_path / "run", *EACH_STEP))
    with Process(command, tmp_path / "first.txt") as process:
        process.until(lambda: newest(tmp_path / "run") >= 4)
        process.send(signal.SIGKILL, child=1 if way == "two workers" else None)
        code, output = process.wait(), process.output
    if way == "two workers":
        assert "lost worker 1 (killed by SIGKILL); starting all again (1 of 2)" in output
    else:
        assert code == -signal.SIGKILL
        code, output = finish(command, tmp_path / "second.txt")
    assert code == 0, output
    assert f"continuing {tmp_path / 'run'} after step" in output
    assert difference(undisturbed(way), checkpoints(tmp_path / "run")[-1]) == 0.0
    assert (
        load(undisturbed(way))[0]["matrix"] == load(checkpoints(tmp_path / "run")[-1])[0]["matrix"]
    )


@pytest.mark.slow
def test_a_net_whose_checkpoints_are_gone_is_not_trained_anew(run, pairs, tmp_path):
    copy = shutil.copytree(run.run_dir, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints")
    before = (copy / "model.keras").read_bytes()
    again = train(copy, **settings(pairs))  # finished: there is nothing to go on with
    assert again.evaluation.scores == run.evaluation.scores
    (copy / "model.json").unlink()  # as if it had been stopped
    with pytest.raises(UsageError, match="holds a net and no checkpoint to continue from"):
        train(copy, **settings(pairs))
    assert (copy / "model.keras").read_bytes() == before


@pytest.mark.long
def test_history_of_a_resumed_run_is_the_undisturbed_one(undisturbed, pairs, tmp_path):
    """Also within an epoch: its loss and metric are those of all its steps."""
    command = train_command(pairs, tmp_path / "run", *EACH_STEP)
    with Process(command, tmp_path / "first.txt") as process:
        process.until(lambda: newest(tmp_path / "run") >= 2)
        process.send(signal.SIGTERM)
        assert process.wait() == 143
        stopped = process.output
    assert "stopped; the state is saved, the same command continues from there" in stopped
    assert "Traceback" not in stopped
    assert newest(tmp_path / "run") < 6
    code, output = finish(command, tmp_path / "second.txt")
    assert code == 0, output
    notes = [
        load(path)[0] for path in (undisturbed("one process"), checkpoints(tmp_path / "run")[-1])
    ]
    for row, same in zip(notes[0]["rows"], notes[1]["rows"], strict=True):
        assert {**row, "seconds": 0} == {**same, "seconds": 0}
    assert difference(undisturbed("one process"), checkpoints(tmp_path / "run")[-1]) == 0.0


@pytest.mark.long
def test_both_workers_stop_after_the_same_step(pairs, tmp_path):
    """One of them gets Ctrl-C; both leave, the chief saves."""
    command = train_command(pairs, tmp_path / "run", *EACH_STEP, "--keep", 99)
    command = launch_command(command, restarts=1)
    with Process(command, tmp_path / "log.txt") as process:
        process.until(lambda: newest(tmp_path / "run") >= 1)
        process.send(signal.SIGINT, child=1)
        assert process.wait() in (130, 143)
        output = process.output
    assert output.count("stopped; the state is saved") == 2, output
    assert 1 <= newest(tmp_path / "run") < 6


@pytest.mark.long
@pytest.mark.parametrize("dead", [0, 1])
def test_who_loses_the_other_worker_ends_by_itself(pairs, tmp_path, dead):
    """Without kfcn-launch: two processes with the variables that srun sets."""
    command = train_command(pairs, tmp_path / "run", *EACH_STEP, "--epochs", 200)
    slurm = {"NODELIST": "localhost", "NUM_TASKS": "2", "TASKS_PER_NODE": "2"}
    slurm = {f"SLURM_STEP_{name}": value for name, value in slurm.items()}
    with (
        Process(command, tmp_path / "0.txt", **slurm, SLURM_PROCID="0") as first,
        Process(command, tmp_path / "1.txt", **slurm, SLURM_PROCID="1") as second,
    ):
        first.until(lambda: newest(tmp_path / "run") >= 2)
        (first, second)[dead].send(signal.SIGKILL)
        left = (first, second)[1 - dead]
        assert left.wait(limit=60) == 75
        assert "another worker was lost; start all of them again" in left.output
        assert "Traceback" not in left.output


def test_same_command_without_a_run_dir_goes_on(tmp_path, monkeypatch):
    """runs/DATA-ARCH is taken again while it is unfinished, and not once it is finished."""
    from kfcn.files import write_json
    from kfcn.training.stages import plan

    def path(**given):
        return str(plan(None, given)[-1].run.path)

    monkeypatch.chdir(tmp_path)
    (stage,) = plan(None, {"epochs": 3})
    assert str(stage.run.path) == "runs/scenes-fcn8s"
    stage.run.start(stage.config)
    assert path(epochs=3) == "runs/scenes-fcn8s"
    assert path(epochs=4) == "runs/scenes-fcn8s-2"
    write_json("runs/scenes-fcn8s/model.json", {})
    assert path(epochs=3) == "runs/scenes-fcn8s-2"
    assert path(data="tfds:own/shapes:1.0.0") == "runs/tfds-own-shapes-1.0.0-fcn8s"


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_folder(pairs, tmp_path):
    """The second is refused while the first runs, and welcome as soon as that is killed."""
    command = train_command(pairs, tmp_path / "run", *EACH_STEP, "--epochs", 500)
    with Process(command, tmp_path / "first.txt") as process:
        process.until(lambda: newest(tmp_path / "run") >= 1)
        code, output = finish_here(command)
        assert code == 2
        told = output.splitlines()[-1]
        assert f"another process is training in {tmp_path / 'run'}; wait for it" in told
        assert "Traceback" not in output
        process.send(signal.SIGKILL)
        process.wait()
    before = newest(tmp_path / "run")
    with signalled(Loop, "one_step", signal.SIGTERM, lambda _: newest(tmp_path / "run") > before):
        code, output = finish_here(command)
    assert code == 143, output


@pytest.mark.long
def test_killed_at_random_again_and_again(pairs, tmp_path):
    """Twenty kills at random moments, also while it starts, saves and validates."""
    rng = np.random.default_rng(0)
    command, undisturbed = (
        train_command(pairs, tmp_path / name, *EACH_STEP, "--epochs", 12)
        for name in ("run", "same")
    )
    steps = []
    while len(steps) < 20:
        before = newest(tmp_path / "run")
        with Process(command, tmp_path / "log.txt") as process:
            if len(steps) % 3 and before < 36:  # else soon after the start
                process.until(lambda before=before: newest(tmp_path / "run") > before)
                time.sleep(rng.uniform(0, 0.3))
            else:
                time.sleep(rng.uniform(0, 8))
            process.send(signal.SIGKILL)
            process.wait()
        steps.append(newest(tmp_path / "run"))
    for way in (command, undisturbed):
        code, output = finish(way, tmp_path / "log.txt")
        assert code == 0, output
    print("killed after step", *steps)
    assert len(set(steps)) > 8
    last = [checkpoints(tmp_path / name)[-1] for name in ("run", "same")]
    assert last[0].name == last[1].name == "step-00000036.npz"
    assert difference(*last) == 0.0


@pytest.mark.slow
def test_a_run_goes_on_after_what_it_started_from_has_moved(pairs, tmp_path):
    """Its checkpoint holds everything; only a run without one needs the start."""
    given = settings(pairs, epochs=1, **PLAIN)
    train(run_dir=tmp_path / "start", **given)
    begun = tmp_path / "run"
    train(run_dir=begun, init_from=tmp_path / "start", **given)
    weights = (begun / "model.keras").stat().st_size
    config = json.loads((begun / "config.json").read_text())
    config["versions"]["tensorflow"] = "1.0"  # what it began with, which stays
    (begun / "config.json").write_text(json.dumps(config))
    (begun / "model.json").unlink()
    (tmp_path / "start").rename(tmp_path / "moved")
    train(run_dir=begun)
    assert (begun / "model.json").is_file()
    assert (begun / "model.keras").stat().st_size == weights
    kept = json.loads((begun / "config.json").read_text())
    assert kept["versions"] == config["versions"] and kept["machine"] == config["machine"]
    shutil.rmtree(begun / "checkpoints")
    (begun / "model.json").unlink()
    (begun / "model.keras").unlink()
    (begun / "history.csv").unlink()
    with pytest.raises(UsageError, match="no such file"):
        train(run_dir=begun)


@pytest.mark.slow
def test_other_kernels_than_at_the_start_are_told(pairs, tmp_path, capfd, monkeypatch):
    given = settings(pairs, epochs=1, **PLAIN)
    train(run_dir=tmp_path / "run", **given)
    (tmp_path / "run/model.json").unlink()
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["machine"]["onednn"] = not config["machine"]["onednn"]
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    train(run_dir=tmp_path / "run", verbose=True)
    assert "the results will differ in rounding: oneDNN was" in capfd.readouterr().out
