"""How far a picture may be enlarged before a net sees it."""

from kfcn.errors import UsageError
from kfcn.options import Range

SCALES = Range(above=0, most=8)
"""Scales that make sense: published protocols stay below 3, and at 8 a photograph of 12 megapixels
has 768."""


def scaled_size(
    size: tuple[int, ...], scale: float, least: tuple[int, int] = (1, 1)
) -> tuple[int, int]:
    """Height and width in pixels of a picture at a scale.

    Args:
        size: its height and width in pixels.
        scale: relative to them.
        least: the smallest height and width, which rounding must not fall short of.

    Raises:
        UsageError: at that size the picture would fill the memory
            (`kfcn.data.formats.images.check_memory`, for float32 RGB).
    """
    from kfcn.data.formats.images import check_memory

    height, width = (max(round(scale * side), low) for side, low in zip(size, least, strict=True))
    if (height, width) != size:
        try:
            check_memory(height, width, 3 * 4)
        except ValueError as error:
            raise UsageError(
                f"scale {scale:g} of {size[0]}x{size[1]} pixels: {error}; or choose a smaller scale"
            ) from error
    return height, width
