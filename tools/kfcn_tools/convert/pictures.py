"""Pictures of a data set at the size of a conversion: for calibration, and as golden images."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from kfcn.data.dataset import Dataset


@dataclass(frozen=True)
class Picture:
    """An image of one size: uint8 (H, W, 3), labels uint8 (H, W) or None, its name."""

    image: np.ndarray
    labels: np.ndarray | None
    name: str


def pictures(dataset: Dataset, count: int, size: tuple[int, int]) -> list[Picture]:
    """`count` samples spread evenly over a data set, at most all of it, brought to one size."""
    count = min(count, len(dataset))
    found = []
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int):
        sample = dataset[int(index)]
        image, labels = sample.image, sample.labels
        if image.shape[:2] != size:
            shape = (size[1], size[0])
            image = np.array(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR))
            labels = np.array(Image.fromarray(labels).resize(shape, Image.Resampling.NEAREST))
        found.append(Picture(image, labels, sample.name))
    return found
