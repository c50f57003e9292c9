"""kfcn-serve: a bundle in the browser, with the page of `web/`."""

import argparse
import http.server
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from kfcn_mobile.bundle import BundleError, read_bundle
from kfcn_mobile.console import print_any_letters
from kfcn_mobile.fetch.litert_js import MissingError, litert_js
from kfcn_mobile.outputs import OutputError, check_new, new_folder

PAGE = Path(__file__).resolve().parent / "web"
# Threads need shared memory, which a browser gives only to a page that is isolated by these.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    # Asked for again each time; unchanged, it is answered without its content.
    "Cache-Control": "no-cache",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".png": "image/png",
}


def site_folders(bundle: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """Where the files of each part of the site's addresses lie."""
    return {"bundle": Path(bundle), "litert": litert_js(say), "": PAGE}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the folders of `server.folders` and nothing else."""

    protocol_version = "HTTP/1.1"
    server: "Server"  # pyright: ignore[reportIncompatibleVariableOverride]: no other starts it

    def translate_path(self, path: str) -> str:
        parts = PurePosixPath(unquote(urlsplit(path).path)).parts[1:]
        folders = self.server.folders
        first, rest = (parts[0], parts[1:]) if parts and parts[0] in folders else ("", parts)
        file = folders[first].joinpath(*rest) if rest else PAGE / "index.html"
        unsafe = any(part == ".." or "\\" in part or "\0" in part for part in parts)
        # A folder is no answer: nothing is listed.
        return str(
            PAGE / "no such file" if unsafe or (first and not rest) or file.is_dir() else file
        )

    def guess_type(self, path: Any) -> str:
        return TYPES.get(Path(path).suffix, "application/octet-stream")

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the page says what it does."""


class Server(http.server.ThreadingHTTPServer):
    """A site of several folders on this machine only.

    Args:
        folders: by the first part of an address; the empty one is the page.
        port: 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, folders: dict[str, Path], port: int = 0, handler: type = Handler):
        self.folders = folders
        super().__init__(("127.0.0.1", port), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


def write_site(folders: dict[str, Path], out: Path) -> None:
    """Writes the site as plain files for any static host.

    Raises:
        OutputError: there is something at `out`, it lies in a folder that is served, or it cannot
            be written.
    """
    check_new(out)
    for folder in folders.values():
        if folder.resolve() in (out.resolve(), *out.resolve().parents):
            raise OutputError(f"{out} lies in {folder}, whose files the site is made of")
    with new_folder(out) as new:
        for name, folder in sorted(folders.items()):
            shutil.copytree(folder, new / name, dirs_exist_ok=True)


def parser() -> argparse.ArgumentParser:
    """The arguments of `kfcn-serve`."""
    parser = argparse.ArgumentParser(
        prog="kfcn-serve", description="Shows a bundle in the browser, on this machine only."
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that kfcn-convert wrote")
    parser.add_argument("--port", type=int, default=8000, help="0: a free one (default 8000)")
    parser.add_argument(
        "--write", type=Path, metavar="DIR", help="write the site for a static host, do not serve"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command `kfcn-serve`."""
    print_any_letters()
    args = parser().parse_args(argv)
    try:
        bundle = read_bundle(args.bundle)
        if args.write:
            check_new(args.write)  # before anything is fetched
        folders = site_folders(bundle.path, lambda line: print(line, file=sys.stderr))
        if args.write:
            write_site(folders, args.write)
            print(f"wrote {args.write}; any static host over https serves it")
            return 0
        with Server(folders, args.port) as server:
            print(f"{server.url} (Ctrl-C ends it)", flush=True)
            server.serve_forever()
    except (BundleError, MissingError, OutputError) as error:
        print(f"kfcn-serve: error: {error}", file=sys.stderr)
        return 2
    except (OSError, OverflowError) as error:
        print(f"kfcn-serve: error: port {args.port}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
