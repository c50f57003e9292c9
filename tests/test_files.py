import os
import pickle
import subprocess

import numpy as np
import pytest
from PIL import Image
from processes import small_disk

from kfcn.errors import KfcnError, WriteError
from kfcn.files import (
    aside,
    make_folder,
    read_object,
    save_picture,
    sha256,
    until_changed,
    write_json,
    write_text,
    writing,
)
from kfcn.outputs import new_folder


def test_a_failing_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    before = sha256(path)
    with pytest.raises(RuntimeError), aside(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert sha256(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(KfcnError, match=r"a\.json could not be written: No such file"):
        write_json(tmp_path / "missing" / "a.json", {})


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(KfcnError, match="a could not be made: a file has this name"):
        make_folder(tmp_path / "a")


def test_a_name_that_is_not_in_utf8_is_written_as_json_writes_it(tmp_path):
    write_json(tmp_path / "a.json", {"file": "\udcff.jpg"})
    assert (tmp_path / "a.json").read_text() == '{\n  "file": "\\udcff.jpg"\n}\n'
    assert read_object(tmp_path / "a.json") == {"file": "\udcff.jpg"}


def test_text_is_the_same_bytes_everywhere(tmp_path):
    write_text(tmp_path / "a.txt", "Stra\u00dfe\r\n\udcff\n")
    assert (tmp_path / "a.txt").read_bytes() == b"Stra\xc3\x9fe\r\n\\udcff\n"


def test_text_that_is_refused_at_the_last_moment_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def refuse(written):
        assert written != path and written.read_text() == "new"
        raise KfcnError("no")

    with pytest.raises(KfcnError, match="no"):
        write_text(path, "new", refuse)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f").startswith("ba7816bf8f01cfea")


def test_the_longest_name_that_a_folder_takes(tmp_path):
    longest = tmp_path / f"{'n' * 250}.json"
    write_json(longest, 1)
    assert longest.read_text() == "1\n"
    too_long = tmp_path / f"{'n' * 251}.json"
    with pytest.raises(KfcnError, match="could not be written: File name too long") as caught:
        write_json(too_long, 1)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [longest.name]


def test_nothing_is_written_through_a_planted_link(tmp_path):
    """Whatever was planted before: every name beside the file leads to somebody's file."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    for name in (".part-a.json", "a.json", ".a.part.json"):
        (folder / name).symlink_to(mine)
    write_json(folder / "a.json", 1)
    assert mine.read_text() == "mine"
    assert not (folder / "a.json").is_symlink()
    names = set()
    for _ in range(3):
        with aside(folder / "b.json") as temporary:
            names.add(temporary.name)
            temporary.write_text("{}")
    assert len(names) == 3


def test_permissions_are_those_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_is_one_line(tmp_path):
    full = pytest.raises(KfcnError, match="could not be written: No space left")
    with full as caught, aside(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("side", [200, 240, 300])
def test_a_picture_that_a_full_disk_takes_in_part_is_none(tmp_path, side):
    """Three lengths: Pillow by itself writes the last block of a JPEG and looks no further."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    with small_disk(tmp_path / "small", "32k") as small:
        full = pytest.raises(KfcnError, match=r"x\.jpg could not be written: No space left")
        with full, aside(small / "x.jpg") as part:
            save_picture(Image.fromarray(noise), part, "JPEG", quality=92)
        assert not list(small.iterdir())
        with aside(small / "x.jpg") as part:  # the control: what has room is whole
            save_picture(Image.fromarray(noise[:99, :99]), part, "JPEG", quality=92)
        with Image.open(small / "x.jpg") as picture:
            picture.load()


def by_tensorflow(path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(30):
            writer.write(os.urandom(3000))


def by_array_record(path):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    try:
        for _ in range(30):
            writer.write(os.urandom(3000))
    finally:
        writer.close()


def by_numpy(path):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(20000))


WRITERS = [by_tensorflow, by_array_record, by_numpy]


@pytest.mark.parametrize("write", WRITERS)
def test_whoever_writes_to_a_full_disk_it_is_one_line(tmp_path, write):
    """These libraries' own errors are no OSErrors, or say neither which file nor what to do."""
    with small_disk(tmp_path / "small", "32k") as small:
        with pytest.raises(WriteError) as caught, aside(small / "a.npz") as part:
            write(part)
        full = "a.npz could not be written: No space left on device; free some space"
        assert str(caught.value) == f"{small}/{full}"
        assert not list(small.iterdir())
        with pytest.raises(WriteError) as caught, new_folder(small / "out") as folder:
            write(folder / "a.npz")
        full = "out could not be written: No space left on device; free some space"
        assert str(caught.value) == f"{small}/{full}"
        assert not list(small.iterdir())
    with aside(tmp_path / "a.npz") as part:  # the control: where there is room
        write(part)
    assert (tmp_path / "a.npz").stat().st_size > 32 << 10


def test_a_read_only_disk_is_one_line(tmp_path):
    with small_disk(tmp_path / "small", "32k") as small:
        write_json(small / "a.json", "old")
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        what = "Read-only file system; make it writable, or choose another place"
        with pytest.raises(WriteError) as caught:
            write_json(small / "a.json", "new")
        assert str(caught.value) == f"{small}/a.json could not be written: {what}"
        with pytest.raises(WriteError) as caught:
            make_folder(small / "b")
        assert str(caught.value) == f"folder {small}/b could not be made: {what}"
        with pytest.raises(WriteError) as caught, new_folder(small / "b"):
            pass
        assert str(caught.value) == f"folder {small} cannot be written to: {what}"
        assert (small / "a.json").read_text() == '"old"\n'


def test_another_disk_that_is_full_is_named(tmp_path):
    """As the one for temporary files may be."""
    with small_disk(tmp_path / "small", "32k") as small:
        with pytest.raises(WriteError) as caught, new_folder(tmp_path / "other/out"):
            by_tensorflow(small / "a")
        full = f"No space left on device ({small}/a); free some space"
        assert str(caught.value) == f"{tmp_path}/other/out could not be written: {full}"
    assert not list((tmp_path / "other").iterdir())


def test_errors_of_another_kind_stay_what_they_are(tmp_path):
    for error in (
        ValueError("7 is no shape"),
        RuntimeError("Permission to dance"),
        KfcnError("no"),
    ):
        with pytest.raises(type(error)) as caught, writing(tmp_path / "a"):
            raise error
        assert caught.value is error


def test_a_write_error_passes_from_process_to_process():
    error = WriteError("a could not be written: No space left on device", "free some space")
    again = pickle.loads(pickle.dumps(error.advising("start again")))
    assert str(again) == f"{error.failure}; free some space; start again"


def test_a_file_is_read_again_where_it_was_written_meanwhile(tmp_path):
    file, reads = tmp_path / "a.txt", []

    @until_changed
    def read(path):
        reads.append(path)
        return path.read_text()

    with pytest.raises(FileNotFoundError):
        read(file)
    for text in ("one", "three"):
        file.write_text(text)
        assert [read(file), read(file)] == [text, text]
    assert len(reads) == 3
