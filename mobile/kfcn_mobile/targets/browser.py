"""The browser: the page of `web/` in a headless Chromium labels the golden images."""

import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
from http import HTTPStatus

import numpy as np

from kfcn_mobile.bundle import Bundle
from kfcn_mobile.console import Say
from kfcn_mobile.errors import TargetError
from kfcn_mobile.fetch.litert_js import VERSION, litert_js
from kfcn_mobile.runner import summary
from kfcn_mobile.server import Handler, Server
from kfcn_mobile.site import Site, make_site, net_of
from kfcn_mobile.targets import Outcome, Target, Timing

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# A browser on its own account looks for updates and services: none of that here.
QUIET = ["--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-dev-shm-usage"]
# Without a graphics processor Chromium plays one, which shows the labels and says nothing of times.
WEBGPU = [flag for flag in QUIET if flag != "--disable-gpu"]
WEBGPU += ["--enable-unsafe-webgpu", "--enable-features=Vulkan"]
# From one message of the page to the next: a large float model on a slow machine.
PATIENCE = 300.0


def find_chromium() -> str:
    """The program of a Chromium or Chrome.

    Raises:
        TargetError: there is none.
    """
    for name in PROGRAMS:
        if program := shutil.which(name):
            return program
    raise TargetError(f"no Chromium on the PATH (looked for {', '.join(PROGRAMS)})")


def make(argument: str, say: Say) -> list[Target]:
    """The target of a headless Chromium, on WebAssembly or (argument `webgpu`) on WebGPU."""
    return [Browser(say, argument)]


class _Handler(Handler):
    """Also receives the results from the page."""

    server: "_Server"  # pyright: ignore[reportIncompatibleVariableOverride]: no other starts it

    def do_POST(self):  # noqa: N802
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
            return
        content = self.rfile.read(int(length))
        self.server.results.put((self.path.removeprefix("/result/"), content))
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()


class _Server(Server):
    """A site whose page reports."""

    def __init__(self, site: Site):
        self.results: queue.Queue[tuple[str, bytes]] = queue.Queue()
        super().__init__(site, handler=_Handler)


class Browser(Target):
    """A headless Chromium on this machine, with the page that people use.

    Args:
        say: gets lines for people.
        engine: "webgpu", or WebAssembly where it is empty.
    """

    def __init__(self, say: Say, engine: str = ""):
        self.name = f"browser:{engine}" if engine else "browser"
        self.kernels = "WebGPU" if engine else "XNNPACK"
        self._say, self._engine = say, engine or "wasm"
        self._profile = None

    def start(self) -> None:
        self._program = find_chromium()
        done = subprocess.run(
            [self._program, "--version"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        version = re.search(r"(\w+) (\d+)\.", done.stdout)
        named = f"{version[1]} {version[2]}" if version else "Chromium"
        self.machine = f"{named} headless, LiteRT.js {VERSION}"
        litert_js(self._say)
        self._profile = tempfile.mkdtemp(prefix="kfcn-browser-")

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        site = make_site([net_of(bundle)], self._say, examples=len(bundle.golden))
        wanted = {"mode": model["mode"], "timing": vars(timing), "engine": self._engine}
        site["validate.json"] = json.dumps(wanted).encode()
        with _Server(site) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            drawing = QUIET if self._engine == "wasm" else WEBGPU
            command = [self._program, *drawing, f"--user-data-dir={self._profile}"]
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                command.append("--no-sandbox")  # Chromium has no sandbox for root
            process = subprocess.Popen(
                [*command, f"{server.url}?validate"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": str(self._profile)},  # it leaves folders there
            )
            try:
                return self._listen(server, process, bundle)
            finally:
                process.terminate()
                process.wait()
                server.shutdown()

    def _listen(self, server: _Server, process: subprocess.Popen, bundle: Bundle) -> Outcome:
        labels, latency = {}, []
        while True:
            kind, content = self._next(server, process)
            kind, *rest = kind.split("/")
            if kind == "error":
                raise TargetError(f"browser: {content.decode(errors='replace')}")
            if kind == "labels":
                index, rgb = int(rest[0]), rest[1]
                golden = bundle.golden[index]
                if rgb != hashlib.sha256(golden.image.tobytes()).hexdigest():
                    raise TargetError(f"browser: {golden.name} was not decoded to its own values")
                labels[index] = np.frombuffer(content, np.uint8).reshape(bundle.size)
            elif kind == "times":
                latency.append(summary(json.loads(content), int(rest[0])))
            elif kind == "done":
                maps = [labels[i] for i in range(len(bundle.golden))]
                return Outcome(maps, latency, self.kernels)

    def _next(self, server, process):
        for _ in range(int(PATIENCE)):
            try:
                return server.results.get(timeout=1.0)
            except queue.Empty:
                if process.poll() is not None:
                    code = process.returncode
                    raise TargetError(f"browser: {self._program} ended with {code}") from None
        raise TargetError(f"browser: the page said nothing for {PATIENCE:.0f} seconds")

    def close(self) -> None:
        if self._profile:
            shutil.rmtree(self._profile, ignore_errors=True)
