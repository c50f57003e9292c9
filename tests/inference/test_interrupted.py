"""kfcn-predict stopped, killed or out of disk: nothing is half there, and it goes on."""

import os
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image
from processes import BIN, Process, finish, small_disk
from small_nets import save_colour_run

COUNT = 24


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A net that sees the class in the colour: dark or bright."""
    folder = tmp_path_factory.mktemp("run")
    palette = {"background": (0, 0, 0), "bright": (255, 0, 0)}
    save_colour_run(folder, palette, np.array([[0, 1]] * 3) / 3, [100, 0])
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Pictures, and the labels of each; noise, so that a result takes its time and its bytes."""
    folder, truth = tmp_path / "pictures", {}
    folder.mkdir()
    for index in range(COUNT):
        grey = np.random.default_rng(index).choice(np.array([20, 230], np.uint8), (300, 400))
        Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(folder / f"p{index:02}.png")
        truth[f"p{index:02}"] = (grey > 100).astype(np.uint8)
    return folder, truth


def command(run, folder, out):
    return [str(x) for x in (BIN / "kfcn-predict", run, folder, "--out", out)]


def check(out, truth):
    """How many results there are, each of them whole and right."""
    done = sorted(out.glob("p??.png"))
    for file in done:
        np.testing.assert_array_equal(np.asarray(Image.open(file)), truth[file.stem])
    for file in out.glob("*_overlay.jpg"):
        Image.open(file).load()
        assert file.read_bytes().endswith(b"\xff\xd9")
    return len(done)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_prediction_is_completed_by_the_next(run, pictures, tmp_path, number):
    folder, truth = pictures
    out = tmp_path / "out"
    with Process(command(run, folder, out), tmp_path / "log.txt") as process:
        process.until(lambda: len(list(out.glob("p??.png"))) >= 2)
        process.send(number)
        code, output = process.wait(), process.output
    assert code == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in output
    if number == signal.SIGINT:
        assert output.strip().splitlines()[-1] == "kfcn-predict: stopped"
        assert not list(out.glob(".kfcn-*"))
    done = check(out, truth)
    assert 2 <= done < COUNT
    # A person corrects one and puts a picture of their own beside them: both stay.
    corrected = np.full((300, 400), 1, np.uint8)
    Image.fromarray(corrected).save(out / "p00.png")
    (out / "mine.txt").write_text("mine")
    code, output = finish(command(run, folder, out), tmp_path / "log2.txt")
    assert code == 0 and f"{COUNT - 1} pictures segmented" in output
    assert "1 kept, because kfcn did not write what is there now" in output
    assert np.array_equal(np.asarray(Image.open(out / "p00.png")), corrected)
    assert (out / "mine.txt").read_text() == "mine"
    assert check(out, {**truth, "p00": corrected}) == COUNT


@pytest.mark.long
def test_a_full_disk_is_told_for_each_picture_and_completed_later(run, pictures, tmp_path):
    folder, truth = pictures
    with small_disk(tmp_path / "small", "600k", "--lazy") as out:
        code, output = finish(command(run, folder, out), tmp_path / "log.txt")
        assert code == 1 and "Traceback" not in output
        told = [line for line in output.splitlines() if "No space left on device" in line]
        done = check(out, truth)
        assert 0 < done < COUNT and len(told) == COUNT - done
        assert not list(out.glob(".kfcn-*"))
        subprocess.run(["mount", "-o", "remount,size=64m", out], check=True)
        code, output = finish(command(run, folder, out), tmp_path / "log2.txt")
        assert code == 0 and check(out, truth) == COUNT


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_may_not_be_written_is_one_line(run, pictures, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    code, output = finish(command(run, pictures[0], out), tmp_path / "log.txt")
    assert code == 1 and "Traceback" not in output
    assert "cannot be written to: Permission denied" in output
