"""Writing files so that nobody ever finds half of one; reading them without waiting for a pipe."""

import contextlib
import csv
import errno
import functools
import hashlib
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from kfcn.errors import KfcnError, WriteError, first_line

if TYPE_CHECKING:
    from PIL import Image


_Content = TypeVar("_Content")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_OTHERS = (errno.EFBIG, errno.EIO)
_PATH = re.compile(r"""(?:^|[\s'"])(/[^\s;:,'"]+)""")


def write_error(failure: str, error: Exception, folder: Path) -> WriteError | None:
    """The error of a file that could not be written; None where `error` says something else.

    TensorFlow, HDF5 and the writers of record files raise errors of their own, with the system's
    words in them.

    Args:
        failure: what could not be done, such as "a.png could not be written".
        error: what was raised meanwhile.
        folder: what is written to. Where another place is full, as the one for temporary files may
            be, the message names it.
    """
    text, code = str(error), getattr(error, "errno", None)
    if code is None:
        known = (*_FULL, *_FORBIDDEN, *_OTHERS)
        code = next((number for number in known if os.strerror(number) in text), None)
    if code is None and not isinstance(error, OSError):
        return None
    reason = getattr(error, "strerror", None) or (os.strerror(code) if code else first_line(error))
    # Of a copy the second name is the one that is written to.
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    named = named or next(iter(_PATH.findall(text)), None)
    if named and folder.absolute() not in Path(os.fsdecode(named)).absolute().parents:
        reason += f" ({os.fsdecode(named)})"
    if code in _FULL:
        return WriteError(f"{failure}: {reason}", "free some space")
    if code in _FORBIDDEN:
        return WriteError(f"{failure}: {reason}", "make it writable, or choose another place")
    return WriteError(f"{failure}: {reason}")


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Says in one line why `path` could not be written, whoever tried to.

    Raises:
        WriteError: the folder cannot be written to, the name is too long, or the disk is full.
    """
    path = Path(path)
    try:
        yield
    except KfcnError:
        raise
    except Exception as error:
        failed = write_error(f"{path} could not be written", error, path.parent)
        if failed is None:
            raise
        raise failed from error


@contextlib.contextmanager
def aside(path: Path | str, before: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Gives a new file beside `path` to write to; renames it to `path` when all went well.

    The data are on the disk before the rename, so that a power cut leaves the old file or the new
    one.

    Args:
        path: the file that is meant.
        before: is called with the written file before it is renamed; what it raises leaves `path`
            as it is.

    Raises:
        WriteError: as `writing`.
    """
    path = Path(path)
    temporary = None
    try:
        with writing(path):
            temporary = _new_file_beside(path)
            yield temporary
            with temporary.open("r+b") as file:  # Windows syncs only what is open for writing
                os.fsync(file.fileno())
            if before is not None:
                before(temporary)
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


TEMPORARY = ".kfcn-*.part*"
"""How the files are called that `aside` gives."""


def _new_file_beside(path: Path) -> Path:
    """A new file with the ending of `path`, under a name that nobody can have planted.

    It is what `tempfile.mkstemp` does, with the permissions that the umask asks for: the file will
    be read by others.
    """
    ending = path.suffix if len(path.suffix) < 16 else ""  # by which libraries choose the format
    while True:
        temporary = path.parent / f".kfcn-{secrets.token_hex(8)}.part{ending}"
        with contextlib.suppress(FileExistsError):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return temporary


def _sync_folder(folder: Path) -> None:
    """Puts the rename itself on the disk, where the system can do that (Windows cannot)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(path: Path | str) -> Path:
    """Makes a folder with its parents.

    Raises:
        WriteError: it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise WriteError(f"folder {path} could not be made: a file has this name") from error
    except OSError as error:
        failed = write_error(f"folder {path} could not be made", error, path.parent)
        raise failed or error from error
    return path


def save_picture(picture: "Image.Image", file: Path, format: str, **options: Any) -> None:
    """Writes a picture to a file that `aside` gave.

    By way of the memory: left to write by itself, Pillow does not notice that a full disk took only
    a part of a JPEG.

    Args:
        picture: of Pillow, or whatever else has such a `save`.
        file: where to.
        format: Pillow's name of it.
        options: of that format.

    Raises:
        OSError: it could not be written whole.
    """
    content = io.BytesIO()
    picture.save(content, format, **options)
    file.write_bytes(content.getbuffer())


def write_text(path: Path | str, text: str, before: Callable[[Path], None] | None = None) -> None:
    r"""Writes text whole or not at all, the same bytes on every system.

    Args:
        path: the file.
        text: is written in UTF-8; a byte in a file's name that is not, as JSON writes it
            (`\udcff`).
        before: as in `aside`.

    Raises:
        WriteError: as in `aside`.
    """
    with aside(path, before) as temporary:
        # As bytes: written as text, Windows would end the lines in its own way.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path | str, value: Any) -> None:
    """Writes JSON whole or not at all."""
    write_text(path, as_json(value))


def as_csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """CSV as kfcn writes it: a line of names, then the rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def as_json(value: Any) -> str:
    """JSON as kfcn writes it: indented, with the letters of all languages, a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def until_changed(read: Callable[[Path], _Content]) -> Callable[[Path], _Content]:
    """`read` of a file, which reads the last four again only where they were written meanwhile.

    For files that hold all splits of a data set, which are opened one after the other.
    """

    @functools.lru_cache(maxsize=4)
    def known(path: Path, _changed: int, _size: int) -> _Content:
        return read(path)

    def current(path: Path) -> _Content:
        try:
            status = path.stat()
        except OSError:  # `read` says it
            return read(path)
        return known(path, status.st_mtime_ns, status.st_size)

    return current


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_object(path: Path | str) -> dict[str, Any]:
    """The object in a JSON file that kfcn has written.

    Raises:
        ValueError: it cannot be read or holds something else; the message does not name the file.
    """
    try:
        content = json.loads(read_bytes(path).decode("utf-8-sig"))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected an object, found a {type(content).__name__}")
    return content


def broken_link(path: Path | str) -> str:
    """That a path is a symbolic link to nothing, in words; empty where it is none."""
    if not os.path.islink(path) or os.path.exists(path):  # noqa: PTH110, PTH114 (as `is_file`)
        return ""
    return f"it is a link to {os.path.realpath(path)}, which does not exist"


def open_file(path: Path | str) -> BinaryIO:
    """Opens a file for reading bytes.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device: to open a named pipe as
            a file would wait for ever for somebody who writes to it.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        what = "is a folder" if stat.S_ISDIR(mode) else "is a pipe or a device, not a file"
        raise OSError(errno.EINVAL, what, str(path))
    return os.fdopen(handle, "rb")


def read_bytes(path: Path | str) -> bytes:
    """The content of a file; raises an OSError as `open_file` does."""
    with open_file(path) as file:
        return file.read()
