"""Labels of images too large for one piece: the same labels, in memory that does not grow."""

import math
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kfcn.errors import KfcnError

if TYPE_CHECKING:
    import keras

    from kfcn.inference.runtime.net import Net

# Where a tile may begin: a multiple of every stride a net has, so that its cells lie where those
# of the whole image lie.
ALIGNMENT = 64
# Pixels of an image that is cut into tiles: FCN-8s on MobileNetV2 takes about 2 GB for this many,
# and tiles compute everything about twice.
LARGE = 8_000_000


def is_large(image: np.ndarray) -> bool:
    """Whether an image `(H, W, 3)` has more than `LARGE` pixels."""
    return image.shape[0] * image.shape[1] > LARGE


class Tile(NamedTuple):
    """One piece of an image, as slices of rows and columns.

    Attributes:
        window: what the net is given.
        inside: the part of the window's answer that is right.
        target: where that part lies in the image.
    """

    window: tuple[slice, slice]
    inside: tuple[slice, slice]
    target: tuple[slice, slice]


# Of each net for as long as there is one: it takes a walk over the graph, and a cache that held
# the net itself would keep its weights in the memory.
_margins: "weakref.WeakKeyDictionary[keras.Model, int | None]" = weakref.WeakKeyDictionary()


def margin(model: "keras.Model") -> int | None:
    """How far around a pixel a net looks, in pixels, rounded up to `ALIGNMENT`.

    None for a net that looks at the whole image (squeeze-and-excite, a CRF), or may.
    """
    if model not in _margins:
        _margins[model] = _margin(model)
    return _margins[model]


def _margin(model):
    from kfcn.rewrite.field import reach

    try:
        pixels = reach(model)
    except KfcnError:  # a layer that it does not know, such as a CRF
        return None
    if math.isinf(pixels):
        return None
    return -(-int(pixels) // ALIGNMENT) * ALIGNMENT


def tiles(height: int, width: int, side: int, margin: int) -> Iterator[Tile]:
    """Cuts an image into windows of at most `side` pixels each way that overlap by 2 margins.

    Args:
        height: of the image.
        width: of the image.
        side: of a window; what remains of it after the margins is at least one margin.
        margin: a multiple of `ALIGNMENT`.
    """
    step = max(((side - 2 * margin) // ALIGNMENT - 1) * ALIGNMENT, margin, ALIGNMENT)
    for rows in _spans(height, step, margin):
        for columns in _spans(width, step, margin):
            window, inside, target = zip(rows, columns, strict=True)
            yield Tile(window, inside, target)


def _spans(length: int, step: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    for start in range(0, length, step):
        end = min(start + step, length)
        # Padding 'same' puts the cells of a strided layer elsewhere at odd sizes than at even ones:
        # a window's size leaves the remainder that the whole image leaves.
        first, last = max(start - margin, 0), min(end + margin + length % ALIGNMENT, length)
        yield slice(first, last), slice(start - first, end - first), slice(start, end)


def segment_tiled(net: "Net", image: np.ndarray, side: int = 2048) -> np.ndarray:
    """The class of each pixel of a large image, computed in overlapping tiles.

    A tile's margin covers the reach of a pixel, so that each sees what it would see in one piece:
    the labels are the same, up to ties within float32 rounding.

    Args:
        net: whose margin is known.
        image: uint8 `(H, W, 3)`, RGB.
        side: of a tile in pixels; memory grows with its square.

    Returns:
        uint8 `(H, W)`.

    Raises:
        ValueError: the net looks at the whole image, see `margin`.
    """
    reach = net.margin
    if reach is None:
        raise ValueError("the net looks at the whole image; it has no tiles")
    labels = np.empty(image.shape[:2], np.uint8)
    height, width = image.shape[:2]
    for tile in tiles(height, width, side, reach):
        labels[tile.target] = net.labels(image[tile.window][None])[0][tile.inside]
    return labels
