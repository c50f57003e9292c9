"""Images too large for one piece: what a net returns for them, in memory that does not grow.

A window has about as many pixels as an image that is computed in one piece. Of its side s only
s - 2m pixels are new, m being the net's margin, so that a large image costs about (s / (s - 2m))^2
of one piece. With s = 2828, the side of `LARGE` pixels: 1.2 at a margin of 128, 1.5 at 256, 2.8 at
576 (`nyudv2`) and 4.0 at 704 (`voc_animals`). At the image's borders nothing is repeated: with a
margin of 704 an image of 3000x4000 costs 1.7, one of 8661x11548 (100 megapixels) 3.1.
"""

import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kfcn.errors import KfcnError

if TYPE_CHECKING:
    import keras

# Where a tile may begin: a multiple of every stride a net has, so that its cells lie where those
# of the whole image lie.
ALIGNMENT = 64
# Pixels of an image that is still computed in one piece, and of a window of a larger one: FCN-8s on
# MobileNetV2 takes about 2 GB for this many.
LARGE = 8_000_000


def is_large(image: np.ndarray) -> bool:
    """Whether an image `(H, W, 3)` has more than `LARGE` pixels."""
    return image.shape[0] * image.shape[1] > LARGE


class Tile(NamedTuple):
    """One piece of an image, as slices of rows and columns.

    Attributes:
        window: the net's input.
        inside: the part of the window's output that is that of the whole image.
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


def tiles(height: int, width: int, most: int, margin: int) -> list[Tile]:
    """Cuts an image into windows that overlap by 2 margins, with as few pixels in all as can be.

    Args:
        height: of the image.
        width: of the image.
        most: pixels of a window. It is exceeded where the windows would repeat more than 3 x 3
            times what they add: each adds at least one margin both ways.
        margin: a multiple of `ALIGNMENT`.
    """
    least = max(margin, ALIGNMENT)
    choices = []
    for row_step in range(least, height + least, ALIGNMENT):
        rows = _spans(height, row_step, margin)
        room = most // _longest(rows) - 2 * margin - width % ALIGNMENT
        columns = _spans(width, max(room // ALIGNMENT * ALIGNMENT, least), margin)
        choices.append((rows, columns))

    def cost(choice):
        rows, columns = choice
        over = max(_longest(rows) * _longest(columns) - most, 0)
        return over, _total(rows) * _total(columns)

    rows, columns = min(choices, key=cost)
    return [Tile(*zip(row, column, strict=True)) for row in rows for column in columns]


def _spans(length: int, step: int, margin: int) -> list[tuple[slice, slice, slice]]:
    """Windows `step` apart along one axis, each as in `Tile`."""
    found = []
    starts = range(0, max(length - 2 * margin, 1), step)
    for start in starts:
        # Padding 'same' puts the cells of a strided layer elsewhere at odd sizes than at even ones:
        # a window's size leaves the remainder that the whole image leaves.
        end = min(start + step + 2 * margin + length % ALIGNMENT, length)
        first = start + margin if start else 0
        last = length if start == starts[-1] else start + step + margin
        found.append((slice(start, end), slice(first - start, last - start), slice(first, last)))
    return found


def _longest(spans):
    return max(window.stop - window.start for window, _, _ in spans)


def _total(spans):
    return sum(window.stop - window.start for window, _, _ in spans)


def in_tiles(
    compute: Callable[[np.ndarray], np.ndarray], image: np.ndarray, margin: int
) -> np.ndarray:
    """What a net returns for a large image, computed in overlapping windows.

    A window's margin covers the reach of a pixel, so that each sees what it would see in one piece:
    the labels are the same, up to ties within float32 rounding.

    Args:
        compute: from images `(1, h, w, 3)` to `(1, h, w, ...)`.
        image: `(H, W, 3)`, RGB.
        margin: of the net, see `margin`.

    Returns:
        `(H, W, ...)`.
    """
    height, width = image.shape[:2]
    whole = np.empty(0)
    for number, tile in enumerate(tiles(height, width, LARGE, margin)):
        found = compute(image[tile.window][None])[0]
        if number == 0:
            whole = np.empty((height, width, *found.shape[2:]), found.dtype)
        whole[tile.target] = found[tile.inside]
    return whole
