"""What a command may write: a file that kfcn did not write is never replaced.

The rule of `kfcn.outputs` and its manifest, for a device that has no kfcn: `.kfcn.jsonl` in a
folder holds a line of JSON with name and SHA-256 for each file that kfcn has written there. A file
whose content is not what such a line says is the user's, and stays unless `overwrite` says
otherwise.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

MANIFEST = ".kfcn.jsonl"


class OutputError(Exception):
    """A file that must not be replaced, or cannot be written; the message names it."""


class WriteError(OutputError):
    """A file that could not be written, as on a full disk: the request was right, the work failed.

    Args:
        failure: what could not be done, with the name of the file or folder.
        error: what the system said.
    """

    def __init__(self, failure: str, error: OSError):
        super().__init__(f"{failure}: {system_says(error)}")


def system_says(error: OSError) -> str:
    """Why something failed in the system's words, and what to do where that is known."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{error.strerror or error}{'; free some space' if full else ''}"


def which_and_why(error: OSError) -> str:
    """`system_says`, behind the name of the file where the system gives one."""
    return f"{error.filename}: {system_says(error)}" if error.filename else system_says(error)


class Outputs:
    """A folder that a command writes into.

    Args:
        folder: where the files go; made when the first one is written.
        overwrite: replace files that kfcn did not write, or that have been changed since.
        source: a folder that the command reads; what is there and not such a file stays.
    """

    def __init__(
        self, folder: Path | str, overwrite: bool = False, source: Path | str | None = None
    ):
        self.folder = Path(folder)
        reads = source is not None and self.folder.resolve() == Path(source).resolve()
        self.overwrite = overwrite and not reads
        self._remedy = "" if reads else ", or replace it with --overwrite"

    def check(self, names: Iterable[str]) -> None:
        """Makes sure that these files of the folder may be written.

        Raises:
            OutputError: one is there and not as kfcn wrote it.
        """
        for path in (self.folder / name for name in names):
            if not os.path.lexists(path) or (self.overwrite and not path.is_dir()):
                continue
            if path.is_symlink() or not path.is_file() or _sha256(path) not in self._known(path):
                raise OutputError(
                    f"{path} already exists and is not as kfcn wrote it; choose another "
                    f"name{self._remedy}"
                )

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Keeps other commands from writing a file of the folder, which is made.

        Raises:
            OutputError: another command writes it.
            WriteError: the folder cannot be written to.
        """
        try:
            import filelock
        except ImportError:  # a device has nothing that is not needed, and one user
            yield
            return
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        file = self.folder / f".kfcn-{digest}.lock"
        lock = filelock.FileLock(file, timeout=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout as error:
            raise OutputError(
                f"another command is writing to {self.folder / name}; wait for it, or choose "
                "another name"
            ) from error
        except NotImplementedError:
            pass
        except OSError as error:
            # A file system without locks is no reason not to write.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise WriteError(f"folder {self.folder} cannot be written to", error) from error
        try:
            yield
        finally:
            if lock.is_locked:  # otherwise the file is another's
                with contextlib.suppress(OSError):  # Windows removes it on release
                    file.unlink()
                lock.release()

    def write(self, name: str, content: bytes) -> Path:
        """Writes a file whole or not at all, and notes that it is kfcn's.

        Raises:
            OutputError: it must not be replaced.
            WriteError: it cannot be written.
        """
        path = self.folder / name
        temporary = self.folder / f".kfcn-{secrets.token_hex(8)}.part"
        made = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:  # a new file: nothing that was planted is followed
                made = True
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self.check([name])
            self._note(name, content)  # before the rename, so that none is missed
            temporary.replace(path)
        except OSError as error:
            raise WriteError(f"{path} could not be written", error) from error
        finally:
            if made:
                temporary.unlink(missing_ok=True)
        return path

    def _note(self, name: str, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        line = "\n" + json.dumps({"name": name, "sha256": digest})
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(self.folder / MANIFEST, flags, 0o666)
        try:
            if os.write(handle, line.encode()) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)

    def _known(self, path: Path) -> set[str]:
        """The hashes that kfcn has noted for a file."""
        try:
            lines = (self.folder / MANIFEST).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return set()
        found = set()
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                entry = json.loads(line)
                if entry["name"] == path.name:
                    found.add(str(entry["sha256"]))
        return found


def check_new(path: Path) -> None:
    """Makes sure that there is nothing at `path`; raises an OutputError otherwise."""
    if os.path.lexists(path):
        raise OutputError(f"{path}: exists already; name a new folder")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder beside `path` that is renamed to `path` when all went well.

    Raises:
        OutputError: there is something at `path`.
        WriteError: it cannot be written.
    """
    check_new(path)
    temporary = path.parent / f".kfcn-{secrets.token_hex(8)}.part"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(path)  # fails where somebody has put something there meanwhile
    except OSError as error:
        raise WriteError(f"{path} could not be written", error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
