"""What is written for a segmented picture: label map and overlay, or polygons."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kfcn.data.formats.labelme import to_labelme
from kfcn.errors import UsageError
from kfcn.files import make_folder, write_json, write_text
from kfcn.labels import voc_colour
from kfcn.visualize import overlay, save_label_map, write_image

FORMATS = ("png", "labelme")


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes what was predicted for an image.

    Attributes:
        out: folder for the results.
        names: of the classes.
        palette: RGB of each class.
        format: "png" for `<stem>.png` (palette label map) and `<stem>_overlay.jpg`; "labelme" for
            `<stem>.json` with polygons, and `classes.txt` with the names once.
    """

    out: Path
    names: Sequence[str]
    palette: Sequence[Sequence[int]]
    format: str = "png"

    def target(self, path: Path) -> Path:
        """The file that is written last: where it is, the image is done."""
        return self.out / f"{path.stem}.{'json' if self.format == 'labelme' else 'png'}"

    def write(self, path: Path, image: np.ndarray, labels: np.ndarray) -> None:
        """Writes the results of the image file `path`, last of all `target(path)`."""
        target = self.target(path)
        if self.format == "labelme":
            image_path = Path(os.path.relpath(path, self.out)).as_posix()
            write_json(target, to_labelme(labels, self.names, image_path))
        else:
            picture = Image.fromarray(overlay(image, labels, self.palette))
            write_image(self.out / f"{path.stem}_overlay.jpg", picture, quality=92)
            save_label_map(target, labels, self.palette)

    def start(self) -> None:
        """Makes the folder, and `classes.txt` where the format needs the names in order."""
        make_folder(self.out)
        if self.format == "labelme":
            lines = [
                f"{name} #{bytes(colour).hex()}\n"
                for name, colour in zip(self.names, self.palette, strict=True)
            ]
            write_text(self.out / "classes.txt", "".join(lines))


def writer_for(
    model: keras.Model | None, card: dict | None, out: Path | str, format: str
) -> Writer:
    """The writer with the names and colours of a model's card; without one, the model's classes.

    Raises:
        UsageError: an unknown format.
    """
    if format not in FORMATS:
        raise UsageError(f"format {format!r}: expected {' or '.join(FORMATS)}")
    if card is not None:
        return Writer(Path(out), card["classes"], card["palette"], format)
    classes = range(model.outputs[0].shape[-1])
    names = [f"class {index}" for index in classes]
    return Writer(Path(out), names, [voc_colour(index) for index in classes], format)
