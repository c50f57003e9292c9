"""Checkpoints from which a run goes on as if it had never stopped.

Keras' BackupAndRestore leaves out the seeds of dropout and the place in the data; after it a
resumed run drifts from an undisturbed one. Here the whole state of the model is saved, and the
data are addressed by step, so that the two end with the same bits.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from kfcn.errors import KfcnError, first_line
from kfcn.files import aside


class Saving(NamedTuple):
    """How often a run saves its state, and what stays of it.

    Attributes:
        seconds: between two checkpoints within an epoch; one is always written at its end.
        keep: how many checkpoints stay.
    """

    seconds: float = 300.0
    keep: int = 3


def save(folder: Path, variables: Sequence, step: int, note: dict[str, Any], keep: int) -> None:
    """Writes `step-NNNNNNNN.npz` and removes all but the last `keep` checkpoints up to this step.

    Those of later steps are damaged ones, which `restore` has passed over: they take no place of a
    sound one, and stay until the run has come as far.

    Args:
        folder: `checkpoints/` of the run.
        variables: everything that a step reads and writes (`Learner.variables`).
        step: training steps done.
        note: whatever else the run needs, as JSON values.
        keep: how many checkpoints stay; the older ones go when the new one is on the disk.

    Raises:
        WriteError: it could not be written; the earlier checkpoints are untouched.
    """
    arrays = {
        f"{index:05d}": keras.ops.convert_to_numpy(variable)
        for index, variable in enumerate(variables)
    }
    text = np.frombuffer(json.dumps({"step": step, **note}).encode(), np.uint8)
    path = folder / _name(step)
    with aside(path) as temporary, temporary.open("wb") as file:
        np.savez(file, note=text, **arrays)
    for old in [file for file in _files(folder) if file <= path][:-keep]:
        old.unlink(missing_ok=True)


def restore(
    folder: Path,
    variables: Sequence,
    warn: Callable[[str], None] = print,
    parse: Callable[[dict[str, Any]], Any] = dict,
) -> Any:
    """Puts the newest sound checkpoint into the variables; returns its note, None if none is there.

    A damaged checkpoint is reported by `warn`, and the one before it is used.

    Args:
        folder: `checkpoints/` of the run.
        variables: those that were saved, in the same order.
        warn: called with a line for each checkpoint that cannot be used.
        parse: turns the note into what is returned; where it raises, the checkpoint is damaged.

    Raises:
        KfcnError: checkpoints are there, and none can be used.
    """
    files = _files(folder)
    for path in reversed(files):
        try:
            note, values = _read(path, [tuple(v.shape) for v in variables])
            parsed = parse(note)
        except Exception as error:  # a flipped bit makes zipfile, zlib and NumPy raise anything
            reason = first_line(error)
            warn(f"checkpoint {path.name} is damaged ({reason}); trying the one before it")
            continue
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return parsed
    if files:
        raise KfcnError(
            f"none of the {len(files)} checkpoints in {folder} can be read; remove the run folder "
            "to start over"
        )
    return None


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return bool(_files(folder))


def _name(step: int) -> str:
    return f"step-{step:08d}.npz"


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.npz"))


def _read(path: Path, shapes: list[tuple]) -> tuple[dict[str, Any], list[np.ndarray]]:
    with np.load(path, allow_pickle=False) as archive:
        note = json.loads(archive["note"].tobytes())
        if not isinstance(note, dict) or type(note.get("step")) is not int:
            raise ValueError("its note names no step")
        if note["step"] < 0 or path.name != _name(note["step"]):
            raise ValueError(f"its note is of step {note['step']}")
        # By place and not by name: Keras numbers the names of seeds over the whole process.
        values = [archive[f"{index:05d}"] for index in range(len(shapes))]
    if [value.shape for value in values] != shapes:
        raise ValueError("it holds another net")
    if any(value.dtype.kind in "OSUMm" for value in values):
        raise ValueError("it holds things other than numbers")
    return note, values
