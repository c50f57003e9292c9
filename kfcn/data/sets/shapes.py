"""What the data sets of polygons, lines and points share: what no shape covers."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from kfcn.data.formats.classes_txt import read_classes
from kfcn.data.formats.labelme import BACKGROUND_NAMES, IGNORE_NAME
from kfcn.data.reading import Reading
from kfcn.data.sets.pairs import FilePairs
from kfcn.labels import IGNORE, Classes


class Shapes(FilePairs):
    """Pairs of a picture and a file of shapes, which are painted over the background.

    What no shape covers is the class `background` (or `_background_`), and ignored where there is
    none; `__ignore__` is ignored. The arguments are those of `FilePairs`.
    """

    def __init__(
        self,
        split: str,
        root: Path,
        pairs: list[tuple[Path, Path]],
        classes: Classes,
        notes: Iterable[str] = (),
    ):
        super().__init__(split, root, pairs, classes, notes=notes)
        label_of = {name: index for index, name in enumerate(classes.names)}
        self._background = next((label_of[n] for n in BACKGROUND_NAMES if n in label_of), IGNORE)
        # A hole in a region is drawn as background, whichever of its two names it has.
        self._label_of = (
            label_of | dict.fromkeys(BACKGROUND_NAMES, self._background) | {IGNORE_NAME: IGNORE}
        )

    def read_as(self, reading: Reading) -> Self:
        """The same files; with `unlabelled="ignore"` what no shape covers is 255."""
        other = super().read_as(dataclasses.replace(reading, unlabelled="background"))
        if reading.unlabelled == "ignore":
            other._background = IGNORE  # a shape named background is the class all the same
        return other


def written_classes(root: Path) -> Classes | None:
    """The classes of `classes.txt` or of labelme's `labels.txt`; None where neither is there."""
    files = (root / "classes.txt", root / "labels.txt")
    return next((read_classes(file) for file in files if file.is_file()), None)
