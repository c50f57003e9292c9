"""A site of a tiny bundle and of as much of LiteRT.js as a server looks at."""

import shutil
from pathlib import Path

import pytest
from kfcn_mobile import site as site_module
from kfcn_mobile.site import make_site, read_net
from serving import get, running
from shipping import tiny_bundle


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


@pytest.fixture
def ask(site):
    with running(site) as server:
        assert server.server_address[0] == "127.0.0.1"
        yield lambda *args, **headers: get(server, *args, **headers)
