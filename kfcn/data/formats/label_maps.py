"""From mask files to label maps: the stored numbers, exactly.

OpenCV decodes 8-bit grey PNG, which most masks are, in two thirds of Pillow's time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin
from PIL.ImageFile import ImageFile

from kfcn.data.formats.deep import deep_values
from kfcn.data.formats.images import check_memory, contents, decoding, open_image
from kfcn.data.formats.soundness import JPEG, PNG, png_damage
from kfcn.data.formats.tiff import tiff_tags, white_is_zero
from kfcn.errors import DataError
from kfcn.files import open_file

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
        UsageError: as `read_image`.
    """
    name = name or str(file)
    return labels_of(open_mask(file, name, page), name)


def open_mask(
    file: str | Path | bytes, name: str, page: int | None, what: str = "a label map"
) -> "StoredMask":
    """Decodes a mask file as it is stored; arguments as of `read_labels`, `what` for errors.

    Raises:
        DataError: the file is missing, damaged, lossy or no image.
        UsageError: as `read_image`.
    """
    with decoding(name, what):
        content = contents(file)
        if fault := no_mask(content):
            raise ValueError(fault)
        return stored_mask(content, page)


def labels_of(stored: "StoredMask", name: str) -> np.ndarray:
    """The class indices of a decoded mask, uint8 `(H, W)`, as `read_labels` gives them.

    Raises:
        DataError: it does not hold any.
    """
    if stored.inverted and stored.white > 1:
        raise DataError(
            f"{name}: cannot be read as a label map (its numbers count down from white "
            "(WhiteIsZero), so it is unclear which of them are the labels; save it as PNG)"
        )
    labels = stored.numbers
    if labels.ndim == 3:
        grey = labels[..., 0]
        if not is_grey(labels):
            if stored.mode.endswith("LA"):
                raise DataError(
                    f"{name}: the label map is stored as grey with transparency ({stored.mode}); "
                    "expected one class index per pixel (a palette or grey PNG): save it without "
                    "transparency"
                )
            raise DataError(
                f"{name}: the label map is stored as {stored.mode} colours; expected one class "
                "index per pixel (a palette or grey PNG): give every class its colour in "
                "classes.txt, or convert the colours to indices"
            )
        labels = grey
    return whole_labels(labels, name)


def whole_labels(labels: np.ndarray, name: str) -> np.ndarray:
    """Stored numbers of whatever type as uint8.

    Raises:
        DataError: one of them is no whole number of 0 to 255.
    """
    if labels.dtype in (np.bool_, np.uint8):
        return labels.astype(np.uint8)
    wrong = ~((labels >= 0) & (labels <= 255) & (labels == np.floor(labels)))  # and NaN
    if wrong.any():
        raise DataError(
            f"{name}: found label {labels[wrong].max():g}; expected class indices from 0 to 255"
        )
    return labels.astype(np.uint8)


def is_grey(channels: np.ndarray) -> bool:
    """Whether grey with opacity or RGB(A), `(H, W, 2 to 4)`, says no more than one channel does."""
    opacity = channels[..., -1] if channels.shape[2] in (2, 4) else None
    if opacity is not None and (opacity != np.iinfo(channels.dtype).max).any():
        return False
    return channels.shape[2] == 2 or not (channels[..., 1:3] != channels[..., :1]).any()


def _grey_png(content: bytes) -> bool:
    """Whether the content is a PNG of 8-bit grey: OpenCV would turn a palette into colours."""
    return content.startswith(PNG) and content[24:26] == b"\x08\x00" and b"acTL" not in content[:99]


def _grey(content: bytes) -> np.ndarray:
    if damage := png_damage(content):
        raise ValueError(damage)
    height, width = (int.from_bytes(content[place : place + 4]) for place in (20, 16))
    check_memory(height, width, 1)
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    labels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if labels is None:
        raise ValueError("damaged PNG data")
    return labels


