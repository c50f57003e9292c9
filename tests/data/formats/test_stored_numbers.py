"""The numbers and colours of masks and pictures in the ways that decoders change in silence."""

import io
import tracemalloc

import cv2
import numpy as np
import pytest
import raw_files
from drawn import mask, picture, save, shares, write
from PIL import Image

from kfcn import data
from kfcn.data.formats.images import read_head, read_image
from kfcn.data.formats.label_maps import read_labels
from kfcn.data.formats.rgb_masks import read_colours
from kfcn.errors import DataError

LABELS = np.random.default_rng(0).integers(0, 4, (48, 64)).astype(np.uint8)
GREYS = {(0, 0, 0): 0, (255, 255, 255): 1, (85, 85, 85): 2, (170, 170, 170): 3}
COLOURS = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2, (3, 2, 1): 3}


def encoded(array, kind, **options):
    content = io.BytesIO()
    Image.fromarray(array).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_numbers_of_few_and_many_bits(bits):
    labels = LABELS % 2 if bits == 1 else LABELS
    for content in (raw_files.png(labels, bits), raw_files.tiff(labels, bits)):
        np.testing.assert_array_equal(read_labels(content, "x"), labels)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_numbers_that_count_down_from_white_are_refused(bits):
    with pytest.raises(DataError, match=r"count down from white \(WhiteIsZero\).* as PNG"):
        read_labels(raw_files.tiff(LABELS, bits, photometric=0), "x")


def test_black_and_white_is_meant_as_it_is_shown():
    shown = LABELS % 2
    content = raw_files.tiff(1 - shown, 1, photometric=0)
    np.testing.assert_array_equal(read_labels(content, "x"), shown)
    colours = {(0, 0, 0): 0, (255, 255, 255): 1}
    np.testing.assert_array_equal(read_colours(content, colours), shown)
    content = raw_files.tiff(255 - 255 * shown, 8, photometric=0)
    np.testing.assert_array_equal(read_colours(content, colours), shown)


@pytest.mark.parametrize("white", [3, 100, 255, 1000, 65535])
def test_pgm_with_a_white_of_its_own(white):
    stored = LABELS.astype(">u2" if white > 255 else np.uint8)
    content = b"P5 64 48 %d\n" % white + stored.tobytes()
    np.testing.assert_array_equal(read_labels(content, "x"), LABELS)


