"""What a TIFF file says of itself: its tags, its bands and its pages."""

import io
from collections.abc import Mapping
from typing import Any, BinaryIO

from PIL import ExifTags, Image, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from kfcn.errors import counted

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_PAGES = 100_000
_BANDS = (
    "expected grey, RGB or RGB with transparency: choose the three bands that the net is to see"
)


def tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF file; none of any other."""
    return image.tag_v2 if isinstance(image, TiffImageFile) else {}


def white_is_zero(image: Image.Image) -> bool:
    """Whether the numbers of a TIFF file count down from white."""
    return tiff_tags(image).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def outside_pillow(content: bytes) -> str | None:
    """Why Pillow reads no TIFF file of such bands or bits; None where the file is no TIFF."""
    if not content.startswith(_STARTS):
        return None
    file = io.BytesIO(content)
    directory = ImageFileDirectory_v2(file.read(8))
    file.seek(directory.next)
    directory.load(file)
    bands = directory.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    bits = directory.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    return f"{counted(bands, 'band')} of {counted(max(bits), 'bit')}; {_BANDS}"


def check_bands(image: Image.Image) -> None:
    """Raises a ValueError where bands of a TIFF would be left out without a word."""
    tags = tiff_tags(image)
    bands = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    extra = tags.get(TiffImagePlugin.EXTRASAMPLES, ())
    rgb = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 2
    # A fourth band is the opacity only where the file says so; it may as well be near infrared.
    if bands > 4 or (bands == 4 and (extra == (0,) or (rgb and extra not in ((1,), (2,))))):
        raise ValueError(f"{bands} bands; {_BANDS}")


def page_numbers(file: BinaryIO) -> list[int]:
    """The numbers of the pages of a file; reduced copies of a page are none."""
    file.seek(0)
    head = file.read(8)
    if b"+" in head[2:4]:  # BigTIFF
        head += file.read(8)
    directory, pages, seen = ImageFileDirectory_v2(head), [], set()
    place, number = directory.next, 0
    while place and place not in seen and number < _MOST_PAGES:
        seen.add(place)
        file.seek(place)
        directory.load(file)
        if not directory.get(ExifTags.Base.NewSubfileType, 0) & 1:
            pages.append(number)
        place, number = directory.next, number + 1
    return pages or [0]
