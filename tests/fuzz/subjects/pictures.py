"""Damaged pictures and label maps."""

import contextlib
import functools
import io
from pathlib import Path

import numpy as np
from drawn import mask, picture
from mutations import damaged
from PIL import Image

from subjects.outcomes import READ, REFUSED, told


def encoded(array: np.ndarray, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(content, kind, **options)
    return content.getvalue()


@functools.cache
def pictures() -> list[bytes]:
    array, exif = picture(), Image.Exif()
    exif[0x0112] = 6
    deep = array[..., 0].astype(np.uint16) * 16
    pages = {"save_all": True, "append_images": [Image.fromarray(array)]}
    kinds = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "TGA", "JPEG2000")
    return [
        *(encoded(array, kind) for kind in kinds),
        encoded(array, "JPEG", progressive=True, exif=exif),
        encoded(array, "PNG", exif=exif),
        encoded(deep, "PNG"),
        encoded(deep, "TIFF"),
        encoded(array, "TIFF", **pages),
        encoded(np.dstack([array, array[..., 0]]), "PNG"),
    ]


def image(rng: np.random.Generator, folder: Path) -> str:
    from kfcn.data.formats.images import count_pages, read_head, read_image, value_range
    from kfcn.errors import KfcnError

    content = damaged(rng, pictures()[int(rng.integers(len(pictures())))])
    outcome = REFUSED
    for read in (count_pages, value_range):
        with contextlib.suppress(KfcnError):
            read(content, "x.png")
    try:
        found = read_image(content, "x.png")
        assert found.dtype == np.uint8 and found.shape[2:] == (3,), found.shape
        assert found.flags.c_contiguous or found.base is not None
        assert read_head(content, "x.png").size == found.shape[:2]
        np.testing.assert_array_equal(read_image(content, "x.png"), found)
        outcome = READ
    except KfcnError as error:
        told(error)
    return outcome


@functools.cache
def masks() -> list[tuple[bytes, np.ndarray]]:
    rng = np.random.default_rng(1)
    labels = mask(3)
    labels[::7, ::5] = rng.integers(0, 4, labels[::7, ::5].shape)
    palette = Image.fromarray(labels)
    palette.putpalette([(7 * i) % 256 for i in range(768)])
    black = mask()
    return [
        (encoded(labels, "PNG"), labels),
        (encoded(palette, "PNG"), labels),
        (encoded(palette, "PNG", bits=2), labels),
        (encoded(labels.astype(np.uint16), "PNG"), labels),
        (encoded(np.repeat(labels[..., None], 3, axis=2), "PNG"), labels),
        (encoded(Image.fromarray(black * 255).convert("1"), "PNG"), black),
        (encoded(labels, "TIFF"), labels),
        (encoded(labels, "BMP"), labels),
    ]


def label_map(rng: np.random.Generator, folder: Path) -> str:
    from kfcn.data.formats.label_maps import read_labels
    from kfcn.errors import KfcnError

    sound, labels = masks()[int(rng.integers(len(masks())))]
    np.testing.assert_array_equal(read_labels(sound, "x.png"), labels)
    content = damaged(rng, sound)
    try:
        found = read_labels(content, "x.png")
    except KfcnError as error:
        return told(error)
    assert found.dtype == np.uint8 and found.ndim == 2
    if content.startswith(b"\x89PNG\r\n\x1a\n"):  # its checksums let nothing else pass
        np.testing.assert_array_equal(found, labels)
    return READ
