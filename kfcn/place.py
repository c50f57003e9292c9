"""Where in its run a worker is, kept in a file for `kfcn-launch`.

Of a worker that has died it is all that is left. `kfcn-launch` names the file; without it nothing
is written.
"""

import os
from pathlib import Path
from typing import NamedTuple

VARIABLE = "KFCN_PLACE"
"""Environment variable with the file's path."""


class Place(NamedTuple):
    """How far a worker came.

    Attributes:
        begun: training steps done when it began; -1 before that is known.
        done: training steps done.
    """

    begun: int
    done: int

    def __str__(self):
        return "before its first step" if self.begun < 0 else f"after step {self.done}"

    def is_near(self, other: "Place") -> bool:
        """Whether a worker that ended at both most likely ended by the same cause.

        What runs out (threads, memory) does so within a few steps of where it did before.
        """
        steps = min(self.done - self.begun, other.done - other.begun)
        near = abs(self.done - other.done) <= max(1, steps // 20)
        return (self.begun < 0) == (other.begun < 0) and near


class Marker:
    """Writes a worker's place after each step, a few microseconds."""

    def __init__(self):
        path = os.environ.get(VARIABLE)
        self._file = Path(path).open("wb", buffering=0) if path else None  # noqa: SIM115
        self._begun = -1
        self._write(-1)

    def begin(self, step: int) -> None:
        """The run begins or goes on after `step` steps."""
        self._begun = step
        self.reach(step)

    def reach(self, step: int) -> None:
        """So many steps are done."""
        self._write(step)

    def _write(self, step: int) -> None:
        if self._file:
            self._file.seek(0)
            self._file.write(b"%12d %12d" % (self._begun, step))


def read_place(path: Path) -> Place | None:
    """What a worker has written; None where it has written nothing."""
    try:
        begun, done = path.read_text(encoding="ascii").split()
        return Place(int(begun), int(done))
    except (OSError, ValueError):
        return None