def test_files_that_change_numbers_hold_no_labels():
    grey = np.repeat(LABELS[..., None], 3, axis=2)
    for content, what in (
        (encoded(LABELS, "TIFF", compression="jpeg"), "a TIFF compressed as JPEG"),
        (encoded(grey, "WEBP", quality=90), "a lossy WebP"),
        (encoded(grey, "AVIF"), "an AVIF"),
    ):
        with pytest.raises(DataError, match=f"{what} cannot hold labels, because it changes"):
            read_labels(content, "x")
    lossless = encoded(grey, "WEBP", lossless=True)
    np.testing.assert_array_equal(read_labels(lossless, "x"), LABELS)
    with_alpha = np.dstack([grey, np.full_like(LABELS, 255)])
    np.testing.assert_array_equal(
        read_labels(encoded(with_alpha, "WEBP", lossless=True), "x"), LABELS
    )


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_greys_of_classes_in_however_many_bits(bits):
    """A program that makes PNG files smaller stores the greys 0, 85, 170 and 255 in two bits."""
    white = 2**bits - 1
    stored = np.array([0, 3, 1, 2])[LABELS] * (white // 3)
    found = read_colours(raw_files.png(stored, bits), GREYS)
    np.testing.assert_array_equal(found, LABELS)
    # Where the greys are no colours of classes, the numbers are the labels.
    found = read_colours(raw_files.png(LABELS, bits), {(0, 0, 0): 0, (9, 9, 9): 1})
    np.testing.assert_array_equal(found, LABELS)


def test_colours_of_16_bits():
    colours = np.array(list(COLOURS))[LABELS]
    for numbers in (colours, colours * 257):
        found = read_colours(raw_files.png(numbers, 16, colour=2), COLOURS)
        np.testing.assert_array_equal(found, LABELS)
    for other in ((256, 0, 0), (0, 0, 256)):  # and not the bits of (0, 1, 0)
        colours[0, 0] = other
        content = raw_files.png(colours, 16, colour=2)
        with pytest.raises(DataError, match=rf"x: found the colour \({other[0]}, 0, {other[2]}\)"):
            read_colours(content, {**COLOURS, (0, 1, 0): 4}, name="x")


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_greys_that_are_none(kind):
    """Of whole and of fractional numbers: by their greys where all are, else as labels."""
    greys = {(0, 0, 0): 0, (9, 9, 9): 1}
    found = read_colours(encoded((LABELS % 2 * 9).astype(kind), "TIFF"), greys)
    np.testing.assert_array_equal(found, LABELS % 2)
    for wrong in (-1, 256, 0.5, np.nan, np.inf)[: 2 if kind is np.int32 else 5]:
        numbers = (LABELS % 2 * 9).astype(kind)
        numbers[0, 0] = wrong
        with pytest.raises(DataError, match=f"x: found label {wrong:g}; expected class indices"):
            read_colours(encoded(numbers, "TIFF"), greys, name="x")


@pytest.mark.parametrize("colours", [COLOURS, GREYS])
def test_the_memory_that_large_masks_take(colours):
    """Sorted, the colours of a picture of 20 megapixels took 0.9 GB, and two seconds."""
    labels = np.repeat(np.repeat(LABELS, 8, 0), 8, 1)
    pixels = np.array(list(colours), np.uint8)[labels]
    content = encoded(pixels if colours is COLOURS else pixels[..., 0], "PNG")
    np.testing.assert_array_equal(read_colours(content, colours), labels)
    tracemalloc.start()
    read_colours(content, colours)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * labels.size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_in_colours_is_never_turned_either(orientation):
    colours = np.array(list(COLOURS), np.uint8)[LABELS]
    content = raw_files.tiff(colours, 8, 2, orientation)
    np.testing.assert_array_equal(read_colours(content, COLOURS), LABELS)


def palette_folder(root, indices, palette):
    image = Image.fromarray(indices)
    image.putpalette(palette)
    save(root / "images/train/a.png", picture())
    save(root / "labels/train/a.png", image)
    write(root / "classes.txt", "background #000000\ncar #ff0000\n")
    return data.load("folder", "train", root)


def test_a_palette_that_contradicts_its_indices_is_refused(tmp_path):
    swapped = palette_folder(tmp_path / "a", 1 - mask(), [255, 0, 0, 0, 0, 0])
    with pytest.raises(DataError, match="the index 0 of its palette has the colour of class 1"):
        data.check(swapped)
    right = palette_folder(tmp_path / "b", mask(), [0, 0, 0, 255, 0, 0])
    other = palette_folder(tmp_path / "c", mask(), [9, 9, 9, 7, 0, 0])
    assert shares(right) == shares(other) == [81.771, 18.229]


def test_pictures_that_count_down_from_white_are_shown_as_they_are_meant():
    grey = picture()[..., 0]
    shown = np.repeat(255 - grey[..., None], 3, axis=2)
    for bits, factor in ((8, 1), (16, 257)):
        content = raw_files.tiff(grey.astype(int) * factor, bits, photometric=0)
        np.testing.assert_array_equal(read_image(content, "x"), shown)
    twelve = grey.astype(int) * 16
    content = raw_files.tiff(twelve, 16, photometric=0)
    expected = 255 - np.round(twelve * (255 / 4095))
    np.testing.assert_array_equal(read_image(content, "x", (0, 4095))[..., 1], expected)


def test_planes_and_bands_that_would_be_mixed_up_are_refused():
    deep = picture().astype(int) * 257
    np.testing.assert_array_equal(read_image(raw_files.tiff(deep, 16, 2), "x"), picture())
    with pytest.raises(DataError, match="16 bits with its colours in separate planes"):
        read_image(raw_files.tiff(deep, 16, 2, planar=2), "x")
    infrared = np.dstack([picture(), picture(1)[..., 0]])
    for extra in (None, 0):
        with pytest.raises(DataError, match="4 bands; expected grey, RGB or RGB with transp"):
            read_image(raw_files.tiff(infrared, 8, 2, extra=extra), "x")
    opaque = np.dstack([picture(), np.full((48, 64), 255)])
    np.testing.assert_array_equal(read_image(raw_files.tiff(opaque, 8, 2, extra=2), "x"), picture())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_kind(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = cv2.GaussianBlur(picture(), (0, 0), 3)
    options = {"lossless": True} if kind == "WEBP" else {} if kind in ("PNG", "TIFF") else {
        "quality": 95, "subsampling": "4:4:4"
    }  # fmt: skip
    content = encoded(stored, kind, exif=exif, **options)
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(stored, 1),
    }[orientation]  # fmt: skip
    found = read_image(content, "x")
    assert read_head(content, "x").size == found.shape[:2] == upright.shape[:2]
    tolerance = 8 if kind in ("JPEG", "AVIF") else 0
    assert np.abs(found.astype(int) - upright).max() <= tolerance
    if orientation > 1:  # the control: as it is stored it is another picture
        other = np.abs(found[:48, :48].astype(int) - stored[:48, :48]).max()
        assert other > 50
