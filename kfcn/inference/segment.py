"""From an image to the class of each of its pixels."""

import keras
import numpy as np

from kfcn.fused import run_net
from kfcn.inference import tiling


def segment(model: keras.Model, image: np.ndarray) -> np.ndarray:
    """The class of each pixel of one image; a large one is done in tiles (`kfcn.inference.tiling`).

    Args:
        model: a net that takes `(B, H, W, 3)` RGB 0..255 and gives logits `(B, H, W, C)`.
        image: uint8 `(H, W, 3)`, RGB.

    Returns:
        uint8 `(H, W)`.
    """
    if tiling.is_large(image) and tiling.margin(model) is not None:
        return tiling.segment_tiled(model, image)
    return np.argmax(image_logits(model, image), axis=-1).astype(np.uint8)


def image_logits(model: keras.Model, image: np.ndarray) -> np.ndarray:
    """The logits of one image: uint8 `(H, W, 3)` in, float32 `(H, W, C)` out."""
    return run_net(model, image[None].astype("float32"))[0]
