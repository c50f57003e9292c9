"""The site that kfcn-serve gives: headers, addresses, and LiteRT.js checked before it is kept."""

import http.client
import io
import os
import shutil
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from kfcn_mobile.fetch import litert_js
from kfcn_mobile.outputs import OutputError
from kfcn_mobile.serve import PAGE, Server, main, write_site
from shipping import tiny_bundle


@pytest.fixture
def folders(tmp_path):
    litert = tmp_path / "litert"
    (litert / "wasm").mkdir(parents=True)
    (litert / "core.js").write_text("// core")
    (litert / "wasm" / "a.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret").write_text("secret")
    return {"bundle": tiny_bundle(), "litert": litert, "": PAGE}


@pytest.fixture
def ask(folders):
    server = Server(folders)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert server.server_address[0] == "127.0.0.1"

    def get(path, **headers):
        connection = http.client.HTTPConnection(*server.server_address, timeout=10)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response, response.read()

    yield get
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?validate", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/litert/core.js", "text/javascript; charset=utf-8"),
        ("/litert/wasm/a.wasm", "application/wasm"),
        ("/bundle/bundle.json", "application/json"),
        ("/bundle/int8.tflite", "application/octet-stream"),
        ("/bundle/golden/0000_image.png", "image/png"),
    ],
)
def test_every_answer_has_the_headers_that_threads_need(ask, path, kind):
    response, content = ask(path)
    assert response.status == 200 and content
    assert response.headers["Content-Type"] == kind
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_an_unchanged_file_is_not_sent_again(ask):
    response, _ = ask("/app.js")
    again, content = ask("/app.js", **{"If-Modified-Since": response.headers["Last-Modified"]})
    assert again.status == 304 and not content


@pytest.mark.parametrize(
    "path",
    [
        "/bundle/",
        "/bundle",
        "/litert/wasm/",
        "/litert/../secret",
        "/litert/%2e%2e/secret",
        "/litert/..%2fsecret",
        "/..%5csecret",
        "//etc/passwd",
        "/bundle//etc/passwd",
        "/none",
    ],
)
def test_nothing_else_is_served(ask, path):
    response, content = ask(path)
    assert response.status == 404
    assert b"secret" not in content and b"root:" not in content


def test_the_site_as_plain_files(folders, tmp_path):
    write_site(folders, tmp_path / "site")
    found = {p.relative_to(tmp_path / "site").as_posix() for p in (tmp_path / "site").rglob("*")}
    assert {"index.html", "sw.js", "litert/wasm/a.wasm", "bundle/int8.tflite"} <= found


def test_no_file_of_the_page_names_a_host():
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text, file.name


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
    with pytest.raises(litert_js.MissingError, match=r"core 2\.5\.3: sha512 .*, expected PlGmbMOq"):
        litert_js.litert_js(told.append)
    assert told == ["LiteRT.js 2.5.3, once, through npm: 12 MB"]
    assert not [path for path in fake_npm.rglob("*") if path.suffix in (".js", ".wasm")]
    assert main([str(tiny_bundle())]) == 2
    assert "kfcn-serve: error: @litertjs/core" in capsys.readouterr().err


def test_no_npm_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main([str(tiny_bundle())]) == 2
    assert "no 'npm' on the PATH: install Node.js" in capsys.readouterr().err


def test_no_bundle_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "bundle.json: no such file" in capsys.readouterr().err
    assert not Path(tmp_path / "site").exists()


def content(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_site_is_a_new_folder_outside_of_what_it_is_made_of(tmp_path, folders, capsys):
    bundle = tmp_path / "bundle"
    shutil.copytree(folders["bundle"], bundle)
    folders = folders | {"bundle": bundle}
    (tmp_path / "link").symlink_to(bundle)
    before = content(tmp_path)
    for place in (bundle / "site", bundle / "a" / "b", tmp_path / "link" / "site"):
        with pytest.raises(OutputError, match="whose files the site is made of"):
            write_site(folders, place)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for place in (bundle, tmp_path / "secret", tmp_path / "gone"):
        with pytest.raises(OutputError, match="exists already"):
            write_site(folders, place)
        assert main([str(bundle), "--write", str(place)]) == 2
        assert "exists already" in capsys.readouterr().err
    assert content(tmp_path) == before
    write_site(folders, tmp_path / "new" / "site")
    assert (tmp_path / "new" / "site" / "bundle" / "bundle.json").is_file()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["site"]
