"""The web server of kfcn-serve: answers the addresses of a site, and nothing else."""

import contextlib
import http.server
import io
import ipaddress
import socket
import sys
import time
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from kfcn_mobile.site import Site

PATIENCE = 10.0
"""Seconds that a connection may take for a whole request, from its first byte."""

HEADERS = {
    # Threads need shared memory, which a browser gives only to a page that is isolated by these.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self' 'wasm-unsafe-eval'",
            "worker-src 'self'",
            "connect-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            "media-src 'self' blob:",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "no-referrer",
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
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}


class _Incoming(io.RawIOBase):
    """What a connection sends, each request within `PATIENCE`.

    A timeout of the socket alone begins anew with every byte.
    """

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._until: float | None = None

    def next_request(self) -> None:
        """The clock starts with the first byte of what comes now."""
        self._until = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = PATIENCE if self._until is None else self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        count = self._connection.recv_into(buffer)
        if self._until is None:
            self._until = time.monotonic() + PATIENCE
        return count


class Handler(http.server.SimpleHTTPRequestHandler):
    """Answers GET and HEAD for the addresses of `server.site`."""

    protocol_version = "HTTP/1.1"
    _tag = ""
    server: "Server"  # pyright: ignore[reportIncompatibleVariableOverride]: no other starts it

    def setup(self) -> None:
        super().setup()
        self._incoming = _Incoming(self.connection)
        self.rfile = io.BufferedReader(self._incoming)

    def handle_one_request(self) -> None:
        self._incoming.next_request()
        super().handle_one_request()

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        try:
            urlsplit(self.path)
        except ValueError:  # half an IPv6 address
            self.send_error(HTTPStatus.BAD_REQUEST)
            return False
        # From here on the time counts that the client takes to accept the answer.
        self.connection.settimeout(PATIENCE)
        if self.server.answers(self.headers.get("Host", "")):
            return True
        # Another name for this machine is how a page of somebody else's reaches into it.
        self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this server does not answer that name")
        return False

    def send_head(self):
        content = self.server.site.get(self._address())
        self._tag = ""
        if isinstance(content, bytes):
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", self.guess_type(self._address()))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return io.BytesIO(content)
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        # What a browser has is compared by the file's time and size, not by its age: another net's
        # file may be older than the one that was served before.
        with contextlib.suppress(OSError):
            found = content.stat()
            self._tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
        if self._tag and self.headers.get("If-None-Match") == self._tag:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.end_headers()
            return None
        del self.headers["If-Modified-Since"]
        return super().send_head()

    def translate_path(self, path: str) -> str:
        return str(self.server.site[self._address()])

    def _address(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"

    def guess_type(self, path: Any) -> str:
        # By the address: the file may be a link to one of another name.
        return TYPES.get(PurePosixPath(self._address()).suffix, "application/octet-stream")

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if self._tag:
            self.send_header("ETag", self._tag)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the page says what it does."""


class Server(http.server.ThreadingHTTPServer):
    """A site on this machine, for this machine unless `host` says otherwise.

    Args:
        site: its addresses.
        port: 0 takes a free one.
        host: a name or address of this machine under which others reach it as well.
        handler: of the requests.

    Raises:
        OSError: the port is taken, or `host` is not this machine.
    """

    daemon_threads = True

    def __init__(
        self,
        site: Site,
        port: int = 0,
        host: str = "127.0.0.1",
        handler: type[Handler] = Handler,
    ):
        self.site = site
        self.host = host
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        address: Any = found[0][4]
        self.address_family = found[0][0]
        super().__init__(address, handler)

    @property
    def url(self) -> str:
        """Where a browser finds the page, one of another machine where those are answered."""
        host = _own_address(self.address_family) if _is_unspecified(self.host) else self.host
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{self.server_address[1]}/"

    def answers(self, host_header: str) -> bool:
        """Whether a request with this Host header is meant for this server."""
        try:
            name = urlsplit(f"//{host_header}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", "127.0.0.1", "::1", self.host.lower()):
            return True
        # Bound to every interface: their addresses are its names and the machine's, no others.
        own = socket.gethostname().lower()
        return _is_unspecified(self.host) and (
            name in (own, f"{own}.local") or _address(name) is not None
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to report; anything else is, in one line."""
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"kfcn-serve: {client_address[0]}: {error!r}", file=sys.stderr)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_unspecified(host: str) -> bool:
    """Whether a host is 0.0.0.0 or ::, which stand for every interface."""
    address = _address(host)
    return address is not None and address.is_unspecified


def _own_address(family: int) -> str:
    """The address of this machine from which it would reach others; its name without a network."""
    elsewhere = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"  # for documents (RFC)
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((elsewhere, 9))  # of a datagram socket: nothing is sent
        return probe.getsockname()[0]
    return socket.gethostname()
