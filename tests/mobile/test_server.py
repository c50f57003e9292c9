"""What the server answers, to whom, and for how long."""

import contextlib
import socket
import struct
import time

import pytest
from kfcn_mobile import server as server_module
from serving import get, running


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


def test_litert_js_finds_its_other_half_in_a_worker(ask):
    assert ask("/litert/core.js")[1] == b'import { createWasmLib } from "./wasm-utils.js";'


def test_an_unchanged_file_is_not_sent_again(ask):
    response, _ = ask("/app.js")
    again, content = ask("/app.js", **{"If-None-Match": response.headers["ETag"]})
    assert again.status == 304 and not content


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