class StoredMask(NamedTuple):
    """What a mask file holds, as it lies in the file: no orientation is applied.

    Attributes:
        mode: Pillow's, in words.
        numbers: `(H, W[, C])`, of whatever type.
        white: the number that is shown as white; 0 where numbers are not shown as greys.
        inverted: whether the file counts down from white; `numbers` are as they are shown.
        palette: uint8 `(256, 3)`, the colours of the numbers; None where there is none.
    """

    mode: str
    numbers: np.ndarray
    white: int
    inverted: bool = False
    palette: np.ndarray | None = None


def stored_mask(content: bytes, page: int | None) -> StoredMask:
    """Decodes a mask file.

    Raises:
        ValueError, and whatever Pillow raises: it is damaged, or of a kind that changes labels.
    """
    if _grey_png(content):
        return StoredMask("L", _grey(content), 255)
    with open_image(content, page) as image:
        mode, inverted = image.mode, white_is_zero(image)
        if lossy := _lossy(content, image):
            raise ValueError(f"{lossy} cannot hold labels, because it changes the numbers")
        tile = image.tile[0] if isinstance(image, ImageFile) and image.tile else None
        orientation = tiff_tags(image).get(ExifTags.Base.Orientation, 1)
        if mode in ("RGB", "RGBA", "LA"):
            deep = deep_values(content, image)
            if deep is not None:
                return StoredMask(f"16-bit {mode}", deep, 65535)
        image.load()
        if orientation in _BACK:  # Pillow has turned it
            image = image.transpose(_BACK[orientation])
        if mode not in ("P", "L", "1", "F", "RGB", "RGBA", "LA") and not mode.startswith("I"):
            image = image.convert("RGB")
        palette = None
        if mode == "P":
            colours = np.frombuffer(bytes(image.getpalette("RGB") or ()), np.uint8).reshape(-1, 3)
            palette = np.zeros((256, 3), np.uint8)
            palette[: len(colours)] = colours[:256]
        numbers = np.array(image)
    numbers, white = _unscaled(mode, numbers, tile)
    if inverted and mode.startswith("I"):  # Pillow inverts 8 bits and fewer
        numbers = white - numbers
    return StoredMask(mode, numbers, white, inverted, palette)


def _unscaled(mode: str, values: np.ndarray, tile: Any) -> tuple[np.ndarray, int]:
    """The numbers behind what Pillow gives, and which of them is white.

    Pillow stretches grey of 2 and 4 bits, and PGM with its own white, to 0..255 or 0..65535.
    """
    args = str(tile.args) if tile is not None else ""
    if tile is not None and tile.codec_name.startswith("ppm") and isinstance(tile.args, tuple):
        full, white = 65535 if mode.startswith("I") else 255, int(tile.args[1])
        numbers = values if white == full else np.rint(values * (white / full))
        return numbers.astype(values.dtype), white
    if mode == "L" and ";2" in args:
        return values // 85, 3
    if mode == "L" and ";4" in args:
        return values // 17, 15
    if mode in ("P", "F"):
        return values, 0
    return values, 1 if mode == "1" else 65535 if mode.startswith("I") else 255


def _lossy(content: bytes, image: Image.Image) -> str | None:
    """What a file is called that does not give back the numbers that were saved in it."""
    if tiff_tags(image).get(TiffImagePlugin.COMPRESSION) in (6, 7):
        return "a TIFF compressed as JPEG"
    if image.format == "WEBP" and b"VP8 " in (content[12:16], *_inner_chunks(content)):
        return "a lossy WebP"
    return "an AVIF" if image.format == "AVIF" else None


def _inner_chunks(content: bytes) -> Iterator[bytes]:
    """The kinds of the chunks of an extended WebP file, those of its frames among them."""
    place = 12
    while place + 8 <= len(content):
        kind, length = (
            content[place : place + 4],
            int.from_bytes(content[place + 4 : place + 8], "little"),
        )
        yield kind
        place += 8 + 16 if kind == b"ANMF" else 8 + length + length % 2


def mask_mode(path: Path) -> str:
    """Pillow's mode of a mask file, as its head says: "P" with a palette, "RGB" in colours ..."""
    with open_file(path) as file, Image.open(file) as image:
        return image.mode
