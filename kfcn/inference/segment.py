"""From an image to the class of each of its pixels."""

from typing import TYPE_CHECKING

import numpy as np

from kfcn.errors import KfcnError
from kfcn.inference import tiling
from kfcn.inference.runtime.net import Net, as_net

if TYPE_CHECKING:
    import keras


def segment(net: "Net | keras.Model", image: np.ndarray) -> np.ndarray:
    """The class of each pixel of one image; a large one is done in tiles (`kfcn.inference.tiling`).

    Args:
        net: gives logits `(B, H, W, C)` for RGB images `(B, H, W, 3)`, 0..255. A Keras model
            computes on TensorFlow; `kfcn.inference.runtime` has quicker ones.
        image: uint8 `(H, W, 3)`, RGB.

    Returns:
        uint8 `(H, W)`.
    """
    net = as_net(net)
    if tiling.is_large(image) and net.margin is not None:
        return tiling.segment_tiled(net, image)
    return _of_its_size(net.labels(image[None])[0], image)


def image_logits(net: "Net | keras.Model", image: np.ndarray) -> np.ndarray:
    """The logits of one image: uint8 or float32 `(H, W, 3)` in, float32 `(H, W, C)` out."""
    return _of_its_size(as_net(net).logits(image[None])[0], image)


def _of_its_size(found: np.ndarray, image: np.ndarray) -> np.ndarray:
    if found.shape[:2] != image.shape[:2]:
        height, width = image.shape[:2]
        raise KfcnError(
            f"the model gives a map of {found.shape[0]}x{found.shape[1]} for a picture of "
            f"{height}x{width}; expected one of its size: enlarge it within the model"
        )
    return found
