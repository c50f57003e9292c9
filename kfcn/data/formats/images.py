"""From image files to arrays.

OpenCV decodes what nearly all training data are made of, JPEG images, in two thirds of Pillow's
time and to the same values. Pillow decodes everything else that people have, but for pictures in
colour of 16 bits (`deep.py`).
"""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kfcn.data.formats.deep import deep_values, eight_bits, is_deep_colour
from kfcn.data.formats.orientation import orientation_of, turned
from kfcn.data.formats.soundness import JPEG, PNG, jpeg_ends, jpeg_head, png_damage
from kfcn.data.formats.tiff import check_bands, outside_pillow, page_numbers, white_is_zero
from kfcn.errors import DataError, UsageError, counted, first_line, received
from kfcn.files import broken_link, open_file, read_bytes

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"}
    | {".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga"}
)
"""What a file is called that is taken for a picture, in lower case; the content decides."""

MEMORY = "KFCN_IMAGE_MEMORY"
"""Environment variable: the greatest size of a decoded picture, in bytes."""
USUAL_MEMORY = 2 << 30
"""That limit where the variable is not set: 700 megapixels in RGB."""

_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")

# Pillow refuses pictures above 179 megapixels, whatever memory there is, and warns from 89 on.
# `check_memory` takes its place: before anything is decoded, and by bytes. For the whole process,
# which docs/reference/files.md tells: there is one such limit for all threads, and turning it off
# and on around each picture would let one thread turn it on under another.
Image.MAX_IMAGE_PIXELS = None


@contextlib.contextmanager
def decoding(name: str | Path | bytes, kind: str) -> Iterator[None]:
    """What a decoder raises on a broken file becomes one line about the file.

    Args:
        name: of the file.
        kind: what it was taken for, such as "an image".

    Raises:
        DataError: it cannot be read as that, and why.
        UsageError: as it came: the request is at fault and not the file.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # on broken files Pillow raises OSError, SyntaxError, struct.error
        raise DataError(f"{name}: cannot be read as {kind} ({reason(error)})") from error


def read_image(
    file: str | Path | bytes,
    name: str | None = None,
    stretch: tuple[int, int] | None = None,
    page: int | None = None,
) -> np.ndarray:
    """Decodes a picture of any usual kind to RGB.

    Grey, palette and CMYK pictures become RGB, what is transparent is shown on white, and the
    EXIF orientation of a phone's photo is applied. Pictures of more than 8 bits are mapped to 0
    to 255 linearly, from `stretch`.

    Args:
        file: an image file, or its content.
        name: what an error calls it; None for the file's own path.
        stretch: the stored numbers that become 0 and 255 in pictures of more than 8 bits; None
            for 0 and 65535. Pictures of 8 bits are left as they are.
        page: which page of a file of several; None where there must be one.

    Returns:
        uint8 `(H, W, 3)`, 0 to 255.

    Raises:
        DataError: the file is missing, damaged or no image, has pages or bands that would be
            lost, or needs more memory than is allowed; the message names it.
        UsageError: the environment variable `KFCN_IMAGE_MEMORY` is no number of bytes.
    """
    with decoding(name or file, "an image"):
        content = contents(file)
        if content.startswith(JPEG):
            return _read_jpeg(content)
        with open_image(content, page) as image:
            check_bands(image)
            inverted = white_is_zero(image)
            if (deep := deep_values(content, image)) is not None:
                pixels = eight_bits(deep, stretch or (0, 65535))
                return 255 - pixels if inverted else pixels  # Pillow inverts 8 bits and fewer
            image.load()
            image = ImageOps.exif_transpose(image)
            return np.array(image if _plain(image) else _rgb(image))


def contents(file: str | Path | bytes) -> bytes:
    """The bytes of a file, or what was given where that is bytes already.

    Raises:
        ValueError: there are none.
        OSError: it cannot be read.
    """
    content = file if isinstance(file, bytes) else read_bytes(file)
    _refuse_empty(content)
    return content


def _refuse_empty(content: bytes) -> None:
    if not content:
        raise ValueError("it is empty")


def open_image(content: bytes, page: int | None) -> Image.Image:
    """A file opened by Pillow at a page, once it is known to be whole and not too large.

    Raises:
        ValueError, and whatever Pillow raises: it is not, or has another number of pages.
    """
    if content.startswith(PNG) and (damage := png_damage(content)):
        raise ValueError(damage)
    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        known = "not a known image format"
        raise ValueError(outside_pillow(content) or known) from error
    pages = _pages(io.BytesIO(content), image)
    if page is None and len(pages) > 1:
        raise ValueError(
            f"{len(pages)} pages; expected one: save them as separate files, or read a data set of "
            "such files with --pages all"
        )
    _go_to(image, pages, page)
    check_memory(image.height, image.width, len(image.getbands()) * _bytes_each(image))
    return image


def _read_jpeg(content: bytes) -> np.ndarray:
    head = jpeg_head(io.BytesIO(content))
    check_memory(*head.size, 3)
    if not jpeg_ends(content, head.scan):
        raise ValueError("truncated: its end marker FFD9 is missing")
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    # Nobody is asked for a second opinion: Pillow fills with grey what OpenCV refuses.
    if pixels is None:
        raise ValueError("damaged JPEG data")
    return turned(pixels, head.orientation)


def _plain(image: Image.Image) -> bool:
    return image.mode == "RGB" and not image.has_transparency_data


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels; expected 8 or 16 bits: convert it")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _bytes_each(image: Image.Image) -> int:
    return 4 if image.mode in ("I", "F") else 2 if image.mode.startswith("I;") else 1


def _pages(file: BinaryIO, image: Image.Image) -> list[int]:
    """The numbers of the pages of a file, as Pillow counts what is in it.

    Layers of a Photoshop file and the further pictures of a phone's JPEG are none.
    """
    if image.format in _ANIMATED:
        return list(range(getattr(image, "n_frames", 1)))
    return page_numbers(file) if image.format == "TIFF" else [0]


def _go_to(image: Image.Image, pages: Sequence[int], page: int | None) -> None:
    """Turns to a page of `_pages`; to the first where none is asked for."""
    if page is not None and page >= len(pages):
        raise ValueError(f"{counted(len(pages), 'page')}; asked for number {page + 1}")
    if number := pages[page or 0]:  # not 0 even for the first, where a reduced copy lies before it
        image.seek(number)


def count_pages(file: str | Path | bytes, name: str | None = None) -> int:
    """How many pages a file has.

    Raises:
        DataError: the file is missing or no image.
    """
    with decoding(name or file, "an image"):
        content = contents(file)
        if content.startswith(JPEG):
            return 1
        with Image.open(io.BytesIO(content)) as image:
            return len(_pages(io.BytesIO(content), image))


def check_memory(height: int, width: int, channels: int) -> None:
    """Raises a ValueError for a picture that would fill the memory, before it does."""
    limit = memory_limit()
    if height * width * channels > limit:
        raise ValueError(
            f"{height}x{width} pixels would take {height * width * channels / 2**30:.1f} GiB and "
            f"{limit / 2**30:.3g} GiB are allowed; set {MEMORY} to more bytes if this is intended"
        )


def memory_limit() -> int:
    """The greatest size of a decoded picture, in bytes.

    Raises:
        UsageError: the environment variable is no positive number.
    """
    text = os.environ.get(MEMORY, "").strip()
    if not text:
        return USUAL_MEMORY
    if not text.isdecimal() or not int(text):
        raise UsageError(
            f"{MEMORY}={received(text)}: expected a number of bytes, such as {USUAL_MEMORY}"
        )
    return int(text)


def reason(error: Exception) -> str:
    """Why a file could not be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return broken_link(error.filename) or "no such file"
    # Pillow's "cannot identify image file" repeats the path.
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a known image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)


