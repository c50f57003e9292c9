"""What is written for a segmented picture: label map and overlay, or polygons."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kfcn.data.formats.classes_txt import read_classes
from kfcn.data.formats.labelme import to_labelme
from kfcn.errors import UsageError
from kfcn.labels import voc_colour
from kfcn.outputs import Outputs, State
from kfcn.visualize import overlay, palette_picture


class Writer:
    """Writes what was predicted for each picture, and what belongs to all of them together.

    Args:
        outputs: the folder for the results.
        names: of the classes.
        palette: RGB of each class.
    """

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

    def finish(self, paths: Sequence[Path]) -> None:
        """Writes what is known once all these pictures are done."""

    def _save(self, target: Path, picture: Image.Image, format: str, **options: int) -> None:
        with self.outputs.aside(target) as temporary:
            picture.save(temporary, format, **options)


class PngWriter(Writer):
    """`<stem>.png`, a palette label map, and `<stem>_overlay.jpg`."""

    def targets(self, path: Path) -> list[Path]:
        folder = self.outputs.folder
        return [folder / f"{path.stem}_overlay.jpg", folder / f"{path.stem}.png"]

    def write(self, path: Path, image: np.ndarray, labels: np.ndarray) -> None:
        over, label_map = self.targets(path)
        picture = Image.fromarray(overlay(image, labels, self.palette))
        self._save(over, picture, "JPEG", quality=92)
        self._save(label_map, palette_picture(labels, self.palette), "PNG")


class LabelmeWriter(Writer):
    """`<stem>.json` with polygons to be corrected in labelme, and `classes.txt` once."""

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
        return kept

    def start(self) -> None:
        if not self.outputs.check([self._classes], self.leave):
            lines = [
                f"{name} #{bytes(colour).hex()}\n"
                for name, colour in zip(self.names, self.palette, strict=True)
            ]
            self.outputs.write_text(self._classes, "".join(lines))

    def write(self, path: Path, image: np.ndarray, labels: np.ndarray) -> None:
        image_path = _seen_from(self.outputs.folder, path)
        (target,) = self.targets(path)
        self.outputs.write_json(target, to_labelme(labels, self.names, image_path))

    @property
    def _classes(self) -> Path:
        return self.outputs.folder / "classes.txt"


FORMATS: dict[str, type[Writer]] = {"png": PngWriter, "labelme": LabelmeWriter}


def _seen_from(folder: Path, path: Path) -> str:
    """A path as labelme stores it: relative to a folder, with slashes on every system."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on Windows, from one drive to another
        return path.resolve().as_posix()


def writer_for(
    model: keras.Model | None, card: dict | None, outputs: Outputs, format: str
) -> Writer:
    """The writer with the names and colours of a model's card; without one, the model's classes.

    Raises:
        UsageError: an unknown format.
    """
    if format not in FORMATS:
        raise UsageError(f"format {format!r}: expected {' or '.join(FORMATS)}")
    if card is not None:
        return FORMATS[format](outputs, card["classes"], card["palette"])
    classes = range(model.outputs[0].shape[-1])
    names = [f"class {index}" for index in classes]
    return FORMATS[format](outputs, names, [voc_colour(index) for index in classes])
