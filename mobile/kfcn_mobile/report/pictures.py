"""Pictures of label maps and of where two of them differ."""

import numpy as np
from PIL import Image

from kfcn_mobile.bundle import Golden

DIFFERENT = np.array([255, 0, 80], np.uint8)


def colour(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """A label map in the classes' colours: uint8 (H, W) -> uint8 (H, W, 3).

    A label that is no class, which a faulty runtime can give, has the colour of what differs.
    """
    colours = np.concatenate([palette, DIFFERENT[None]])
    return colours[np.minimum(labels, len(palette))]


def disagreement(golden: Golden, labels: np.ndarray, palette: np.ndarray) -> Image.Image:
    """Four panels: image, Keras labels, the file's labels, the differing pixels in red.

    Returns:
        An RGB picture of (2 H, 2 W): the last panel shows the image in grey, a third as bright.
    """
    grey = np.array(Image.fromarray(golden.image).convert("L"))[..., None] // 3
    where = np.where((labels != golden.labels)[..., None], DIFFERENT, grey.repeat(3, axis=-1))
    top = np.concatenate([golden.image, colour(golden.labels, palette)], axis=1)
    bottom = np.concatenate([colour(labels, palette), where.astype(np.uint8)], axis=1)
    return Image.fromarray(np.concatenate([top, bottom]))
