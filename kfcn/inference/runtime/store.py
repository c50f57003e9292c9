"""Programs of model files, by outlines: in the package, and kept in the user's cache."""

import contextlib
import functools
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from kfcn import __version__, pretrained
from kfcn.errors import KfcnError
from kfcn.files import aside
from kfcn.inference.runtime.outline import outline, program
from kfcn.inference.runtime.program import Program
from kfcn.machine import cache_folder
from kfcn.saved import model_path

if TYPE_CHECKING:
    import keras

KEPT = 200
"""Outlines, the last used; each has some kilobytes."""
_HOME = Path(__file__).parents[2]
_SOURCES = (
    "graph.py",
    "inference/runtime/from_keras.py",
    "inference/runtime/outline.py",
    "inference/runtime/program.py",
    "inference/runtime/simplify.py",
    "inference/tiling.py",
    "nets/upsample.py",
    "rewrite/*.py",
)
"""The sources in `kfcn` that decide what the outline of a net is."""


def load(model: Path | str) -> Program | None:
    """The program of a model file, a run folder or a pretrained net.

    Returns:
        None where there is no outline of it, or a damaged one.

    Raises:
        KfcnError: as `kfcn.saved.model_path`.
    """
    path = model_path(model)
    if pretrained.is_name(model) and pretrained.OUTLINE in pretrained.card(str(model))["files"]:
        return program(pretrained.path(str(model), pretrained.OUTLINE).read_bytes(), path)
    try:
        # Read once: a training may replace the file between its hash and its weights.
        held = path.read_bytes()
        file = _file(held)
        content = file.read_bytes()
    except (KfcnError, OSError):  # there is none, or nowhere to keep one
        return None
    with contextlib.suppress(OSError):
        file.touch()
    return program(content, io.BytesIO(held))


def save(model: Path | str, net: "keras.Model") -> None:
    """Keeps the outline of a model file. Where that cannot be done, nothing happens.

    Args:
        model: as for `load`.
        net: what was loaded from it, or saved as it.
    """
    # Whatever goes wrong: it is the last step of a training, and only a later start is slower.
    with contextlib.suppress(Exception):
        held = model_path(model).read_bytes()
        file = _file(held)
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside(file) as temporary:
            temporary.write_bytes(outline(net, io.BytesIO(held)))
        kept = sorted(file.parent.glob("*.json.gz"), key=lambda path: path.stat().st_mtime)
        for old in kept[:-KEPT]:
            old.unlink()


def _file(held: bytes) -> Path:
    """Named by what the model file holds, and by who read it: other code may read it better."""
    digest = hashlib.sha256(held).hexdigest()
    return cache_folder() / "outlines" / f"{__version__}-{_reader()}-{digest}.json.gz"


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
