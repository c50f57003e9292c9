"""Damaged files are refused: a decoder would make the best of them."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from drawn import mask, picture, save
from PIL import Image

from kfcn.data.formats.images import read_head, read_image
from kfcn.data.formats.label_maps import read_labels
from kfcn.data.formats.rgb_masks import read_colours
from kfcn.errors import DataError, UsageError


def png(array):
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    return content.getvalue()


def jpeg(array, **options):
    content = io.BytesIO()
    Image.fromarray(array).save(content, "JPEG", **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["grey", "palette", "RGB"])
def test_a_png_with_one_wrong_bit_is_no_label_map(kind):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 9, (30, 40), dtype=np.uint8)  # noise: many bytes of data
    image = Image.fromarray(labels)
    if kind == "palette":
        image.putpalette(list(range(256)) * 3)
    content = io.BytesIO()
    (image.convert("RGB") if kind == "RGB" else image).save(content, "PNG")
    sound = content.getvalue()
    np.testing.assert_array_equal(read_labels(sound), labels)
    data = sound.index(b"IDAT")
    for place in (data + 20, len(sound) - 20, data + 4 + 200):
        broken = bytearray(sound)
        broken[place] ^= 4
        with pytest.raises(DataError, match=r"x\.png: cannot be read .*(checksum|no chunk|trunc)"):
            read_labels(bytes(broken), "x.png")
    zeroed = sound[: data + 60] + bytes(len(sound) - data - 60)
    with pytest.raises(DataError, match=r"x\.png: cannot be read"):
        read_labels(zeroed, "x.png")
    with pytest.raises(DataError, match="truncated"):
        read_labels(sound[:-12], "x.png")


def test_a_jpeg_ends_in_its_end_marker():
    sound = jpeg(picture(size=(200, 300)))
    expected = np.asarray(Image.open(io.BytesIO(sound)))
    assert np.abs(read_image(sound).astype(int) - expected).max() <= 3
    half = len(sound) // 2
    for broken in (sound[:half], sound[:half] + bytes(half), sound[:-2]):
        with pytest.raises(DataError, match="end marker FFD9 is missing"):
            read_image(broken, "x.jpg")
    # What a camera writes after the picture is none of it.
    np.testing.assert_array_equal(read_image(sound + b"maker's own data"), read_image(sound))
    progressive = jpeg(picture(size=(200, 300)), progressive=True)
    assert read_image(progressive).shape == (200, 300, 3)
    with pytest.raises(DataError):
        read_image(progressive[: len(progressive) * 2 // 3], "x.jpg")


@pytest.mark.parametrize("orientation", range(1, 12))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_the_size_agrees_with_the_picture(tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture(size=(20, 30))
    options = {"tiffinfo": {0x0112: orientation}} if format == "TIFF" else {"exif": exif}
    path = save(tmp_path / "a", Image.fromarray(stored), format=format, **options)
    image = read_image(path)
    head = read_head(path)
    assert head.size == image.shape[:2] == ((30, 20) if 5 <= orientation <= 8 else (20, 30))
    assert head.orientation == (orientation if orientation <= 8 else 1)
    turned = {
        2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1), 7: np.rot90(stored, 2).transpose(1, 0, 2), 8: np.rot90(stored),
    }.get(orientation, stored)  # fmt: skip
    if format != "JPEG":
        np.testing.assert_array_equal(image, turned)


def test_a_mask_is_never_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.png", Image.fromarray(mask()), exif=exif)
    save(tmp_path / "a.tif", Image.fromarray(mask()), tiffinfo={0x0112: 6})
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(read_labels(tmp_path / name), mask())


def test_a_pipe_is_no_picture_and_nobody_waits(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for read in (read_image, read_labels, read_head):
        with pytest.raises(DataError, match=r"a\.png: .*is a pipe or a device, not a file"):
            read(tmp_path / "a.png")


def header_only(height, width):
    """A PNG that is whole by its chunks and says that it is of this size, in a few bytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b"")


def test_memory_is_the_limit_and_not_the_number_of_pixels(tmp_path, monkeypatch):
    # 200 megapixels of one bit: Pillow's own limit is at 179.
    save(tmp_path / "large.png", Image.new("1", (20000, 10000)))
    monkeypatch.setenv("KFCN_IMAGE_MEMORY", str(200_000_000))
    assert read_head(tmp_path / "large.png").size == (10000, 20000)
    assert read_labels(tmp_path / "large.png").shape == (10000, 20000)
    monkeypatch.setenv("KFCN_IMAGE_MEMORY", "199999999")
    with pytest.raises(DataError, match=r"10000x20000 .*0\.2 GiB .*KFCN_IMAGE_MEMORY"):
        read_labels(tmp_path / "large.png")
    monkeypatch.setenv("KFCN_IMAGE_MEMORY", "2 GB")
    for read in (read_image, read_labels, lambda file: read_colours(file, {(0, 0, 0): 0})):
        with pytest.raises(UsageError, match="KFCN_IMAGE_MEMORY='2 GB': expected a number"):
            read(tmp_path / "large.png")
    monkeypatch.delenv("KFCN_IMAGE_MEMORY")
    for read in (read_image, read_labels):
        with pytest.raises(DataError, match=r"bomb\.png: .*60000x60000 pixels would take .* GiB"):
            read(header_only(60000, 60000), "bomb.png")