class ImageHead(NamedTuple):
    """What the head of an image file says.

    Attributes:
        size: height and width of the image that `read_image` gives.
        orientation: how it is turned for that, by EXIF's numbers 1 (not at all) to 8.
        deep: whether its numbers have more than 8 bits.
    """

    size: tuple[int, int]
    orientation: int
    deep: bool


def read_head(
    file: str | Path | bytes, name: str | None = None, page: int | None = None
) -> ImageHead:
    """Reads the head of an image file, without decoding its pixels.

    Raises:
        DataError: the file is missing or no image.
    """
    with (
        decoding(name or file, "an image"),
        io.BytesIO(file) if isinstance(file, bytes) else open_file(file) as opened,
    ):
        start = opened.read(32)
        _refuse_empty(start)
        if start.startswith(JPEG):
            (height, width), orientation, _ = jpeg_head(opened)
            size = (width, height) if orientation >= 5 else (height, width)
            return ImageHead(size, orientation, False)
        opened.seek(0)
        with Image.open(opened) as image:
            _go_to(image, _pages(opened, image), page)
            orientation = orientation_of(image)
            width, height = image.size
            # Pillow turns the size of a TIFF itself.
            if orientation >= 5 and image.format != "TIFF":
                width, height = height, width
            deep = image.mode.startswith("I") or is_deep_colour(start, image)
            return ImageHead((height, width), orientation, deep)


def read_size(
    file: str | Path | bytes, name: str | None = None, page: int | None = None
) -> tuple[int, int]:
    """Height and width of the image that `read_image` would give, without decoding its pixels.

    Raises:
        DataError: the file is missing or no image.
    """
    return read_head(file, name, page).size


def value_range(
    file: str | Path | bytes, name: str | None = None, page: int | None = None
) -> tuple[int, int] | None:
    """The smallest and greatest stored number of a picture of more than 8 bits; None for any other.

    Raises:
        DataError: the file is missing, damaged or no image.
        UsageError: as `read_image`.
    """
    if not read_head(file, name, page).deep:
        return None
    with decoding(name or file, "an image"):
        content = contents(file)
        with open_image(content, page) as image:
            values = deep_values(content, image)
    if values is None:
        return None
    colours = values[..., :3] if values.ndim == 3 else values  # without the opacity
    return int(colours.min()), int(colours.max())


def stored_as_read(file: Path) -> bool:
    """Whether any decoder reads the file as kfcn does: 8-bit RGB or grey JPEG or PNG, upright.

    Raises:
        DataError: the file is missing or no image.
    """
    head = read_head(file)
    with open_file(file) as opened, Image.open(opened) as image:
        plain = image.mode in ("RGB", "L") and image.format in ("JPEG", "PNG")
        return plain and head.orientation == 1 and not head.deep and not image.has_transparency_data
