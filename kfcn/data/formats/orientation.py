"""Pictures as they are to be seen: turned by the EXIF orientation of a phone's photo."""

import cv2
import numpy as np
from PIL import ExifTags, Image

from kfcn.data.formats.tiff import tiff_tags

_ORIENTATION = ExifTags.Base.Orientation  # of TIFF as well


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels `(H, W, ...)` as they are to be seen, by EXIF's orientation 1 to 8."""
    if orientation in (5, 7):
        pixels = cv2.transpose(pixels)
    if orientation in (6, 8):
        quarter = cv2.ROTATE_90_CLOCKWISE if orientation == 6 else cv2.ROTATE_90_COUNTERCLOCKWISE
        return cv2.rotate(pixels, quarter)
    flip = {2: 1, 3: -1, 4: 0, 7: -1}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip)


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation of a file opened by Pillow; 1 where it has none or no such number."""
    tags = tiff_tags(image) or image.getexif()
    value = tags.get(_ORIENTATION, 1)
    return value if value in range(2, 9) else 1


def orientation_in(tiff: bytes) -> int:
    """The orientation in EXIF's bytes as a JPEG holds them; 1 without one or where malformed."""
    if tiff[:2] not in (b"II", b"MM") or len(tiff) < 8:
        return 1
    order = "little" if tiff[:2] == b"II" else "big"
    start = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[start : start + 2], order)
    for place in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        if int.from_bytes(tiff[place : place + 2], order) == 0x0112:
            long = int.from_bytes(tiff[place + 2 : place + 4], order) == 4  # else SHORT
            value = int.from_bytes(tiff[place + 8 : place + (12 if long else 10)], order)
            return value if 1 <= value <= 8 else 1
    return 1
