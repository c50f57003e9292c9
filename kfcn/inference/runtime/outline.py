"""The steps of a net without its weights, which its `.keras` file holds.

To read them off the layers takes Keras, and to import that takes seconds. With an outline the file
of the net is opened without: the nets that come with the package have theirs beside them, of other
files it is kept in the user's cache (`store`).
"""

import contextlib
import gzip
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from kfcn.inference.runtime.program import Program, Step, UnsupportedError
from kfcn.inference.runtime.simplify import simplified

if TYPE_CHECKING:
    import h5py
    import keras

_FORMAT = 1
_WEIGHTS = "model.weights.h5"
_WRITTEN_OUT = 16
"""Numbers at most of a weight that is kept in the outline: constants of layers, which no file of
weights holds."""


def outline(net: "keras.Model", file: Path | BinaryIO) -> bytes:
    """The outline of a net, as a file holds it: JSON, packed by gzip, whose checksum tells damage.

    Args:
        net: without a CRF.
        file: the `.keras` file that was saved of it, or its content.

    Raises:
        UnsupportedError: the net has a layer that is not supported, or weights that the file lacks.
        OSError, KeyError, zipfile.BadZipFile: the file is of another kind.
    """
    from kfcn.inference.runtime.from_keras import read

    steps, last, classes, margin = read(net)
    names = {}

    def visit(name, item):
        if hasattr(item, "shape"):
            names[_key(item[()])] = name

    with _weights(file) as held:
        held.visititems(visit)
    rows = []
    for step in steps:
        weights = {}
        for name, weight in step.weights.items():
            weights[name] = names.get(_key(weight))
            if weights[name] is None:
                if weight.size > _WRITTEN_OUT:
                    raise UnsupportedError(f"the model file does not hold a {name} {weight.shape}")
                weights[name] = weight.tolist()
        rows.append([step.kind, step.inputs, step.options, weights])
    found = {"format": _FORMAT, "steps": rows, "last": last, "classes": classes, "margin": margin}
    return gzip.compress(json.dumps(found).encode(), mtime=0)


def program(content: bytes, file: Path | BinaryIO) -> Program | None:
    """The program of an outline with the weights of a `.keras` file, or of its content.

    Returns:
        None where either is damaged, the outline of another format, or the file of another net.
    """
    try:
        outlined = json.loads(gzip.decompress(content))
        if outlined["format"] != _FORMAT:
            return None
        with _weights(file) as held:
            steps = [
                Step(kind, tuple(inputs), options, _filled(weights, held))
                for kind, inputs, options, weights in outlined["steps"]
            ]
        return simplified(steps, outlined["last"], outlined["classes"], outlined["margin"])
    except Exception:  # a flipped bit makes gzip, zipfile and h5py raise anything
        return None


def _filled(weights, held):
    """The arrays of a step; a string is a place in the file."""
    return {
        name: held[value][()] if isinstance(value, str) else np.array(value, np.float32)
        for name, value in weights.items()
    }


@contextlib.contextmanager
def _weights(file: Path | BinaryIO) -> Iterator["h5py.File"]:
    import h5py

    with zipfile.ZipFile(file) as archive:
        # Read within the archive it takes ten times as long.
        content = io.BytesIO(archive.read(_WEIGHTS))
    with h5py.File(content, "r") as held:
        yield held


def _key(weight: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """What weights of equal numbers share; which of them is read is all the same."""
    return weight.shape, hashlib.blake2b(weight.astype(np.float32).tobytes()).digest()
