"""Label maps as palette PNGs, with overlays to look at."""

from pathlib import Path

import numpy as np
from PIL import Image

from kfcn.inference.writer import Writer
from kfcn.labels import tints
from kfcn.visualize import overlay


def result_names(stem: str) -> tuple[str, str]:
    """The names of a picture's overlay and of its label map."""
    return f"{stem}_overlay.jpg", f"{stem}.png"


class PngWriter(Writer):
    """`<stem>.png`, a palette label map, and `<stem>_overlay.jpg`."""

    def targets(self, path: Path) -> list[Path]:
        return [self.outputs.folder / name for name in result_names(path.stem)]

    def write(self, path: Path, image: np.ndarray, labels: np.ndarray) -> None:
        over, label_map = self.targets(path)
        picture = Image.fromarray(overlay(image, labels, tints(self.names, self.palette)))
        self._save(over, picture, "JPEG", quality=92)
        self._save_labels(label_map, labels)
