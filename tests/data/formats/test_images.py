"""Files of every kind that people have, written here and read back by value."""

import re

import numpy as np
import pytest
from PIL import Image

from kfcn.data.formats.images import read_image, read_size
from kfcn.data.formats.label_maps import read_labels
from kfcn.data.listing import existing, refuse_no_masks
from kfcn.errors import DataError, UsageError
from kfcn.saved import model_path

LABELS = np.array([[0, 1, 2], [3, 2, 255]], np.uint8)


def palette_png(path, labels):
    image = Image.fromarray(labels, "P") if labels.ndim == 2 else labels
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [7] * (252 * 3))
    image.save(path)


def test_a_palette_png_gives_its_indices_and_not_grey_values(tmp_path):
    palette_png(tmp_path / "a.png", LABELS)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), LABELS)
    # The control: what a decoder that goes through the colours would have given.
    grey = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert grey[0].tolist() == [0, 38, 75]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palette_pngs_of_few_bits(tmp_path, bits):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 2**bits
    image = Image.fromarray(labels, "P")
    image.putpalette([9, 9, 9] * 2**bits)
    image.save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_pngs_of_few_bits_give_the_stored_numbers(tmp_path, bits):
    labels = np.arange(16, dtype=np.uint8).reshape(2, 8) % 2**bits
    write_grey_png(tmp_path / "a.png", labels, bits)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)
    if bits == 4:  # the control: Pillow alone stretches them
        assert np.asarray(Image.open(tmp_path / "a.png")).max() == 255


