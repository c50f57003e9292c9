"""What the data sets of polygons, lines and points share: what no shape covers."""

import dataclasses
import functools
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
    none; `__ignore__` is ignored.
    """

    _sparse = False  # whether what no shape covers is ignored in any case

    @functools.cached_property
    def _label_of(self) -> dict[str, int]:
        """Name of a shape -> its label."""
        label_of = {name: index for index, name in enumerate(self.classes.names)}
        background = next((label_of[n] for n in BACKGROUND_NAMES if n in label_of), IGNORE)
        # A hole in a region is drawn as background, whichever of its two names it has.
        return label_of | dict.fromkeys(BACKGROUND_NAMES, background) | {IGNORE_NAME: IGNORE}

    @property
    def _background(self) -> int:
        """The label of what no shape covers."""
        return IGNORE if self._sparse else self._label_of[BACKGROUND_NAMES[0]]

    def read_as(self, reading: Reading) -> Self:
        """The same files; with `unlabelled="ignore"` what no shape covers is 255."""
        other = super().read_as(dataclasses.replace(reading, unlabelled="background"))
        # A shape named background is the class all the same.
        other._sparse = reading.unlabelled == "ignore"
        return other


def written_classes(root: Path) -> Classes | None:
    """The classes of `classes.txt` or of labelme's `labels.txt`; None where neither is there."""
    files = (root / "classes.txt", root / "labels.txt")
    return next((read_classes(file) for file in files if file.is_file()), None)
