"""How an image is segmented for a figure: in one piece, or averaged over its variants."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from kfcn.errors import UsageError
from kfcn.inference.runtime.net import Net
from kfcn.inference.scales import SCALES, scaled_size
from kfcn.inference.segment import image_logits

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How an image is segmented for a figure: in one piece, or averaged over its variants.

    Figures of different protocols are not to be compared: an average over six variants costs six
    times a single scale.

    Attributes:
        scales: the image's size relative to its own, one for each pass; in `SCALES`.
        flip: pass each mirrored left and right as well.

    Raises:
        UsageError: from the constructor; no scale, or one that makes no sense.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self):
        if not self.scales or not all(scale in SCALES for scale in self.scales):
            raise UsageError(f"scales {self.scales}: expected one or more numbers {SCALES}")

    def __str__(self):
        plain = self.scales == (1.0,)
        text = "single scale" if plain else f"scales {' '.join(f'{s:g}' for s in self.scales)}"
        return f"{text}, flip" if self.flip else text

    def logits(self, net: "Net | keras.Model", image: np.ndarray) -> np.ndarray:
        """What the classes of an image are decided by, at its full size.

        For a single scale the net's logits; else the logarithm of the mean softmax. Resized are
        the image before and the logits after the net, bilinear, averaging where they shrink.

        Args:
            net: returns logits `(B, H, W, C)`.
            image: uint8 `(H, W, 3)`.

        Returns:
            float32 `(H, W, C)`.

        Raises:
            UsageError: at a scale the picture would fill the memory (`scaled_size`).
        """
        if self.scales == (1.0,) and not self.flip:
            return image_logits(net, image)
        size, total = (image.shape[0], image.shape[1]), 0.0
        for scale in self.scales:
            scaled = resize(image, scaled_size(size, scale))
            total = total + softmax(resize(image_logits(net, scaled), size))
            if self.flip:
                mirrored = image_logits(net, scaled[:, ::-1])[:, ::-1]
                total = total + softmax(resize(mirrored, size))
        mean = total / (len(self.scales) * (1 + self.flip))
        return np.log(np.maximum(mean, np.finfo(np.float32).tiny))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, averaging where it shrinks: `(H, W, C)` to float32 `(*size, C)`."""
    image = image.astype(np.float32)
    if image.shape[:2] == size:
        return image
    import keras

    resized = keras.ops.image.resize(image, size, interpolation="bilinear", antialias=True)
    return keras.ops.convert_to_numpy(resized)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities `(..., C)` of logits."""
    shares = logits - logits.max(-1, keepdims=True)
    np.exp(shares, out=shares)  # in place: of a large picture each copy takes as much as its logits
    shares /= shares.sum(-1, keepdims=True)
    return shares


SINGLE_SCALE = Protocol()
