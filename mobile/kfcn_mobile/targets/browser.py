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
from collections.abc import Callable

import numpy as np

from kfcn_mobile.bundle import Bundle
from kfcn_mobile.fetch.litert_js import VERSION, MissingError, litert_js
from kfcn_mobile.serve import Handler, Server, site_folders
from kfcn_mobile.targets import Outcome, Target, TargetError, Timing, summary

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# A browser on its own account looks for updates and services: none of that here.
QUIET = ["--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-dev-shm-usage"]
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


def make(argument: str, say: Callable[[str], None]) -> list[Target]:
    """The target of a headless Chromium."""
    return [Browser(say)]


class _Handler(Handler):
    """Also says what is to be validated, and receives the results from the page."""

    def do_GET(self):  # noqa: N802
        if self.path != "/validate.json":
            super().do_GET()
            return
        content = json.dumps(self.server.wanted).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):  # noqa: N802
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.results.put((self.path.removeprefix("/result/"), content))
        self.send_response(204)
        self.end_headers()


class Browser(Target):
    """A headless Chromium on this machine, with the page that people use."""

    name = "browser"

    def __init__(self, say: Callable[[str], None]):
        self._say = say
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
        try:
            litert_js(self._say)
        except MissingError as error:
            raise TargetError(str(error)) from None
        self._profile = tempfile.mkdtemp(prefix="kfcn-browser-")

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        folders = site_folders(bundle.path, self._say)
        with Server(folders, handler=_Handler) as server:
            server.results = queue.Queue()
            server.wanted = {"modes": [{"mode": model["mode"], "timing": vars(timing)}]}
            threading.Thread(target=server.serve_forever, daemon=True).start()
            command = [self._program, *QUIET, f"--user-data-dir={self._profile}"]
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                command.append("--no-sandbox")  # Chromium has no sandbox for root
            process = subprocess.Popen(
                [*command, f"{server.url}?validate"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                return self._listen(server, process, bundle)
            finally:
                process.terminate()
                process.wait()
                server.shutdown()

    def _listen(self, server, process, bundle: Bundle) -> Outcome:
        labels, latency = {}, []
        while True:
            kind, content = self._next(server, process)
            kind, *rest = kind.split("/")
            if kind == "error":
                raise TargetError(f"browser: {content.decode(errors='replace')}")
            if kind == "labels":
                index, rgb = int(rest[1]), rest[2]
                golden = bundle.golden[index]
                if rgb != hashlib.sha256(golden.image.tobytes()).hexdigest():
                    raise TargetError(f"browser: {golden.name} was not decoded to its own values")
                labels[index] = np.frombuffer(content, np.uint8).reshape(bundle.size)
            elif kind == "times":
                latency.append(summary(json.loads(content), int(rest[1])))
            elif kind == "done":
                return Outcome([labels[i] for i in range(len(bundle.golden))], latency)

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
