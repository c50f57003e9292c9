import os

import numpy as np
import pytest
from PIL import Image
from processes import small_disk

from kfcn.errors import KfcnError
from kfcn.files import aside, make_folder, read_object, save_picture, sha256, write_json, write_text


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
