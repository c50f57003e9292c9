"""What a command may write: nothing of the user's is ever replaced.

A folder that results are written into holds `.kfcn.jsonl`, a line of JSON with name and SHA-256 for
each file that kfcn has written there, and what it was made by where that is noted. A file is kfcn's
own as long as its content is what such a line says. Everything else is the user's: pictures, files
of other programs, and what kfcn wrote and a person has corrected since. It is replaced only where
`overwrite` says so, and the inputs of a command never.
"""

import contextlib
import enum
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from kfcn.errors import KfcnError, UsageError
from kfcn.files import (
    TEMPORARY,
    as_json,
    aside,
    make_folder,
    sha256,
    write_error,
    write_text,
    writing,
)

MANIFEST, LOCK = ".kfcn.jsonl", ".kfcn.lock"
_REMEMBERED = 2  # hashes of a file: a run that is killed between note and rename leaves the older

_Hashes = dict[str, str | None]
"""Hashes of a file, the last one at the end, each with what that content was made by."""


class State(enum.Enum):
    """Whose a file is."""

    FREE = "does not exist"
    OURS = "was written by kfcn"
    CHANGED = "was changed after kfcn wrote it"
    FOREIGN = "was not written by kfcn"


class Outputs:
    """A folder that one command writes its results into.

    Args:
        folder: where the results go; made by `lock` if it is missing.
        inputs: files that the command reads, which no result may replace, under whatever name.
        overwrite: replace files that kfcn did not write, or that have been changed.
        option: of the command line, by which another place is chosen.
        by: what the files are made by, noted with each of them (`made_by`).
    """

    def __init__(
        self,
        folder: Path | str,
        inputs: Iterable[Path | str] = (),
        overwrite: bool = False,
        option: str = "--out",
        by: str | None = None,
    ):
        self.folder = Path(folder)
        self.overwrite, self.option, self.by = overwrite, option, by
        self._inputs = {identity for path in inputs if (identity := _identity(path))}
        self._hashes: dict[str, _Hashes] | None = None

    def state(self, path: Path) -> State:
        """Whose the file is that stands at `path`, in or below the folder."""
        if not os.path.lexists(path):
            return State.FREE
        known = self._manifest().get(self._name(path))
        if not known:
            return State.FOREIGN
        try:
            regular = stat.S_ISREG(path.lstat().st_mode)
            return State.OURS if regular and sha256(path) in known else State.CHANGED
        except OSError:  # it cannot be read: nobody can say that it is kfcn's
            return State.CHANGED

    def made_by(self, path: Path) -> str | None:
        """What the file at `path` was made by (`by`).

        Returns:
            None where there is none, where it is not as kfcn wrote it, or where nothing was noted.
        """
        known = self._manifest().get(self._name(path), {})
        try:
            return known.get(sha256(path)) if known else None
        except OSError:
            return None

    def names(self) -> set[str]:
        """What kfcn has written here, seen from the folder; it may have been removed since."""
        return set(self._manifest())

    def check(self, targets: Iterable[Path], leave: Collection[State] = ()) -> list[Path]:
        """Makes sure, before any work, that the targets may be written.

        Args:
            targets: files in or below the folder.
            leave: states that are no error, because the caller leaves such files as they are.

        Returns:
            The targets that are to be left as they are.

        Raises:
            UsageError: a target is an input, a folder, or not kfcn's own; the message names it.
        """
        left = []
        for target in targets:
            if self._inputs and _identity(target) in self._inputs:
                raise UsageError(
                    f"{target} is one of the inputs and would be replaced; choose another "
                    f"{self.option}"
                )
            if os.path.isdir(target):  # noqa: PTH112 (Path.is_dir raises where a name is too long)
                raise UsageError(f"{target} is a folder; expected the name of a file")
            state = self.state(target)
            if state in (State.FREE, State.OURS) or self.overwrite:
                continue
            if state not in leave:
                raise UsageError(self._refusal(target, state))
            left.append(target)
        return left

    def _refusal(self, target: Path, state: State) -> str:
        return (
            f"{target} already exists and {state.value}; choose another {self.option}, or replace "
            "it with --overwrite"
        )

    @contextlib.contextmanager
    def lock(self, name: str = "") -> Iterator[None]:
        """Keeps other commands from writing here, and makes the folder.

        Args:
            name: of the only file that is written; empty for the whole folder.

        Raises:
            UsageError: another command writes here.
            WriteError: the folder cannot be written to.
        """
        make_folder(self.folder)
        # A hash, because a name may be as long as names can be.
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        file = self.folder / (f".kfcn-{digest}.lock" if name else LOCK)
        busy = (
            f"another command is writing to {self.folder / name}; wait for it, or choose another "
            f"{self.option}"
        )
        with locked(file, busy):
            self._hashes = None  # another command may have written until now
            if not name:
                self._tidy()
            yield

    @contextlib.contextmanager
    def aside(self, path: Path) -> Iterator[Path]:
        """As `kfcn.files.aside`, for a file that is noted as kfcn's own.

        Raises:
            KfcnError: as `kfcn.files.aside`; or somebody has written the file meanwhile.
        """
        make_folder(path.parent)
        with aside(path, self._noting(path)) as temporary:
            yield temporary

    def write_text(self, path: Path, text: str) -> None:
        """As `kfcn.files.write_text`, for a file that is noted as kfcn's own.

        Raises:
            KfcnError: as `aside`.
        """
        make_folder(path.parent)
        write_text(path, text, self._noting(path))

    def write_json(self, path: Path, value: Any) -> None:
        """Writes JSON whole or not at all, as kfcn's own."""
        self.write_text(path, as_json(value))

    def _noting(self, path: Path) -> Callable[[Path], None]:
        """What is called with the written file before it becomes `path`."""

        def note(written: Path) -> None:
            state = self.state(path)
            if state not in (State.FREE, State.OURS) and not self.overwrite:
                raise KfcnError(self._refusal(path, state))
            self.note(path, sha256(written))

        return note

    def note(self, path: Path, digest: str) -> None:
        """Notes that kfcn writes `path` with this SHA-256; before it does, so that none is missed.

        Raises:
            OSError: the folder cannot be written to.
        """
        name = self._name(path)
        line = _line(name, digest, self.by)
        # Appended in one piece: other processes may write into the same folder. Not through a link.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(self.folder / MANIFEST, flags, 0o666)
        try:
            if os.write(handle, line.encode()) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)
        _remember(self._manifest(), name, digest, self.by)

    def _manifest(self) -> dict[str, _Hashes]:
        """The last hashes of each file that kfcn wrote."""
        if self._hashes is None:
            self._hashes = {}
            for name, digest, by in _lines(self.folder / MANIFEST):
                _remember(self._hashes, name, digest, by)
        return self._hashes

    def _tidy(self) -> None:
        """Shortens a manifest that has grown, and removes what killed commands left half."""
        file = self.folder / MANIFEST
        kept = sum(map(len, self._manifest().values()))
        if sum(1 for _ in _lines(file)) > 2 * kept + 100:
            lines = (
                _line(name, digest, by)
                for name, hashes in self._manifest().items()
                for digest, by in hashes.items()
            )
            write_text(file, "".join(lines))
        below = {(self.folder / name).parent for name in self._manifest()}
        for left in (file for folder in {self.folder, *below} for file in folder.glob(TEMPORARY)):
            with contextlib.suppress(OSError):
                if time.time() - left.lstat().st_mtime > 3600:  # nobody writes that long
                    left.unlink()  # a folder stays

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