def write_grey_png(path, values, bits):
    """A PNG of colour type 0 with 1, 2 or 4 bits, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    height, width = values.shape
    spread = np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :]
    rows = np.packbits(spread.reshape(height, -1), axis=-1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def test_labels_in_grey_of_8_and_16_bits(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "a.png")
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), LABELS)
    np.testing.assert_array_equal(read_labels(tmp_path / "b.png"), LABELS)
    Image.fromarray(LABELS.astype(np.uint16) * 257).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"c\.png: found label 65535; expected .* 0 to 255"):
        read_labels(tmp_path / "c.png")


@pytest.mark.parametrize(
    ("mode", "told"),
    [("RGB", "RGB colours"), ("RGBA", "RGBA colours"), ("LA", r"grey with transparency \(LA\)")],
)
def test_labels_in_colour_are_refused(tmp_path, mode, told):
    Image.new(mode, (3, 2), (9, 0, 7, 128)[-len(mode) :]).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png: .* stored as {told}; expected one class index"):
        read_labels(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 90, (90, 90, 90)),
        ("1", 1, (255, 255, 255)),
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),  # transparent: white
        ("LA", (40, 255), (40, 40, 40)),
        ("I;16", 40 * 257, (40, 40, 40)),
    ],
)
def test_images_of_every_mode_become_rgb(tmp_path, mode, colour, expected):
    Image.new(mode, (3, 2), colour).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8 and image.shape == (2, 3, 3)
    assert (image == expected).all()


def test_palette_and_cmyk_images(tmp_path):
    palette_png(tmp_path / "a.png", np.array([[1, 3]], np.uint8))
    assert read_image(tmp_path / "a.png").tolist() == [[[128, 0, 0], [128, 128, 0]]]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "b.jpg")
    assert np.abs(read_image(tmp_path / "b.jpg") - np.array([255.0, 0, 0])).max() <= 3


def test_the_orientation_of_a_phones_photo_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    stored = np.zeros((4, 6, 3), np.uint8)
    stored[0, 0] = 200  # the stored top left is the shown top right
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (6, 4, 3)
    assert np.argwhere(image[..., 0]).tolist() == [[0, 3]]


@pytest.mark.parametrize("read", [read_image, read_labels])
def test_files_that_cannot_be_read_are_named(tmp_path, read):
    good = tmp_path / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8)).save(good)
    (tmp_path / "short.png").write_bytes(good.read_bytes()[:900])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"short\.png: cannot be read as .*truncated"):
        read(tmp_path / "short.png")
    with pytest.raises(DataError, match=r"text\.png: .*not a known image format"):
        read(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"none\.png: .*no such file"):
        read(tmp_path / "none.png")


@pytest.mark.parametrize("read", [read_image, read_labels, read_size])
def test_empty_files_and_links_to_nothing_are_called_so(tmp_path, read):
    gone = tmp_path / "gone/x.png"
    for suffix in (".png", ".jpg"):
        empty, link = tmp_path / f"empty{suffix}", tmp_path / f"link{suffix}"
        empty.write_bytes(b"")
        with pytest.raises(DataError, match=r"empty\.\w+: cannot be read as .* \(it is empty\)$"):
            read(empty)
        link.symlink_to(gone)
        with pytest.raises(DataError) as caught:
            read(link)
        told = f"(it is a link to {gone.resolve()}, which does not exist)"
        assert str(caught.value).startswith(f"{link}: ") and str(caught.value).endswith(told)
    with pytest.raises(DataError, match=r"\(it is empty\)$"):
        read(b"", "a record")


def test_pairs_that_are_links_to_nothing_are_called_so(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "mask.jpg").symlink_to(tmp_path / "gone.jpg")
    gone = (tmp_path / "gone.jpg").resolve()
    told = re.escape(f"it is a link to {gone}, which does not exist")
    with pytest.raises(DataError, match=rf"1 pair with 1 missing file: \S+mask\.jpg \({told}\);"):
        existing([(tmp_path / "a.png", tmp_path / "mask.jpg")], tmp_path)
    with pytest.raises(DataError, match=rf"mask\.jpg: cannot be read as a label map \({told}\)$"):
        refuse_no_masks(tmp_path, [tmp_path / "mask.jpg"])
    with pytest.raises(UsageError, match=rf"mask\.jpg: {told}; expected a \.keras model"):
        model_path(tmp_path / "mask.jpg")


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_have_the_values_that_pillow_gives(tmp_path, mode, options):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    image = Image.fromarray(pixels).resize((131, 97)).convert(mode)
    image.save(tmp_path / "a.jpg", quality=85, **options)
    with Image.open(tmp_path / "a.jpg") as stored:
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)
    np.testing.assert_array_equal(read_image((tmp_path / "a.jpg").read_bytes()), expected)
    assert (np.asarray(image.convert("RGB")) != expected).any()  # the control: it is lossy


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_jpeg_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:8, :8] = 200  # the stored top left
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape[:2] == read_size(tmp_path / "a.jpg")
    assert image.shape[:2] == ((32, 48) if orientation < 5 else (48, 32))
    rows, columns = np.nonzero(image[..., 0] > 100)
    corner = rows.mean() > image.shape[0] / 2, columns.mean() > image.shape[1] / 2
    bottom, right = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0)}.get(
        orientation, {5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}.get(orientation)
    )
    assert corner == (bottom, right)


@pytest.mark.parametrize("order", ["little", "big"])
def test_an_orientation_of_four_bytes_is_read(tmp_path, order):
    """Its value fills the field: in big-endian files the first two bytes of it are zero."""
    tag, long, one = 0x0112, 4, 1
    entry = tag.to_bytes(2, order) + long.to_bytes(2, order) + one.to_bytes(4, order)
    head = b"II*\0" if order == "little" else b"MM\0*"
    block = head + (8).to_bytes(4, order) + one.to_bytes(2, order)
    block += entry + (6).to_bytes(4, order) + bytes(4)
    Image.new("RGB", (48, 32)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
    assert read_image(tmp_path / "a.jpg").shape == (48, 32, 3)
    assert read_size(tmp_path / "a.jpg") == (48, 32)


def test_a_jpeg_that_ends_too_early_is_named(tmp_path):
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    for length in (30, 300, len(content) // 2, len(content) - 2):
        (tmp_path / "a.jpg").write_bytes(content[:length])
        with pytest.raises(DataError, match=r"a\.jpg: cannot be read as an image \(\w.*\)$"):
            read_image(tmp_path / "a.jpg")


def test_labels_are_the_stored_numbers_whatever_the_file_says_of_their_colour(tmp_path):
    """Gamma, a transparent value, an orientation: of a picture, not of class indices."""
    import struct
    import zlib

    Image.fromarray(LABELS).save(tmp_path / "a.png", transparency=2)
    content = (tmp_path / "a.png").read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 3
    for kind, body in ((b"gAMA", struct.pack(">I", 22727)), (b"eXIf", exif.tobytes()[6:])):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        chunk = struct.pack(">I", len(body)) + kind + body + crc
        content = content[:33] + chunk + content[33:]
    (tmp_path / "a.png").write_bytes(content)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), LABELS)
    with Image.open(tmp_path / "a.png") as image:
        assert image.getexif()[0x0112] == 3 and "gamma" in image.info
