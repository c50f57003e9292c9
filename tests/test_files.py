import pytest

from kfcn.errors import KfcnError
from kfcn.files import aside, sha256, write_json


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


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f").startswith("ba7816bf8f01cfea")
