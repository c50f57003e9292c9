"""What every format of results has in common; the formats are in `kfcn.inference.formats`."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kfcn.files import save_picture
from kfcn.outputs import Outputs, State
from kfcn.visualize import palette_picture


class Writer:
    """Writes what was predicted for each picture, and what belongs to all of them together.

    Args:
        outputs: the folder for the results.
        names: of the classes.
        palette: RGB of each class.
    """

    by_beam = True
    """Whether each picture can be written without the others, by any worker."""

    leave: tuple[State, ...] = (State.CHANGED,)
    """Existing files that stay, and their pictures with them: somebody has corrected them."""

    def __init__(self, outputs: Outputs, names: Sequence[str], palette: Sequence[Sequence[int]]):
        self.outputs, self.names, self.palette = outputs, names, palette

    def targets(self, path: Path) -> list[Path]:
        """The files of the picture `path`, in the order in which they are written.

        The last one says that the picture is done.
        """
        raise NotImplementedError

    def check(self, paths: Sequence[Path]) -> dict[Path, Path]:
        """Makes sure that nothing of the user's would be replaced, before anything is written.

        Returns:
            The pictures that are left out, each with its file that stays as it is.

        Raises:
            UsageError: a file to be written is an input, or was not written by kfcn.
        """
        kept = {}
        for path in paths:
            if left := self.outputs.check(self.targets(path), self.leave):
                kept[path] = left[0]
        return kept

    def start(self) -> None:
        """Writes what is known before the first picture."""

    def write(self, path: Path, image: np.ndarray, labels: np.ndarray) -> None:
        """Writes the results of a picture.

        Args:
            path: the picture's file.
            image: its pixels, uint8 `(H, W, 3)`.
            labels: uint8 `(H, W)`.

        Raises:
            KfcnError: a file cannot be written.
        """
        raise NotImplementedError

    def count(self, labels: np.ndarray) -> dict[str, int]:
        """The pixels of each class that occurs, by its name, the most frequent first."""
        counts = np.bincount(labels.ravel(), minlength=len(self.names))
        order: list[int] = np.argsort(-counts, kind="stable").tolist()
        return {self.names[index]: int(counts[index]) for index in order if counts[index]}

    def finish(self, paths: Sequence[Path]) -> None:
        """Writes what is known once all these pictures are done."""

    def _save_labels(self, target: Path, labels: np.ndarray) -> None:
        """A palette PNG, packed by runs alone: a third of the time for as small a file."""
        picture = palette_picture(labels, self.palette)
        self._save(target, picture, "PNG", compress_type=zlib.Z_RLE)

    def _save(self, target: Path, picture: Image.Image, format: str, **options: int) -> None:
        with self.outputs.aside(target) as temporary:
            save_picture(picture, temporary, format, **options)
