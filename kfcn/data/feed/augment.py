"""Random changes of a training picture, by OpenCV.

Scale and crop are one resampling of a window of the source, at the cost of the crop's pixels; the
three changes of colour are one affine map. Pillow does the same in five times the time, and
TensorFlow's own operations in more.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kfcn.labels import IGNORE

PAD = 117
"""Grey that fills an image beyond its border: close to the mean of photos, so close to zero once
the net has normalised it, which is what its convolutions pad with. Its labels are 255."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training picture; image and labels are scaled and flipped alike.

    Attributes:
        scale: range of the uniform random scale; (1, 1) for none.
        flip: mirror left and right in one half of the cases.
        brightness: greatest shift of all channels, in units of 255.
        contrast: greatest relative change of the distance to the picture's mean.
        saturation: greatest relative change of the distance to the pixel's own grey.
        strong: change colours and sharpness of crops strongly as well, and paste parts of one
            crop of a batch into the next (`kfcn.data.feed.strong`).
    """

    scale: tuple[float, float] = (0.75, 1.75)
    flip: bool = True
    brightness: float = 0.1
    contrast: float = 0.25
    saturation: float = 0.25
    strong: bool = False


USUAL = Augmentation()


def augment(
    image: np.ndarray,
    labels: np.ndarray,
    uniform: np.ndarray,
    crop: tuple[int, int] | None,
    augmentation: Augmentation | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Changes one sample by seven uniform random numbers in [0, 1).

    A window of the source is cut out (with padding where it reaches beyond) and resized to the
    crop, with the centres of the outer pixels' edges kept: bilinear for the image, by the mean of
    the area where it shrinks below one half and bilinear would miss pixels; nearest for the
    labels.

    Args:
        image: uint8 `(H, W, 3)`.
        labels: uint8 `(H, W)`.
        uniform: float32 `(7,)`: scale, place (y, x), flip, saturation, contrast, brightness.
        crop: height and width of the result; None for the whole picture, scaled.
        augmentation: the ranges; None for a random crop alone.

    Returns:
        Image uint8 `(h, w, 3)` and labels uint8 `(h, w)`; they may share memory with the source.
    """
    scale = _scale(uniform, augmentation)
    if crop is None:
        window, size = labels.shape, _scaled(labels.shape, scale)
    else:
        window, size = _scaled(crop, 1.0 / scale), tuple(crop)
    image, labels = _cut_out(image, labels, window, uniform[1:3])
    # What touches every pixel is done where there are fewer: before growing, after shrinking.
    if augmentation is not None and scale > 1.0:
        image = _coloured(image, uniform[4:], augmentation)
    if window != size:
        smooth = cv2.INTER_LINEAR_EXACT if scale >= 0.5 else cv2.INTER_AREA
        width_first = size[::-1]
        image = cv2.resize(image, width_first, interpolation=smooth)
        # INTER_NEAREST would take the pixel whose corner is nearest, not the one whose centre is.
        labels = cv2.resize(labels, width_first, interpolation=cv2.INTER_NEAREST_EXACT)
    if augmentation is not None and scale <= 1.0:
        image = _coloured(image, uniform[4:], augmentation)
    if augmentation is not None and augmentation.flip and uniform[3] < 0.5:
        image, labels = cv2.flip(image, 1), cv2.flip(labels, 1)
    return image, labels


def whole_size(
    size: tuple[int, int], uniform: np.ndarray, augmentation: Augmentation | None
) -> tuple[int, int]:
    """Height and width that `augment` gives to a whole picture of this size."""
    return _scaled(size, _scale(uniform, augmentation))


def _scale(uniform: np.ndarray, augmentation: Augmentation | None) -> float:
    if augmentation is None:
        return 1.0
    low, high = augmentation.scale
    return low + (high - low) * float(uniform[0])


def _scaled(size, scale: float) -> tuple[int, int]:
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _cut_out(image, labels, window, uniform):
    """The part of height and width `window` at a random place, padded beyond the border.

    Where the window is the larger, the picture has a random place in it.
    """
    source, target = [], []
    for extent, length, chance in zip(labels.shape, window, uniform, strict=True):
        room = abs(extent - length)
        offset = min(int(chance * (room + 1)), room)
        here, there = slice(offset, offset + min(extent, length)), slice(0, min(extent, length))
        source.append(here if extent >= length else there)
        target.append(there if extent >= length else here)
    image, labels = image[tuple(source)], labels[tuple(source)]
    if labels.shape == tuple(window):
        return image, labels
    padded = np.full((*window, 3), PAD, np.uint8)
    padded[tuple(target)] = image
    ignored = np.full(window, IGNORE, np.uint8)
    ignored[tuple(target)] = labels
    return padded, ignored


def _coloured(image: np.ndarray, uniform, augmentation: Augmentation) -> np.ndarray:
    """Saturation, contrast and brightness as one map of each pixel x with grey g.

    With strengths s and c, shift b and the picture's mean m (which saturation leaves at s m +
    (1 - s) mean(g)): c s x + c (1 - s) g + (1 - c) mean + b, rounded to 8 bits.
    """
    signed = 2.0 * np.asarray(uniform, np.float64) - 1.0
    s = 1.0 + augmentation.saturation * signed[0]
    c = 1.0 + augmentation.contrast * signed[1]
    b = 255.0 * augmentation.brightness * signed[2]
    mean = np.array(cv2.mean(image)[:3])
    shift = (1.0 - c) * (s * mean + (1.0 - s) * mean.mean()) + b
    mixed = c * s * np.eye(3) + c * (1.0 - s) / 3.0
    return cv2.transform(image, np.column_stack([mixed, shift]))
