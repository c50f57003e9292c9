"""Strong changes of a picture: colours, sharpness, a part of another picture.

What is learned from pseudo-labels is what the net does not do yet: to see in a picture of odd
colours, out of focus and half covered, what it sees in the picture itself. A few pictures with
labels are not learned by heart so soon. The changes and their ranges are those of L. Yang et al.,
"Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation" (UniMatch, CVPR
2023); CutMix for segmentation is G. French et al. (2020).
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

COLOURS, BOX = 8, 5
"""How many random numbers `strongly_changed` and `cutmix_box` take."""
JITTERED, GREY, BLURRED, MIXED = 0.8, 0.2, 0.5, 0.5
"""How often each change is made."""
BRIGHTNESS = CONTRAST = SATURATION = 0.5
"""Greatest relative change."""
HUE = 0.25
"""Greatest change, in turns of the circle of colours."""
SIGMA = (0.1, 2.0)
"""Of the blur, in pixels."""
AREA = (0.02, 0.4)
"""Of the pasted part, as a share of the crop's."""
RATIO = 1 / 0.3
"""Greatest height by width of the pasted part, and width by height, where the crop is square."""


def strongly_changed(image: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Changes colours and sharpness.

    The colours of a pixel x become b (c H S x + (1 - c) m), one map of three channels, with S
    that moves x from its own grey, H that turns it around the axis of greys, and the picture's
    mean grey m. Grey is the mean of the three channels.

    Args:
        image: uint8 `(H, W, 3)`.
        uniform: `(8,)` in [0, 1): whether the colours change, brightness, contrast, saturation,
            hue; whether the picture loses its colours; whether it is blurred, and how much.

    Returns:
        uint8 `(H, W, 3)`, of its own memory.
    """
    jittered, brightness, contrast, saturation, hue, grey, blurred, sigma = np.asarray(
        uniform, np.float64
    )
    mixed, shift = np.eye(3), 0.0
    if jittered < JITTERED:
        b, c, s = (
            1.0 + span * (2.0 * chance - 1.0)
            for span, chance in (
                (BRIGHTNESS, brightness),
                (CONTRAST, contrast),
                (SATURATION, saturation),
            )
        )
        mixed = b * c * (_turned(HUE * (2.0 * hue - 1.0)) @ _saturated(s))
        shift = b * (1.0 - c) * float(np.mean(cv2.mean(image)[:3]))
    if grey < GREY:
        mixed = _saturated(0.0) @ mixed
    changed = cv2.transform(image, np.column_stack([mixed, np.full(3, shift)]))
    if blurred < BLURRED:
        changed = cv2.GaussianBlur(changed, (0, 0), SIGMA[0] + (SIGMA[1] - SIGMA[0]) * sigma)
    return changed


def _saturated(factor: float) -> np.ndarray:
    """`(3, 3)`: the distance of a colour to its grey becomes `factor` times as large."""
    return factor * np.eye(3) + (1.0 - factor) / 3.0


def _turned(turns: float) -> np.ndarray:
    """`(3, 3)`: turns colours around the axis of greys (Rodrigues)."""
    sine, cosine = np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return cosine * np.eye(3) + (1 - cosine) / 3 + sine * across


class Box(NamedTuple):
    """A part of a picture: rows and columns."""

    rows: slice
    columns: slice


def cutmix_box(size: tuple[int, int], uniform: np.ndarray) -> Box | None:
    """The part of a crop that is pasted from another; None where nothing is.

    Args:
        size: height and width of the crop, pixels.
        uniform: `(5,)` in [0, 1): whether, area, ratio, place (y, x).
    """
    mixed, area, ratio, *place = np.asarray(uniform, np.float64)
    if mixed >= MIXED:
        return None
    share = AREA[0] + (AREA[1] - AREA[0]) * area
    stretch = RATIO ** (2.0 * ratio - 1.0)
    sides = []
    for extent, part, chance in zip(
        size, (np.sqrt(share * stretch), np.sqrt(share / stretch)), place, strict=True
    ):
        length = min(max(round(extent * part), 1), extent)
        first = min(int(chance * (extent - length + 1)), extent - length)
        sides.append(slice(first, first + length))
    return Box(*sides)


def pasted(
    crop: Sequence[np.ndarray], other: Sequence[np.ndarray], box: Box | None
) -> tuple[np.ndarray, ...]:
    """A crop with a part of another, in new arrays where there is one.

    Args:
        crop, other: the image `(h, w, 3)` and what belongs to its pixels `(h, w)`.
        box: the part; None for nothing.
    """
    if box is None:
        return tuple(crop)
    found = tuple(part.copy() for part in crop)  # the crop is another's partner
    for target, source in zip(found, other, strict=True):
        target[box] = source[box]
    return found
