"""From mask files to label maps: the stored numbers, exactly.

OpenCV decodes 8-bit grey PNG, which most masks are, in two thirds of Pillow's time.
"""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from kfcn.data.formats.images import (
    check_memory,
    contents,
    deep_values,
    open_image,
    reason,
    tiff_tags,
)
from kfcn.data.formats.soundness import JPEG, PNG, png_damage
from kfcn.errors import DataError

LABEL_SUFFIXES = frozenset([".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm"])
"""What a mask file is called, in lower case."""

# Kinds of files that people save masks as, and why these cannot be read as they were meant.
_NO_MASKS = (
    (JPEG, "a JPEG cannot hold labels, because it changes the numbers; save it as PNG"),
    (b"GIF8", "a GIF cannot hold labels, because programs renumber its palette; save it as PNG"),
    (b"\x93NUMPY", "a NumPy file; save the array as PNG: Image.fromarray(labels).save(...)"),
    (b"PK\x03\x04", "a zip archive, such as NumPy's npz; save the labels as PNG"),
)
# ImageOps.exif_transpose backwards, for what Pillow has turned already.
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def no_mask(start: bytes) -> str | None:
    """Why a file that begins like this is not read as a mask, in words; None where it may be."""
    return next((why for mark, why in _NO_MASKS if start.startswith(mark)), None)


def read_labels(
    file: str | Path | bytes, name: str | None = None, page: int | None = None
) -> np.ndarray:
    """Decodes a label map to class indices, exactly as they are stored.

    A palette PNG gives its indices and never the grey values of its colours. Grey maps of 1, 2,
    4, 8 or 16 bits give the stored numbers, and so do grey values in three equal channels and
    floating-point numbers that are whole. What a file says of its orientation is about pictures:
    a mask is never turned.

    Args:
        file: an image file, or its content.
        name: what an error calls it; None for the file's own path.
        page: which page of a file of several; None where there must be one.

    Returns:
        uint8 `(H, W)`.

    Raises:
        DataError: the file is missing, damaged, lossy, in colour (RGB) or holds a number above
            255; the message names it.
    """
    name = name or str(file)
    try:
        content = contents(file)
        if fault := no_mask(content):
            raise ValueError(fault)
        if _grey_png(content):
            return _fast(content)
        mode, labels = _stored(content, page)
    except Exception as error:
        raise DataError(f"{name}: cannot be read as a label map ({reason(error)})") from error
    if labels.ndim == 3:
        grey = labels[..., 0]
        if not _is_grey(labels):
            raise DataError(
                f"{name}: the label map is stored as {mode} colours; expected one class index a "
                "pixel (a palette or grey PNG): give every class its colour in classes.txt, or "
                "convert the colours to indices"
            )
        labels = grey
    return _checked(labels, name)


def _checked(labels: np.ndarray, name: str) -> np.ndarray:
    """Stored numbers of whatever type as uint8."""
    if labels.dtype in (np.bool_, np.uint8):
        return labels.astype(np.uint8)
    wrong = ~((labels >= 0) & (labels <= 255) & (labels == np.floor(labels)))  # and NaN
    if wrong.any():
        raise DataError(
            f"{name}: found label {labels[wrong].max():g}; expected class indices from 0 to 255"
        )
    return labels.astype(np.uint8)


def _is_grey(channels: np.ndarray) -> bool:
    """Whether grey with opacity or RGB(A) says no more than one channel does."""
    opacity = channels[..., -1] if channels.shape[2] in (2, 4) else None
    if opacity is not None and (opacity != np.iinfo(channels.dtype).max).any():
        return False
    return channels.shape[2] == 2 or not (channels[..., 1:3] != channels[..., :1]).any()


def _grey_png(content: bytes) -> bool:
    """Whether the content is a PNG of 8-bit grey: OpenCV would turn a palette into colours."""
    return content.startswith(PNG) and content[24:26] == b"\x08\x00" and b"acTL" not in content[:99]


def _fast(content: bytes) -> np.ndarray:
    if damage := png_damage(content):
        raise ValueError(damage)
    height, width = (int.from_bytes(content[place : place + 4]) for place in (20, 16))
    check_memory(height, width, 1)
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    labels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if labels is None:
        raise ValueError("damaged PNG data")
    return labels


def _stored(content: bytes, page: int | None) -> tuple[str, np.ndarray]:
    """Pillow's mode of a file, and its numbers `(H, W[, C])` as they are stored."""
    with open_image(content, page) as image:
        mode = image.mode
        tile = str(image.tile[0].args) if isinstance(image, ImageFile) and image.tile else ""
        orientation = tiff_tags(image).get(0x0112, 1)
        if mode in ("RGB", "RGBA", "LA"):
            deep = deep_values(content, image, page)
            if deep is not None:
                return f"16-bit {mode}", deep
        image.load()
        if orientation in _BACK:  # Pillow has turned it
            image = image.transpose(_BACK[orientation])
        if mode not in ("P", "L", "1", "F", "RGB", "RGBA", "LA") and not mode.startswith("I"):
            image = image.convert("RGB")
        labels = np.array(image)
    # Pillow stretches grey of 2 and 4 bits to 0..255; the stored numbers are the labels.
    if mode == "L" and ";2" in tile:
        labels //= 85
    elif mode == "L" and ";4" in tile:
        labels //= 17
    return mode, labels


def is_coloured(content: bytes) -> bool:
    """Whether a mask is stored in colours (RGB), as its head says."""
    with Image.open(io.BytesIO(content)) as image:
        return image.mode in ("RGB", "RGBA")
