"""Polygons to be corrected in labelme."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kfcn.data.formats.classes_txt import class_lines, read_classes
from kfcn.data.formats.labelme import to_labelme
from kfcn.errors import UsageError, shortlist
from kfcn.inference.writer import Writer
from kfcn.labels import Classes
from kfcn.outputs import State


class LabelmeWriter(Writer):
    """`<stem>.json` with polygons, and `classes.txt` once."""

    leave = (State.CHANGED, State.FOREIGN)  # polygons that a person has drawn

    def targets(self, path: Path) -> list[Path]:
        return [self.outputs.folder / f"{path.stem}.json"]

    def check(self, paths: Sequence[Path]) -> dict[Path, Path]:
        kept = super().check(paths)
        if self.outputs.check([self._classes], self.leave):
            there = read_classes(self._classes).names
            if missing := [name for name in self.names if name not in there]:
                raise UsageError(
                    f"{self._classes} lacks {', '.join(missing)}, which the model knows; add it, "
                    "choose another --out, or replace the file with --overwrite"
                )
        elif self._classes.is_file() and not self.outputs.overwrite:  # kfcn's own, written anew
            there = read_classes(self._classes).names
            if missing := [name for name in there if name not in self.names]:
                raise UsageError(
                    f"{self._classes} has {shortlist(missing)} of another model, which polygons "
                    "there may have; choose another --out, or write it anew with --overwrite"
                )
        return kept

    def start(self) -> None:
        if not self.outputs.check([self._classes], self.leave):
            palette = tuple((int(r), int(g), int(b)) for r, g, b in self.palette)
            lines = class_lines(Classes(tuple(self.names), palette))
            self.outputs.write_text(self._classes, lines)

    def write(self, path: Path, image: np.ndarray, labels: np.ndarray) -> None:
        image_path = seen_from(self.outputs.folder, path)
        (target,) = self.targets(path)
        self.outputs.write_json(target, to_labelme(labels, self.names, image_path))

    @property
    def _classes(self) -> Path:
        return self.outputs.folder / "classes.txt"


def seen_from(folder: Path, path: Path) -> str:
    """A path as labelme stores it: relative to a folder, with slashes on every system.

    Links on the way are followed: `..` leads out of the folder that a link leads to.
    """
    try:
        return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()
    except ValueError:  # on Windows, from one drive to another
        return path.resolve().as_posix()
