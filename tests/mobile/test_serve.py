"""kfcn-serve: what it answers, to whom, for how long; and LiteRT.js checked before it is kept."""

import contextlib
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import socket
import struct
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from kfcn_mobile import server as server_module
from kfcn_mobile import site as site_module
from kfcn_mobile.bundle import BundleError
from kfcn_mobile.errors import MissingError
from kfcn_mobile.fetch import litert_js
from kfcn_mobile.outputs import OutputError
from kfcn_mobile.serve import main
from kfcn_mobile.server import Server
from kfcn_mobile.site import PAGE, make_site, read_net, write_site
from kfcn_tools import serve as serve_shipped
from shipping import CLASSES, PALETTE, SIZE, rewrite, tiny_bundle


@pytest.fixture
def litert(tmp_path, monkeypatch):
    """The files of LiteRT.js as far as a server looks at them."""
    folder = tmp_path / "litert"
    (folder / "wasm").mkdir(parents=True)
    (folder / "core.js").write_text('import { createWasmLib } from "@litertjs/wasm-utils";')
    (folder / "wasm-utils.js").write_text("// utils")
    (folder / "wasm" / "a.wasm").write_bytes(b"\0asm")
    monkeypatch.setattr(site_module, "litert_js", lambda say: folder)
    return folder


@pytest.fixture
def bundle(tmp_path):
    """A bundle with a file that its description does not list."""
    folder = Path(shutil.copytree(tiny_bundle(), tmp_path / "my net"))
    (folder / "notes.txt").write_text("secret")
    return folder


@pytest.fixture
def site(litert, bundle):
    return make_site([read_net(bundle)], print)


@contextlib.contextmanager
def running(site, **options):
    server = Server(site, **options)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def get(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


@pytest.fixture
def ask(site):
    with running(site) as server:
        assert server.server_address[0] == "127.0.0.1"
        yield lambda *args, **headers: get(server, *args, **headers)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?validate", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/litert/core.js", "text/javascript; charset=utf-8"),
        ("/litert/wasm/a.wasm", "application/wasm"),
        ("/nets.json", "application/json"),
        ("/nets/my-net/int8.tflite", "application/octet-stream"),
        ("/nets/my-net/example-0.png", "image/png"),
    ],
)
def test_every_answer_has_its_type_and_the_headers(ask, site, path, kind):
    stem, dot, suffix = path.removeprefix("/").rpartition(".")
    if path.startswith("/nets/"):
        (address,) = (a for a in site if a.startswith(f"{stem}-") and a.endswith(dot + suffix))
        path = f"/{address}"
    response, content = ask(path)
    assert response.status == 200 and content
    assert response.headers["Content-Type"] == kind
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    policy = response.headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy and "script-src 'self' 'wasm-unsafe-eval'" in policy
    head, nothing = ask(path, "HEAD")
    assert head.status == 200 and not nothing
    assert int(head.headers["Content-Length"]) == len(content)


def test_the_page_has_no_script_or_style_that_its_policy_refuses():
    text = (PAGE / "index.html").read_text("utf-8")
    assert text.count("<script") == 1 and '<script type="module" src="app.js"></script>' in text
    assert "<style" not in text and " style=" not in text and " on" + "click" not in text


def test_the_nets_are_described(ask, bundle):
    (net,) = json.loads(ask("/nets.json")[1])["nets"]
    assert net["name"] == "my net" and net["size"] == list(SIZE)
    assert net["classes"] == CLASSES and net["palette"] == PALETTE
    assert [model["mode"] for model in net["models"]] == ["float32", "int8"]
    for model in net["models"]:
        content = (bundle / f"{model['mode']}.tflite").read_bytes()
        assert ask(f"/{model['file']}")[1] == content
    assert ask(f"/{net['examples'][0]}")[1] == (bundle / "golden/0000_image.png").read_bytes()


def test_litert_js_finds_its_other_half_in_a_worker(ask):
    assert ask("/litert/core.js")[1] == b'import { createWasmLib } from "./wasm-utils.js";'


def test_an_unchanged_file_is_not_sent_again(ask):
    response, _ = ask("/app.js")
    again, content = ask("/app.js", **{"If-None-Match": response.headers["ETag"]})
    assert again.status == 304 and not content


def test_another_file_has_another_address(litert, bundle, tmp_path):
    """A browser that has the file of a net of this name is not to run it under these classes."""
    other = tmp_path / "other" / bundle.name
    shutil.copytree(bundle, other)
    content = (other / "float32.tflite").read_bytes()
    rewrite(other, "int8.tflite", content)
    files = []
    for folder in (bundle, other):
        site = make_site([read_net(folder)], print)
        (net,) = json.loads(site["nets.json"])["nets"]
        files.append({model["mode"]: model["file"] for model in net["models"]})
        assert (
            hashlib.sha256(site[files[-1]["int8"]].read_bytes()).hexdigest()[:12]
            in (files[-1]["int8"])
        )
    assert files[0]["int8"] != files[1]["int8"] and files[0]["float32"] == files[1]["float32"]


