"""Writing files so that nobody ever finds half of one."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from kfcn.errors import KfcnError


@contextlib.contextmanager
def aside(path: Path | str) -> Iterator[Path]:
    """Gives a path beside `path` to write to; renames it to `path` when all went well.

    The data are on the disk before the rename, so that a power cut leaves the old file or the new
    one.

    Raises:
        KfcnError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".part-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise KfcnError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Puts the rename itself on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path | str) -> Path:
    """Makes a folder with its parents.

    Raises:
        KfcnError: it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KfcnError(f"folder {path} could not be made: {error.strerror}") from error
    return path


def write_text(path: Path | str, text: str) -> None:
    """Writes UTF-8 text whole or not at all."""
    with aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value) -> None:
    """Writes JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
