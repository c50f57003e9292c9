"""From an image to its logits, or to the class of each of its pixels.

Whatever computes a net on an image of any size does it here: a large one is cut into tiles
(`kfcn.inference.tiling`), so that the memory does not grow with it but by what is returned.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kfcn.errors import KfcnError
from kfcn.inference import tiling
from kfcn.inference.runtime.net import Net, as_net

if TYPE_CHECKING:
    import keras


def segment(net: "Net | keras.Model", image: np.ndarray) -> np.ndarray:
    """The class of each pixel of one image.

    Args:
        net: returns logits `(B, H, W, C)` for RGB images `(B, H, W, 3)`, 0..255. A Keras model
            computes on TensorFlow; `kfcn.inference.runtime` has quicker ones.
        image: uint8 `(H, W, 3)`, RGB.

    Returns:
        uint8 `(H, W)`.

    Raises:
        KfcnError: the net returns maps of another size than the image's.
    """
    net = as_net(net)
    return _of_any_size(net, net.labels, image)


def image_logits(net: "Net | keras.Model", image: np.ndarray) -> np.ndarray:
    """The logits of one image.

    Args:
        net: as in `segment`.
        image: uint8 or float32 `(H, W, 3)`, RGB.

    Returns:
        float32 `(H, W, C)`.

    Raises:
        KfcnError: as `segment`.
    """
    net = as_net(net)
    return _of_any_size(net, net.logits, image)


def _of_any_size(
    net: Net, compute: Callable[[np.ndarray], np.ndarray], image: np.ndarray
) -> np.ndarray:
    def checked(images: np.ndarray) -> np.ndarray:
        found = compute(images)
        if found.shape[1:3] != images.shape[1:3]:
            raise KfcnError(
                f"the model returns a map of {found.shape[1]}x{found.shape[2]} for a picture of "
                f"{images.shape[1]}x{images.shape[2]}; expected one of its size: enlarge it within "
                "the model"
            )
        return found

    if tiling.is_large(image) and net.margin is not None:
        return tiling.in_tiles(checked, image, net.margin)
    return checked(image[None])[0]
