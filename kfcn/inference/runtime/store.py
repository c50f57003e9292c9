"""Programs of model files, kept in the user's cache."""

import contextlib
import functools
import hashlib
from pathlib import Path

from kfcn import __version__
from kfcn.errors import KfcnError
from kfcn.files import aside, sha256
from kfcn.inference.runtime.program import Program
from kfcn.machine import cache_folder

KEPT = 20
"""Programs, the last used; each is as large as its model."""
_HOME = Path(__file__).parents[2]
_SOURCES = (
    "graph.py",
    "fused/norms.py",
    "inference/runtime/from_keras.py",
    "inference/runtime/program.py",
    "inference/tiling.py",
    "nets/upsample.py",
    "rewrite/*.py",
)
"""The sources in `kfcn` that decide which program becomes of a net."""


def load(model: Path) -> Program | None:
    """The program of a model file; None where none is kept or it is damaged."""
    try:
        file = _file(model)
    except KfcnError:  # nowhere to keep one
        return None
    program = Program.load(file)
    if program is not None:
        with contextlib.suppress(OSError):
            file.touch()
    return program


def save(model: Path, program: Program) -> None:
    """Keeps the program of a model file. Where that cannot be done, nothing happens."""
    with contextlib.suppress(OSError, KfcnError):
        file = _file(model)
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside(file) as temporary:
            temporary.write_bytes(program.to_bytes())
        kept = sorted(file.parent.glob(f"*{file.suffix}"), key=lambda path: path.stat().st_mtime)
        for old in kept[:-KEPT]:
            old.unlink()


def _file(model: Path) -> Path:
    """Named by what the model file holds, and by who read it: other code may read it better."""
    return cache_folder() / "programs" / f"{__version__}-{_reader()}-{sha256(model)}.npz"


@functools.cache
def _reader() -> str:
    """What the reading sources are: a release number stays the same from one commit to the next.

    Where the sources were left out (compiled code alone) it says nothing, and the release decides.
    """
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for file in sorted(_HOME.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
