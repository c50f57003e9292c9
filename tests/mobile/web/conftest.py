"""The page, served and opened in a headless Chromium."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from kfcn_mobile.bundle import read_bundle
from kfcn_mobile.server import Server
from kfcn_mobile.site import make_site, net_of, read_net
from kfcn_mobile.targets.browser import QUIET, find_chromium
from ready import ready
from shipping import tiny_bundle
from web_page import READY

CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(tiny_bundle())


@pytest.fixture(scope="module")
def chromium():
    ready("browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    arguments = QUIET[1:] + CAMERA + ["--no-sandbox"] * (os.geteuid() == 0)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=find_chromium(), args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """The bundle again, with a first class that is background, and its pictures in reverse."""
    folder = Path(shutil.copytree(tiny_bundle(), tmp_path_factory.mktemp("objects") / "objects"))
    info = json.loads((folder / "bundle.json").read_text())
    info["classes"][0] = "background"
    info["golden"].reverse()
    (folder / "bundle.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def server(bundle, objects):
    server = Server(make_site([net_of(bundle), read_net(objects)], print))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(chromium, server):
    """The open page; whatever it asked of another host, was refused, or raised, fails the test."""
    context = chromium.new_context(viewport={"width": 1000, "height": 800})
    context.set_default_timeout(120_000)  # milliseconds; a busy machine needs a minute to be ready
    page = context.new_page()
    asked, raised = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: raised.append(str(error)))
    page.on("console", lambda line: raised.append(line.text) if "Refused" in line.text else None)
    page.goto(server.url)
    page.wait_for_selector(READY)
    yield page
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {server.url[7:-1]}
    assert not raised
    context.close()
