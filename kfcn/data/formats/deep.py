"""Pictures of more than 8 bits: their stored numbers, and how 8 bits are made of them.

Pillow gives such numbers for grey pictures only: of those in colour it keeps the upper 8 bits.
OpenCV gives all of them.
"""

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from kfcn.data.formats.orientation import orientation_of, turned
from kfcn.data.formats.soundness import PNG
from kfcn.data.formats.tiff import tiff_tags


def deep_values(content: bytes, image: Image.Image) -> np.ndarray | None:
    """The stored numbers of a picture of more than 8 bits, upright; None for any other.

    Returns:
        `(H, W)` of the file's own integer type, or uint16 `(H, W, 3 or 4)` in the order RGB(A).
    """
    if image.mode.startswith("I"):
        image.load()
        values = np.asarray(ImageOps.exif_transpose(image))
        return values if values.dtype != np.dtype(">u2") else values.astype(np.uint16)
    if not is_deep_colour(content, image):
        return None
    if tiff_tags(image).get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:  # OpenCV mixes them up
        raise ValueError("16 bits with its colours in separate planes; save it as PNG")
    stored, number = np.frombuffer(content, np.uint8), image.tell()
    if number:
        found = cv2.imdecodemulti(stored, cv2.IMREAD_UNCHANGED, range=(number, number + 1))[1]
        values = found[0] if found else None
    else:
        values = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise ValueError("16 bits in colour that cannot be decoded; save it as PNG")
    if values.ndim == 3:
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    # OpenCV turns a TIFF itself.
    orientation = 1 if image.format == "TIFF" else orientation_of(image)
    return np.ascontiguousarray(turned(values, orientation))


def is_deep_colour(content: bytes, image: Image.Image) -> bool:
    """Whether a picture in colour has 16 bits, which Pillow's mode does not tell."""
    if content.startswith(PNG):
        return content[24] == 16
    bits = tiff_tags(image).get(TiffImagePlugin.BITSPERSAMPLE, (8,))
    return max(bits) > 8 and image.mode in ("RGB", "RGBA", "LA")


def eight_bits(values: np.ndarray, stretch: tuple[int, int]) -> np.ndarray:
    """Integers `(H, W[, C])` as uint8 `(H, W, 3)`; a fourth channel is the opacity, 0 to 65535."""
    low, high = stretch
    if values.dtype == np.uint16:  # by a table: one look-up a pixel
        scaled = _scaled(np.arange(65536), low, high)[values]
    else:
        scaled = _scaled(values, low, high)
    if scaled.ndim == 2:
        return np.repeat(scaled[..., None], 3, axis=2)
    if scaled.shape[2] == 4:
        opacity = values[..., 3:] / np.float32(65535)
        scaled = scaled[..., :3] * opacity + 255 * (1 - opacity)
        return scaled.round().astype(np.uint8)
    return scaled


def _scaled(values: np.ndarray, low: int, high: int) -> np.ndarray:
    return ((values.clip(low, high) - low) * (255 / (high - low))).round().astype(np.uint8)
