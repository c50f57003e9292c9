"""From an image to the class of each of its pixels."""

from typing import TYPE_CHECKING

import numpy as np

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
    return net.labels(image[None])[0]


def image_logits(net: "Net | keras.Model", image: np.ndarray) -> np.ndarray:
    """The logits of one image: uint8 or float32 `(H, W, 3)` in, float32 `(H, W, C)` out."""
    return as_net(net).logits(image[None])[0]
