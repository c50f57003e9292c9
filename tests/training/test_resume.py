"""Killed, stopped, out of disk: the same command goes on and ends with the same bits."""

import json
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from processes import (
    Process,
    checkpoints,
    difference,
    finish,
    launch_command,
    load,
    small_disk,
    train_command,
)
from small_nets import settings

from kfcn.errors import UsageError
from kfcn.files import TEMPORARY
from kfcn.training import train

EACH_STEP = ("--save-minutes", 0)
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


def newest(run_dir):
    found = checkpoints(run_dir)
    return int(found[-1].stem[5:]) if found else 0


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
    with pytest.raises(UsageError, match="holds a net and no checkpoint to go on from"):
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
    assert "stopped; the state is saved, the same command goes on from there" in stopped
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
        code, output = finish(command, tmp_path / "second.txt")
        assert code == 2
        told = output.splitlines()[-1]
        assert f"another process is training in {tmp_path / 'run'}; wait for it" in told
        assert "Traceback" not in output
        process.send(signal.SIGKILL)
        process.wait()
    before = newest(tmp_path / "run")
    with Process(command, tmp_path / "third.txt") as process:
        process.until(lambda: newest(tmp_path / "run") > before)


class Value:
    """Enough of a variable."""

    def __init__(self, value):
        self.value = np.asarray(value, "float32")
        self.shape = self.value.shape

    def __array__(self, dtype=None, copy=None):
        return self.value

    def assign(self, value):
        self.value = value


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Five checkpoints, of which three stay; the values are the step."""
    from kfcn.training import checkpoint

    monkeypatch.setattr(checkpoint.keras.ops, "convert_to_numpy", np.asarray)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in range(1, 6):
        checkpoint.save(folder, [Value(np.full((50, 50), step))], step, {"rows": []}, keep=3)
    return checkpoint, folder


def test_the_last_k_are_kept(saved):
    _, folder = saved
    assert [p.name for p in sorted(folder.iterdir())] == [f"step-0000000{n}.npz" for n in (3, 4, 5)]


def flipped(data):
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


@pytest.mark.parametrize("damage", [lambda d: d[:1000], lambda d: b"", flipped, lambda d: d[:-30]])
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_is_used(saved, damage):
    checkpoint, folder = saved
    path = folder / "step-00000005.npz"
    path.write_bytes(damage(path.read_bytes()))
    variable, said = Value(np.zeros((50, 50))), []
    assert checkpoint.restore(folder, [variable], warn=said.append)["step"] == 4
    assert (variable.value == 4).all()
    assert len(said) == 1 and "step-00000005.npz is damaged" in said[0]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_checkpoint_takes_no_place_of_a_sound_one(saved, keep):
    """The run goes on from the one before it, and saves before it is as far again."""
    checkpoint, folder = saved  # 3, 4 and 5
    variable = Value(np.zeros((50, 50)))
    checkpoint.save(folder, [Value(np.full((50, 50), 10))], 10, {}, keep=2)  # 5 and 10
    (folder / "step-00000010.npz").write_bytes(b"")
    assert checkpoint.restore(folder, [variable], warn=lambda line: None)["step"] == 5

    def there(step):
        checkpoint.save(folder, [Value(np.full((50, 50), step))], step, {}, keep)
        return [int(path.stem[5:]) for path in checkpoints(folder.parent)]

    assert there(7) == ([7, 10] if keep == 1 else [5, 7, 10])
    assert checkpoint.restore(folder, [variable], warn=lambda line: None)["step"] == 7
    assert (variable.value == 7).all()
    assert there(11) == ([11] if keep == 1 else [10, 11])
    assert there(12) == ([12] if keep == 1 else [11, 12])


def test_a_full_disk_loses_no_earlier_checkpoint(saved):
    """On a real file system of one megabyte."""
    from kfcn.errors import KfcnError

    checkpoint, folder = saved
    with small_disk(folder / "small", "1m") as small:
        for step in (1, 2):
            checkpoint.save(small, [Value(np.full((256, 256), step))], step, {"rows": []}, keep=5)
        with pytest.raises(KfcnError, match=r"step-00000003\.npz could not be written: No space"):
            for step in (3, 4, 5):
                checkpoint.save(small, [Value(np.full((512, 512), step))], 3, {"rows": []}, keep=5)
        assert [p.name for p in sorted(small.iterdir())] == [f"step-0000000{n}.npz" for n in (1, 2)]
        variable = Value(np.zeros((256, 256)))
        assert checkpoint.restore(small, [variable])["step"] == 2
        assert (variable.value == 2).all()


@pytest.mark.slow
def test_a_run_on_a_full_disk_says_so(pairs, tmp_path):
    with small_disk(tmp_path / "small", "700k") as small:
        command = train_command(pairs, small / "run", *EACH_STEP, "--keep", 99)
        code, output = finish(command, tmp_path / "log.txt")
        assert code == 1
        last = output.splitlines()[-1]
        assert last.startswith(f"kfcn-train: error: {small}/run/")
        assert last.endswith(
            "could not be written: No space left on device; free some space; "
            f"the same command goes on from there (run {small}/run)"
        )
        assert "Traceback" not in output
        assert not list(small.rglob(TEMPORARY))
        done, _ = load(checkpoints(small / "run")[-1])
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        code, output = finish(command, tmp_path / "again.txt")
        assert code == 0, output
        assert f"continuing {small}/run after step {done['step'] % 3}" in output


@pytest.mark.slow
def test_a_run_folder_that_cannot_be_written_is_told(tmp_path, pairs):
    (tmp_path / "file").write_text("")
    code, output = finish(train_command(pairs, tmp_path / "file" / "run"), tmp_path / "log.txt")
    assert code == 1
    assert "could not be made: Not a directory" in output
    assert "Traceback" not in output


@pytest.mark.long
def test_an_image_that_becomes_unreadable(pairs, tmp_path):
    """Without --skip-bad the run stops and names it; with it the run counts it and goes on."""
    data = tmp_path / "pairs"
    shutil.copytree(pairs, data)
    command = train_command(data, tmp_path / "run", *EACH_STEP)
    with Process(command, tmp_path / "first.txt") as process:
        process.until(lambda: newest(tmp_path / "run") >= 2)
        process.send(signal.SIGTERM)
        process.wait()
    file = data / "images/train/train03.png"
    file.write_bytes(bytes(file.stat().st_size))  # of another size it would be other data
    code, output = finish(command, tmp_path / "second.txt")
    assert code == 1
    assert "images/train/train03.png: cannot be read as an image" in output
    assert "Traceback" not in output
    code, output = finish([*command, "--skip-bad", "1"], tmp_path / "third.txt")
    assert code == 0, output
    (told,) = [line for line in output.splitlines() if "skipped" in line]
    assert "train03.png" in told and "(1 of at most 1)" in told


def test_skipping_within_the_stream():
    """The picture's place stays empty and the others stay as they are; one too many stops."""
    import tensorflow as tf

    from kfcn.data import IGNORE
    from kfcn.data.feed.batches import data_error, training_batches
    from kfcn.data.feed.views import Skipping
    from kfcn.data.sets.scenes import Scenes
    from kfcn.errors import DataError

    class Failing(Scenes):
        broken = ()

        def __getitem__(self, index):
            if index in self.broken:
                raise DataError(f"{self.file_name(index)}: cannot be read as an image (gone)")
            return super().__getitem__(index)

    dataset, said = Failing("val", None, 0), []
    seen = Skipping(dataset, 2, said.append)

    def read():
        stream = training_batches(seen, len(dataset), (32, 32), 1, cache=False).take(1)
        ((images, labels),) = [(x.numpy(), y.numpy()) for x, y in stream]
        return images, labels

    whole, labels = read()
    dataset.broken = (3, 5)
    images, now = read()
    empty = (now == IGNORE).all((1, 2))
    assert empty.sum() == 2 == len(seen.skipped)
    np.testing.assert_array_equal(now[~empty], labels[~empty])
    np.testing.assert_array_equal(images[~empty], whole[~empty])
    assert len(said) == 2 and said[1].endswith("(2 of at most 2)")
    dataset.broken = (3, 5, 7)
    with pytest.raises(tf.errors.OpError) as caught:
        read()
    assert dataset.file_name(7) in str(data_error(caught.value))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_with_step_names_and_state(pairs, tmp_path):
    code, output = finish(
        train_command(pairs, tmp_path / "run", *EACH_STEP, "--learning-rate", 1e30),
        tmp_path / "log.txt",
    )
    assert code == 1
    message = output.splitlines()[-1]
    assert "the loss is nan at step" in message or "the loss is inf at step" in message
    step = int(message.split("at step ")[1].split()[0])
    names = message.split("batch ")[1].split(";")[0].split(", ")
    assert len(names) == 3 and all(name.startswith("images/train/train") for name in names)
    assert newest(tmp_path / "run") == step - 1
    note, _ = load(checkpoints(tmp_path / "run")[-1])
    assert note["step"] == step - 1
    assert "Traceback" not in output


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
    given = settings(pairs, epochs=1)
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
    given = settings(pairs, epochs=1)
    train(run_dir=tmp_path / "run", **given)
    (tmp_path / "run/model.json").unlink()
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["machine"]["onednn"] = not config["machine"]["onednn"]
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    train(run_dir=tmp_path / "run", verbose=True)
    assert "the results will differ in rounding: oneDNN was" in capfd.readouterr().out