def test_nets_of_one_name_are_told_apart(litert, bundle, tmp_path):
    other = tmp_path / "other" / bundle.name
    shutil.copytree(bundle, other)
    site = make_site([read_net(bundle), read_net(other)], print)
    names = [net["name"] for net in json.loads(site["nets.json"])["nets"]]
    assert names == [f"{bundle.parent.name}/my net", "other/my net"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/nets/my-net/",
        "/nets/my-net",
        "/nets/my-net/notes.txt",
        "/nets/my-net/bundle.json",
        "/nets/my-net/golden/0001_labels.png",
        "/litert/wasm/",
        "/litert/../secret",
        "/nets/my-net/%2e%2e/my-net/notes.txt",
        "/..%5csecret",
        "//etc/passwd",
        "/nets/my-net//etc/passwd",
        "/nets/my-net/int8.tflite%00",
        "/none",
    ],
)
def test_nothing_else_is_served(ask, path):
    response, content = ask(path)
    assert response.status == 404
    assert b"secret" not in content and b"root:" not in content


def test_what_a_link_in_a_bundle_points_to_is_not_published(bundle, litert, capsys, tmp_path):
    (tmp_path / "private.tflite").write_bytes((bundle / "int8.tflite").read_bytes())
    (bundle / "int8.tflite").unlink()
    (bundle / "int8.tflite").symlink_to(tmp_path / "private.tflite")
    assert main([str(bundle), "--write", str(tmp_path / "out")]) == 2
    assert "int8.tflite: is a link that points outside the folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("192.168.1.5:8000", 421),
        ("", 421),
        ("[", 421),
    ],
)
def test_only_its_own_names_are_answered(ask, host, status):
    """A page elsewhere whose name is made to point here would read what is served otherwise."""
    assert ask("/nets.json", Host=host)[0].status == status


def test_the_name_that_host_names_is_answered(site):
    with running(site, host="0.0.0.0") as server:
        answers = {name: server.answers(name) for name in ("192.168.1.5:80", "evil.example")}
        own = server.answers(socket.gethostname())
        name = server.url.removeprefix("http://").rpartition(":")[0]
        assert name != "0.0.0.0" and get(server, "/", Host=name)[0].status == 200
    assert own and answers == {"192.168.1.5:80": True, "evil.example": False}
    with running(site, host="localhost") as server:
        assert get(server, "/", Host="localhost")[0].status == 200
        assert server.url.startswith("http://localhost:")


def test_an_address_that_is_none_is_a_bad_request(site, capsys):
    with running(site) as server, socket.create_connection(server.server_address) as connection:
        connection.sendall(b"GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("pieces", [[b"GET / HT"], [b"G", b"E", b"T", b" ", b"/", b" "] * 20])
def test_a_request_that_does_not_end_is_dropped(site, monkeypatch, pieces):
    """Also where a byte comes now and then: the time is that of the whole request."""
    monkeypatch.setattr(server_module, "PATIENCE", 0.5)
    with running(site) as server, socket.create_connection(server.server_address) as connection:
        connection.settimeout(20)
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.1)
                if time.monotonic() - start > 5:
                    break
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b""
        # Control: the same time suffices for a request that is complete.
        assert get(server, "/")[0].status == 200


def test_a_client_that_goes_away_leaves_no_traceback(site, capsys):
    site["large.bin"] = bytes(50_000_000)
    with running(site) as server:
        for request in (b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET"):
            connection = socket.create_connection(server.server_address)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request)
            time.sleep(0.2)
            connection.close()  # at once, with a reset
        time.sleep(0.5)
        assert get(server, "/")[0].status == 200
    assert capsys.readouterr().err == ""


def test_the_site_as_plain_files(site, bundle, tmp_path):
    out = tmp_path / "out"
    write_site(site, out, [bundle])
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == set(site)
    (file,) = out.glob("nets/my-net/int8-*.tflite")
    assert file.read_bytes() == (bundle / "int8.tflite").read_bytes()
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_no_file_of_the_page_names_a_host():
    for file in PAGE.iterdir():
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text, file.name


