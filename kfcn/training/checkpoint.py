"""Checkpoints from which a run goes on as if it had never stopped.

Keras' BackupAndRestore leaves out the seeds of dropout and the place in the data; after it a
resumed run drifts from an undisturbed one. Here the whole state of the model is saved, and the
data are addressed by step, so that the two end with the same bits.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kfcn.errors import KfcnError
from kfcn.files import aside

KEEP = 2


def save(folder: Path, model: keras.Model, step: int, extra: dict[str, Any]) -> None:
    """Writes `step-NNNNNNNN.npz` and removes all but the last `KEEP` checkpoints.

    Args:
        folder: `checkpoints/` of the run.
        model: compiled model whose optimizer is built.
        step: training steps done.
        extra: whatever else the run needs, as JSON values.
    """
    arrays = {
        f"{index:05d}|{variable.path}": keras.ops.convert_to_numpy(variable)
        for index, variable in enumerate(_state(model))
    }
    note = np.frombuffer(json.dumps({"step": step, **extra}).encode(), np.uint8)
    with aside(folder / f"step-{step:08d}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, note=note, **arrays)
    for old in _files(folder)[:-KEEP]:
        old.unlink(missing_ok=True)


def restore(folder: Path, model: keras.Model, warn=print) -> dict[str, Any] | None:
    """Puts the newest sound checkpoint into the model; returns its note, None if there is none.

    A damaged checkpoint is told through `warn` and the one before it is used.

    Raises:
        KfcnError: checkpoints are there, and none can be used.
    """
    files = _files(folder)
    for path in reversed(files):
        try:
            note, values = _read(path, [v.path for v in _state(model)])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            warn(f"checkpoint {path.name} is damaged ({error}); trying the one before it")
            continue
        for variable, value in zip(_state(model), values, strict=True):
            variable.assign(value)
        return note
    if files:
        raise KfcnError(
            f"none of the {len(files)} checkpoints in {folder} can be read; "
            "remove the run folder to start anew"
        )
    return None


def _state(model: keras.Model) -> list:
    """Everything that a step reads and writes: weights, statistics, seeds, optimizer."""
    return [
        *model.trainable_variables,
        *model.non_trainable_variables,  # batch statistics and the seeds of dropout
        *model.optimizer.variables,
    ]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.npz"))


def _read(path: Path, names: list[str]) -> tuple[dict[str, Any], list[np.ndarray]]:
    with np.load(path, allow_pickle=False) as archive:
        note = json.loads(archive["note"].tobytes())
        return note, [archive[f"{index:05d}|{name}"] for index, name in enumerate(names)]
