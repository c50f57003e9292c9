"""Whose a file is, and that nothing of the user's is replaced."""

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from kfcn.errors import KfcnError, UsageError
from kfcn.files import sha256
from kfcn.outputs import MANIFEST, Outputs, State, new_folder, one_file


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def write(out, name, text, **options):
    outputs = Outputs(out, **options)
    outputs.check([out / name])
    with outputs.lock():
        outputs.write_text(out / name, text)
    return outputs


def test_a_file_is_kfcns_until_somebody_changes_it(out):
    path = out / "a.txt"
    assert Outputs(out).state(path) is State.FREE
    write(out, "a.txt", "one")
    assert Outputs(out).state(path) is State.OURS
    write(out, "a.txt", "two")  # so that it may be written again
    path.write_text("corrected")
    assert Outputs(out).state(path) is State.CHANGED
    with pytest.raises(
        UsageError, match=r"a\.txt already exists .*was changed after kfcn wrote it.*overwrite"
    ):
        write(out, "a.txt", "three")
    assert path.read_text() == "corrected"
    write(out, "a.txt", "three", overwrite=True)
    assert path.read_text() == "three" and Outputs(out).state(path) is State.OURS
    (out / "b.txt").write_text("three")  # the same content under another name is not kfcn's
    assert Outputs(out).state(out / "b.txt") is State.FOREIGN
    with pytest.raises(UsageError, match=r"b\.txt already exists and was not written by kfcn"):
        write(out, "b.txt", "x")
    assert sorted(p.name for p in out.iterdir()) == [MANIFEST, "a.txt", "b.txt"]


def test_a_link_is_not_kfcns_whatever_it_leads_to(out, tmp_path):
    write(out, "a.txt", "one")
    (out / "a.txt").rename(tmp_path / "kept.txt")
    (out / "a.txt").symlink_to(tmp_path / "kept.txt")
    assert Outputs(out).state(out / "a.txt") is State.CHANGED
    (out / "gone.txt").symlink_to(tmp_path / "nowhere")
    assert Outputs(out).state(out / "gone.txt") is State.FOREIGN
    write(out, "a.txt", "two", overwrite=True)
    assert (tmp_path / "kept.txt").read_text() == "one"  # the link was replaced, not its end


@pytest.mark.parametrize("kind", ["itself", "link", "hard link", "folder link", "dots"])
def test_an_input_is_never_replaced(tmp_path, kind):
    folder = tmp_path / "in"
    folder.mkdir()
    picture = folder / "a.png"
    picture.write_text("picture")
    out, source = folder, picture
    if kind == "link":
        source = tmp_path / "link.png"
        source.symlink_to(picture)
    elif kind == "hard link":
        source = tmp_path / "hard.png"
        os.link(picture, source)
    elif kind == "folder link":
        out = tmp_path / "out"
        out.symlink_to(folder)
    elif kind == "dots":
        out = folder / ".." / "in"
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"a\.png is one of the inputs"):
            Outputs(out, [source], overwrite).check([out / "a.png"])
    Outputs(out, [source]).check([out / "b.png"])  # the control
    assert picture.read_text() == "picture"
    assert sorted(p.name for p in folder.iterdir()) == ["a.png"]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(UsageError, match="d is a folder"):
        Outputs(tmp_path, overwrite=True).check([tmp_path / "d"])


def test_a_file_that_appears_during_the_work_stays(out):
    outputs = Outputs(out)
    outputs.check([out / "a.txt"])
    with outputs.lock():
        (out / "a.txt").write_text("somebody's")
        with pytest.raises(KfcnError, match="already exists"):
            outputs.write_text(out / "a.txt", "kfcn's")
    assert (out / "a.txt").read_text() == "somebody's"
    assert [p.name for p in out.iterdir()] == ["a.txt"]


def test_a_run_killed_before_the_rename_leaves_a_file_that_is_still_kfcns(out):
    outputs = write(out, "a.txt", "one")
    outputs.note(out / "a.txt", "0" * 64)  # what is noted before the rename that never came
    assert Outputs(out).state(out / "a.txt") is State.OURS


def test_a_damaged_manifest_makes_nothing_kfcns(out):
    write(out, "a.txt", "one")
    line = (out / MANIFEST).read_text()
    for damaged in (line[:-9], "\x00\xff", "[1, 2]", '{"name": 3, "sha256": 4}', "[" * 5000, ""):
        (out / MANIFEST).write_text(damaged)
        assert Outputs(out).state(out / "a.txt") is State.FOREIGN
    (out / MANIFEST).write_bytes(b"\xff\xfe")
    assert Outputs(out).state(out / "a.txt") is State.FOREIGN
    (out / MANIFEST).write_text('{"name": "a.txt", "sh' + line)  # cut off, then written on
    assert Outputs(out).state(out / "a.txt") is State.OURS