@pytest.fixture
def shelf(tmp_path):
    """The folder of a net as it ships with kfcn."""
    folder = tmp_path / "shelf" / "pets"
    folder.mkdir(parents=True)
    for mode in ("int8", "float16"):
        source = tiny_bundle() / f"{'int8' if mode == 'int8' else 'float32'}.tflite"
        shutil.copy(source, folder / f"{mode}.tflite")
    (folder / "example.png").write_bytes((tiny_bundle() / "golden/0001_image.png").read_bytes())
    (folder / "model.keras").write_bytes(b"large")
    card = {
        "classes": CLASSES,
        "palette": PALETTE,
        "description": "A net for tests",
        "trained_on": "three pictures",
        "tflite": {"size": list(SIZE)},
        "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()},
    }
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def test_a_net_that_ships_is_served_with_its_example(shelf, bundle, litert):
    site = make_site([read_net(shelf), read_net(bundle), read_net(shelf)], print)
    nets = json.loads(site["nets.json"])["nets"]
    assert [net["name"] for net in nets] == ["shelf/pets", "my net", "shelf/pets"]
    assert nets[0]["about"] == "A net for tests. Trained on three pictures."
    assert [model["mode"] for model in nets[0]["models"]] == ["float16", "int8"]
    (example,) = nets[0]["examples"]
    assert re.fullmatch(r"nets/shelf-pets/example-0-[0-9a-f]{12}\.png", example)
    assert nets[2]["models"][0]["file"].startswith("nets/shelf-pets-2/float16-")
    assert not any("keras" in address or "model.json" in address for address in site)


def spoil(folder, change):
    card = json.loads((folder / "model.json").read_text())
    change(card)
    (folder / "model.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda card: card["files"].update({"int8.tflite": "0"}), "int8.tflite: changed since"),
        (lambda card: card.pop("tflite"), "its model.json names no .tflite files"),
        (lambda card: card.update(files=[1]), "its model.json names no .tflite files"),
        (lambda card: card.update(classes="abc"), "model.json: classes: expected a list"),
        (lambda card: card["tflite"].update(size=[0, 1]), "model.json: size: expected two whole"),
    ],
)
def test_a_card_that_is_wrong_is_one_line(shelf, change, expected):
    spoil(shelf, change)
    with pytest.raises(BundleError) as raised:
        read_net(shelf)
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_without_an_argument_the_nets_that_ship_are_served(shelf, litert, monkeypatch, tmp_path):
    from kfcn import pretrained

    monkeypatch.setattr(pretrained, "FOLDER", shelf.parent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()  # of pictures, say: it is no net
    assert "folder that kfcn-convert wrote, or one of pets; without any, those" in " ".join(
        serve_shipped.parser().format_help().split()
    )
    for i, names in enumerate([[], ["pets"], [str(shelf)]]):
        out = tmp_path / f"out{i}"
        assert serve_shipped.main([*names, "--write", str(out)]) == 0
        assert list(out.glob("nets/pets/int8-*.tflite"))


def test_an_unknown_name_is_one_line(shelf, monkeypatch, capsys):
    from kfcn import pretrained

    monkeypatch.setattr(pretrained, "FOLDER", shelf.parent)
    assert serve_shipped.main(["cats"]) == 2
    assert "cats: no such folder; expected one of: a folder that kfcn-convert wrote, pets" in (
        capsys.readouterr().err
    )


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


def test_no_bundle_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "bundle.json: no such file" in capsys.readouterr().err
    assert main(["x" * 300]) == 1
    told = capsys.readouterr().err
    assert "File name too long" in told and "port" not in told and told.count("\n") == 1


def content(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_site_is_a_new_folder_outside_of_what_it_is_made_of(tmp_path, site, bundle, capsys):
    (tmp_path / "link").symlink_to(bundle)
    before = content(tmp_path)
    for place in (bundle / "site", bundle / "a" / "b", tmp_path / "link" / "site"):
        with pytest.raises(OutputError, match="whose files the site is made of"):
            write_site(site, place, [bundle])
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for place in (bundle, tmp_path / "litert", tmp_path / "gone"):
        with pytest.raises(OutputError, match="exists already"):
            write_site(site, place, [bundle])
        assert main([str(bundle), "--write", str(place)]) == 2
        assert "exists already" in capsys.readouterr().err
    assert content(tmp_path) == before
    write_site(site, tmp_path / "new" / "site", [bundle])
    assert (tmp_path / "new" / "site" / "nets.json").is_file()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["site"]


def test_what_is_for_serving_is_refused_where_a_site_is_written(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tiny_bundle()), "--write", str(tmp_path / "out"), "--port", "9"])
    assert "--port and --host are for serving" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".org"])
def test_a_host_that_is_no_name_is_one_line(bundle, litert, capsys, host):
    assert main([str(bundle), "--host", host, "--port", "0"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"kfcn-serve: error: {host}, port 0: ")
