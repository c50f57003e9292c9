"""Programs of model files, kept in the user's cache."""

import contextlib
from pathlib import Path

from kfcn import __version__
from kfcn.errors import KfcnError
from kfcn.files import aside, sha256
from kfcn.inference.runtime.program import Program
from kfcn.machine import cache_folder

KEPT = 20
"""Programs, the last used; each is as large as its model."""


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


def _file(model):
    """Named by what the model file holds, and by who read it: another version may read better."""
    return cache_folder() / "programs" / f"{__version__}-{sha256(model)}.npz"
