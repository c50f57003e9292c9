"""LiteRT.js is checked before it is kept."""

import io
import os
import sys
import tarfile

import pytest
from kfcn_mobile.errors import MissingError
from kfcn_mobile.fetch import litert_js
from kfcn_mobile.serve import main
from shipping import tiny_bundle


@pytest.fixture
def fake_npm(tmp_path, monkeypatch):
    """An `npm pack` that gives an archive of another content than the pinned one."""
    archive = tmp_path / "fake.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("package/dist/index.js")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        f"shutil.copy({str(archive)!r}, sys.argv[sys.argv.index('--pack-destination') + 1])\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_another_litert_js_is_refused(fake_npm, capsys):
    told = []
    with pytest.raises(MissingError, match=r"core 2\.5\.3: sha512 .*, expected PlGmbMOq"):
        litert_js.litert_js(told.append)
    assert told == ["LiteRT.js 2.5.3, once, through npm: 12 MB"]
    assert not [path for path in fake_npm.rglob("*") if path.suffix in (".js", ".wasm")]
    assert main([str(tiny_bundle())]) == 2
    assert "kfcn-serve: error: @litertjs/core" in capsys.readouterr().err


def test_a_litert_js_of_which_files_are_gone_is_fetched_again(fake_npm):
    folder = fake_npm / "kfcn" / f"litert-js-{litert_js.VERSION}"
    files = [folder / ours for _, files in litert_js.PACKAGES.values() for ours in files.values()]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert litert_js.litert_js(print) == folder
    files[-1].unlink()
    with pytest.raises(MissingError, match="sha512"):  # of the fake that is fetched
        litert_js.litert_js(print)


def test_no_npm_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main([str(tiny_bundle())]) == 2
    assert "no 'npm' on the PATH: install Node.js" in capsys.readouterr().err