def test_the_manifest_is_not_written_through_a_link(out, tmp_path):
    out.mkdir()
    (tmp_path / "profile").write_text("mine")
    (out / MANIFEST).symlink_to(tmp_path / "profile")
    with pytest.raises(KfcnError, match="could not be written"):
        write(out, "a.txt", "one")
    assert (tmp_path / "profile").read_text() == "mine"
    assert not (out / "a.txt").exists()


def test_the_manifest_stays_short(out):
    outputs = Outputs(out)
    with outputs.lock():
        for number in range(150):
            outputs.note(out / f"{number % 3}.txt", f"{number:064d}")
    assert len((out / MANIFEST).read_text().split()) > 300
    with outputs.lock():
        lines = [json.loads(x) for x in (out / MANIFEST).read_text().splitlines() if x]
    assert len(lines) == 6  # the last two of each
    assert {int(line["sha256"]) for line in lines} == {149, 148, 147, 146, 145, 144}


def test_two_commands_at_once_are_told(out):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from kfcn.outputs import Outputs\n"
            "with Outputs(sys.argv[1]).lock(): print('locked', flush=True); sys.stdin.read()",
            str(out),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(UsageError, match="another command is writing to"), Outputs(out).lock():
        pass
    with one_file(out / "other.json"):  # one file of the folder is another matter
        with (
            pytest.raises(UsageError, match=r"another command is writing to .*other\.json"),
            one_file(out / "other.json"),
        ):
            pass
        with one_file(out / "third.json"):
            pass
    holder.kill()  # a dead process holds no lock
    holder.wait()
    with Outputs(out).lock():
        pass
    assert list(out.iterdir()) == []


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    with new_folder(tmp_path / "a" / "b") as folder:
        (folder / "x").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
        with (
            pytest.raises(UsageError, match="another command is writing to"),
            new_folder(tmp_path / "a" / "b"),
        ):
            pass
    assert (tmp_path / "a" / "b" / "x").read_text() == "x"
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for there in (tmp_path / "a" / "b", tmp_path / "gone"):
        with pytest.raises(UsageError, match="exists already"), new_folder(there):
            pass
    with (
        pytest.raises(KfcnError, match="could not be written: Directory not empty"),
        new_folder(tmp_path / "c") as folder,
    ):
        (tmp_path / "c").mkdir()
        (tmp_path / "c" / "mine").write_text("mine")
    assert (tmp_path / "c" / "mine").read_text() == "mine"
    with pytest.raises(RuntimeError), new_folder(tmp_path / "d") as folder:
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "c", "gone"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError()]
)
def test_a_file_system_without_locks_is_written_to(out, monkeypatch, error):
    def acquire(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    write(out, "a.txt", "one")
    assert (out / "a.txt").read_text() == "one"
    monkeypatch.setattr(error, "errno", errno.EROFS, raising=False)
    if isinstance(error, OSError):
        with pytest.raises(KfcnError, match="cannot be written to: No locks"), Outputs(out).lock():
            pass


def test_half_files_of_killed_commands_are_removed(out):
    out.mkdir()
    old, new = out / ".kfcn-00aa.part.png", out / ".kfcn-11bb.part.png"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    with Outputs(out).lock():
        assert [p.name for p in out.iterdir() if "part" in p.name] == [new.name]
    write(out, "below/a.txt", "one")
    deep, other = out / "below/.kfcn-22cc.part.png", out / "others/.kfcn-33dd.part.png"
    for path in (deep, other):  # nothing of kfcn's lies in the other folder
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
        os.utime(path, (0, 0))
    with Outputs(out).lock():
        assert not deep.exists() and other.exists()


def test_beams_workers_get_it_pickled(out, tmp_path):
    (tmp_path / "in.txt").write_text("x")
    outputs = pickle.loads(pickle.dumps(Outputs(out, [tmp_path / "in.txt"])))
    with outputs.lock():
        outputs.write_text(out / "a.txt", "one")
    assert Outputs(out).state(out / "a.txt") is State.OURS
    with pytest.raises(UsageError, match="one of the inputs"):
        Outputs(tmp_path, [tmp_path / "in.txt"]).check([Path(f"{out}/../in.txt")])


def test_what_a_file_was_made_by_is_noted_until_it_changes(out):
    file = out / "a.txt"
    one = write(out, "a.txt", "same", by="one")
    assert one.made_by(file) == Outputs(out).made_by(file) == "one"
    assert one.made_by(out / "b.txt") is None
    write(out, "a.txt", "same", by="other")
    assert Outputs(out).made_by(file) == "other"
    write(out, "a.txt", "different")
    assert Outputs(out).made_by(file) is None and Outputs(out).state(file) is State.OURS
    one = write(out, "a.txt", "again", by="one")
    for _ in range(200):  # so that the next one shortens the manifest
        one.note(file, sha256(file))
    with one.lock():
        assert len((out / MANIFEST).read_text().splitlines()) < 20
    assert Outputs(out).made_by(file) == "one"
    file.write_text("a person's")
    assert Outputs(out).made_by(file) is None
