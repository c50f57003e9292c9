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
