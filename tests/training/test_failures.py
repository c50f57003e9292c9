"""What a run cannot go on with is said in one line, and how far it was is kept."""

import shutil
import signal
import subprocess

import numpy as np
import pytest
from processes import (
    EACH_STEP,
    Process,
    checkpoints,
    finish,
    finish_here,
    load,
    newest,
    small_disk,
    train_command,
)

from kfcn.files import TEMPORARY


@pytest.mark.slow
def test_a_run_on_a_full_disk_says_so(pairs, tmp_path):
    with small_disk(tmp_path / "small", "700k") as small:
        command = train_command(pairs, small / "run", *EACH_STEP, "--keep", 99)
        code, output = finish_here(command)
        assert code == 1
        last = output.splitlines()[-1]
        assert last.startswith(f"kfcn-train: error: {small}/run/")
        assert last.endswith(
            "could not be written: No space left on device; free some space; "
            f"the same command continues from there (run {small}/run)"
        )
        assert "Traceback" not in output
        assert not list(small.rglob(TEMPORARY))
        done, _ = load(checkpoints(small / "run")[-1])
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        code, output = finish_here(command)
        assert code == 0, output
        assert f"continuing {small}/run after step {done['step'] % 3}" in output


@pytest.mark.slow
def test_a_run_folder_that_cannot_be_written_is_told(tmp_path, pairs):
    (tmp_path / "file").write_text("")
    code, output = finish_here(train_command(pairs, tmp_path / "file" / "run"))
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
    code, output = finish_here(
        train_command(pairs, tmp_path / "run", *EACH_STEP, "--learning-rate", 1e30)
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
