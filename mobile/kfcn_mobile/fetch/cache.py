"""The folder for what is fetched once: runtimes for other processors and for the browser."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kfcn_mobile.errors import MissingError


def cache_folder(name: str) -> Path:
    """`kfcn/<name>` in the user's cache: `XDG_CACHE_HOME`, Windows' `LOCALAPPDATA`, `~/.cache`.

    Raises:
        MissingError: none of these is known.
    """
    root = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        path = (Path(root) if root else Path.home() / ".cache") / "kfcn" / name
    except RuntimeError:  # as in a container, under a number that is no user's
        raise MissingError(
            f"no folder to keep {name} in: this user has no home; set XDG_CACHE_HOME to a folder "
            "that can be written to"
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time make `path`; the others wait and find it made."""
    # Here, because a device that only runs a bundle fetches nothing and need not have it.
    from filelock import FileLock

    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


@contextlib.contextmanager
def made_whole(path: Path) -> Iterator[Path]:
    """Gives a folder beside `path` that takes its place when all went well, and only then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".part-{path.name}-", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        # Of two processes that make the same folder, either may come first.
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
