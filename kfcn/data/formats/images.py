"""From image files to arrays.

OpenCV decodes the two kinds that nearly all training data are made of, JPEG images and 8-bit grey
PNG labels, in two thirds of Pillow's time and to the same values. Pillow decodes everything else
that people have, and says what is wrong with a file.
"""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from kfcn.errors import DataError

_ORIENTATION = 0x0112  # the EXIF tag


def read_image(file: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """Decodes a picture of any usual kind to RGB.

    Grey, palette, CMYK and 16-bit grey pictures become 8-bit RGB, what is transparent is shown
    on white, and the EXIF orientation of a phone's photo is applied.

    Args:
        file: an image file, or its content.
        name: what an error calls it; None for the file's own path.

    Returns:
        uint8 `(H, W, 3)`, 0 to 255.

    Raises:
        DataError: the file is missing, truncated or no image; the message names it.
    """
    # Pillow raises OSError, SyntaxError, ValueError, struct.error ... on broken files: whatever
    # it is, the file cannot be used and must be named.
    try:
        content = _content(file)
        if content.startswith(b"\xff\xd8\xff"):  # JPEG
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
            if pixels is not None:
                return pixels
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.getexif().get(_ORIENTATION, 1) != 1:
                image = ImageOps.exif_transpose(image)
            return np.array(image if _plain(image) else _rgb(image))
    except Exception as error:
        raise DataError(f"{name or file}: cannot be read as an image ({reason(error)})") from error


def _content(file: str | Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return file
    with open(file, "rb") as opened:  # noqa: PTH123 (a Path would be taken apart again)
        return opened.read()


def _plain(image: Image.Image) -> bool:
    return image.mode == "RGB" and not image.has_transparency_data


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels; expected 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_labels(file: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """Decodes a label map to class indices, exactly as they are stored.

    A palette PNG gives its indices and never the grey values of its colours. Grey maps of 1, 2,
    4, 8 or 16 bits give the stored numbers.

    Args:
        file: a single-channel image file, or its content.
        name: what an error calls it; None for the file's own path.

    Returns:
        uint8 `(H, W)`.

    Raises:
        DataError: the file is missing, truncated, in colour (RGB) or holds a number above 255;
            the message names it.
    """
    try:
        content = _content(file)
        if _grey_png(content):
            flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
            labels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
            if labels is not None:
                return labels
        with Image.open(io.BytesIO(content)) as image:
            mode = image.mode
            stored = str(image.tile[0].args) if image.tile else ""
            image.load()
            labels = np.array(image)
    except Exception as error:
        raise DataError(
            f"{name or file}: cannot be read as a label map ({reason(error)})"
        ) from error
    if mode not in ("P", "L", "1") and not mode.startswith("I"):
        raise DataError(
            f"{name or file}: the label map is stored as {mode} colours; expected one class index "
            "a pixel (a palette or grey PNG): convert the colours to indices first"
        )
    # Pillow stretches grey of 2 and 4 bits to 0..255; the stored numbers are the labels.
    if mode == "L" and ";2" in stored:
        labels //= 85
    elif mode == "L" and ";4" in stored:
        labels //= 17
    if labels.dtype != bool and labels.size and not 0 <= labels.min() <= labels.max() <= 255:
        raise DataError(
            f"{name or file}: found label {labels.max() if labels.max() > 255 else labels.min()}; "
            "expected class indices from 0 to 255"
        )
    return labels.astype(np.uint8)


def _grey_png(content: bytes) -> bool:
    """Whether the content is a PNG of 8-bit grey: OpenCV would turn a palette into colours."""
    bits_and_colour_type = content[24:26]
    return content.startswith(b"\x89PNG\r\n\x1a\n") and bits_and_colour_type == b"\x08\x00"


def reason(error: Exception) -> str:
    """Why Pillow could not read a file, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    # Pillow's "cannot identify image file" repeats the path.
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a known image format"
    return str(error) or type(error).__name__


def read_size(file: str | Path | bytes, name: str | None = None) -> tuple[int, int]:
    """Height and width of the image that `read_image` would give, without decoding its pixels.

    Raises:
        DataError: the file is missing or no image.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5  # lies on its side
    except Exception as error:
        raise DataError(f"{name or file}: cannot be read as an image ({reason(error)})") from error
    return (width, height) if turned else (height, width)


def stored_as_read(file: Path) -> bool:
    """Whether any decoder reads the file as kfcn does: 8-bit RGB or grey JPEG or PNG, upright.

    Raises:
        OSError: the file is missing or no image.
    """
    with Image.open(file) as image:
        plain = image.mode in ("RGB", "L") and image.format in ("JPEG", "PNG")
        upright = image.getexif().get(_ORIENTATION, 1) == 1
        return plain and upright and not image.has_transparency_data
