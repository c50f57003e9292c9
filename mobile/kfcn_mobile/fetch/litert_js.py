"""LiteRT.js for the page of `web/`, fetched once through npm into the user's cache.

It is not kept in this repository: 28 MB of WebAssembly (Apache-2.0) that a package registry serves
well. Version and sha512 are pinned.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from kfcn_mobile.console import Say
from kfcn_mobile.errors import MissingError
from kfcn_mobile.fetch.cache import cache_folder, locked, made_whole

VERSION = "2.5.3"
# npm package -> (sha512 of its archive as npm writes it, {its file: ours}).
PACKAGES = {
    "@litertjs/core": (
        "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
        {"package/dist/index.js": "core.js"}
        | {
            # Plain, with threads, and for browsers without relaxed SIMD.
            f"package/wasm/litert_wasm_{build}internal.{kind}": (
                f"wasm/litert_wasm_{build}internal.{kind}"
            )
            for build in ("", "threaded_", "compat_")
            for kind in ("js", "wasm")
        },
    ),
    "@litertjs/wasm-utils": (
        "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
        {"package/dist/index.js": "wasm-utils.js"},
    ),
}
SIZE = "12 MB"


def litert_js(say: Say) -> Path:
    """The folder with `core.js`, `wasm-utils.js` and `wasm/`, from the cache or fetched into it.

    Raises:
        MissingError: it cannot be fetched.
    """
    folder = cache_folder(f"litert-js-{VERSION}")
    with locked(folder):
        files = [folder / ours for _, files in PACKAGES.values() for ours in files.values()]
        if not all(file.is_file() for file in files):
            npm = shutil.which("npm")  # with its suffix, which Windows needs to start it
            if not npm:
                raise MissingError(
                    "LiteRT.js is fetched once through npm, and there is no 'npm' on the PATH:"
                    " install Node.js"
                )
            say(f"LiteRT.js {VERSION}, once, through npm: {SIZE}")
            with made_whole(folder) as new:
                for package, (expected, files) in PACKAGES.items():
                    _fetch(npm, package, expected, files, new)
    return folder


def _fetch(npm: str, package: str, expected: str, files: dict[str, str], folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="kfcn-npm-") as temporary:
        command = [npm, "pack", "--silent", "--pack-destination", temporary]
        done = subprocess.run(
            [*command, f"{package}@{VERSION}"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise MissingError(f"npm cannot fetch {package} {VERSION}: {reason}")
        content = archives[0].read_bytes()
        found = base64.b64encode(hashlib.sha512(content).digest()).decode()
        if found != expected:
            raise MissingError(
                f"{package} {VERSION}: sha512 {found[:16]}..., expected {expected[:16]}..."
            )
        with tarfile.open(archives[0]) as archive:
            for name, ours in files.items():
                target = folder / ours
                target.parent.mkdir(exist_ok=True)
                member = archive.extractfile(name)
                if member is None:
                    raise MissingError(f"{package} {VERSION}: {name} is not a file")
                target.write_bytes(member.read())