@contextlib.contextmanager
def locked(file: Path, busy: str) -> Iterator[None]:
    """Holds a lock file, which is removed in the end.

    The operating system releases the lock when the process ends, however it ends.

    Args:
        file: in a folder that exists.
        busy: the error's message where another process holds the lock.

    Raises:
        UsageError: another process holds it.
        WriteError: the folder cannot be written to.
    """
    import filelock

    lock = filelock.FileLock(file, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise UsageError(busy) from error
    except NotImplementedError:
        pass
    except OSError as error:
        # A file system without locks is no reason not to work.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            failure = f"folder {file.parent} cannot be written to"
            raise write_error(failure, error, file.parent) or error from error
    try:
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):  # Windows removes it on release
                file.unlink()
            lock.release()


@contextlib.contextmanager
def one_file(
    path: Path | str,
    inputs: Iterable[Path | str] = (),
    overwrite: bool = False,
    option: str = "--out",
) -> Iterator[Outputs]:
    """Claims the one file that a command will write, before its work begins.

    Raises:
        UsageError: the file is an input, not kfcn's own, or another command is writing it.
        WriteError: its folder cannot be written to.
    """
    path = Path(path)
    outputs = Outputs(path.parent, inputs, overwrite, option)
    outputs.check([path])
    with outputs.lock(path.name):
        yield outputs


@contextlib.contextmanager
def new_folder(path: Path | str, option: str = "--out") -> Iterator[Path]:
    """Gives a folder beside `path` to write to, renamed to `path` when all went well.

    Raises:
        UsageError: there is something at `path` already, or another command is making it.
        WriteError: it cannot be written.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise UsageError(f"{path}: exists already; name a new folder")
    with Outputs(path.parent, option=option).lock(path.name):
        temporary = None
        try:
            with writing(path):
                temporary = Path(tempfile.mkdtemp(prefix=".kfcn-", suffix=".part", dir=path.parent))
                yield temporary
                temporary.chmod(0o755)
                temporary.rename(path)  # fails where somebody has put files there meanwhile
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)


def _identity(path: Path | str) -> tuple[int, int] | None:
    """What a file is, however it is called: links lead to it. None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 (twice as fast as Path.stat, and there are many)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _remember(manifest: dict[str, _Hashes], name: str, digest: str, by: str | None) -> None:
    hashes = manifest.setdefault(name, {})
    hashes.pop(digest, None)  # it is the last one from now on
    hashes[digest] = by
    for old in list(hashes)[:-_REMEMBERED]:
        del hashes[old]


def _line(name: str, digest: str, by: str | None) -> str:
    entry = {"name": name, "sha256": digest} | ({} if by is None else {"by": by})
    # A newline first: it ends a line that was cut off when the disk was full.
    return "\n" + json.dumps(entry)


def _lines(file: Path) -> Iterator[tuple[str, str, str | None]]:
    """Name, hash and maker of each line of a manifest; a line that was cut off says nothing."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry["name"], str) and isinstance(entry["sha256"], str):
                by = entry.get("by")
                yield entry["name"], entry["sha256"], by if isinstance(by, str) else None
