"""Pictures of a data set at the size of a conversion: for calibration, and as golden images."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from kfcn.data.dataset import Dataset, spread
from kfcn.errors import UsageError, counted

LEAST_SIDE = 32
HELD_BACK = 4
"""One calibration picture in this many is held back for the layer search of `mixed`."""
LEAST_CALIBRATION = HELD_BACK
"""With fewer none would be held back, and the search counts on one."""


@dataclass(frozen=True)
class Picture:
    """An image of one size: uint8 (H, W, 3), labels uint8 (H, W) or None, its name."""

    image: np.ndarray
    labels: np.ndarray | None
    name: str


def pictures(dataset: Dataset, count: int, size: tuple[int, int]) -> list[Picture]:
    """`count` samples spread evenly over a data set, at most all of it, brought to one size."""
    found = []
    for index in spread(len(dataset), count):
        sample = dataset[index]
        image, labels = sample.image, sample.labels
        if image.shape[:2] != size:
            shape = (size[1], size[0])
            image = np.array(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR))
            labels = np.array(Image.fromarray(labels).resize(shape, Image.Resampling.NEAREST))
        found.append(Picture(image, labels, sample.name))
    return found


def check_any(dataset: Dataset) -> None:
    """Raises UsageError where a split has no picture."""
    if not len(dataset):
        raise UsageError(f"{dataset.name} {dataset.split} has no pictures; expected at least one")


def check_enough(train: Dataset) -> None:
    """Raises UsageError where a training split is too small to calibrate 8 bits on."""
    if len(train) < LEAST_CALIBRATION:
        raise UsageError(
            f"train has {counted(len(train), 'picture')}; 8 bits are calibrated on at least "
            f"{LEAST_CALIBRATION}: add some, or leave out the 8-bit modes"
        )


def check_size(size: tuple[int, int]) -> None:
    """Raises UsageError for a size that is too small for a net."""
    if min(size) < LEAST_SIDE:
        raise UsageError(f"size {size[0]} {size[1]}: expected at least {LEAST_SIDE} each way")


def check_calibration(count: int) -> None:
    """Raises UsageError where fewer images are asked for than 8 bits need."""
    if count < LEAST_CALIBRATION:
        raise UsageError(f"calibration {count}: expected at least {LEAST_CALIBRATION}")
