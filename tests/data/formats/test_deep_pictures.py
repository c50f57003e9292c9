"""Pictures of more than 8 bits, of several pages and of other bands than three."""

import dataclasses
import struct

import cv2
import numpy as np
import pytest
from drawn import mask, picture, save, write
from PIL import Image

from kfcn import data
from kfcn.data.formats.images import count_pages, read_image, read_size, value_range
from kfcn.errors import DataError, UsageError

GREY = picture()[..., 0].astype(np.uint16)


def test_twelve_bits_are_stretched_by_the_data_sets_own_rule(tmp_path):
    for index in range(12):
        save(tmp_path / f"images/p{index}.png", GREY * (16 if index else 2))
        save(tmp_path / f"labels/p{index}.png", mask())
    write(tmp_path / "classes.txt", "background\ncell\n")
    source = data.Source("folder", tmp_path)
    assert data.choose_stretch(source.open("train")) == (0, 4095)
    train, val = data.open_splits(source, ["train", "val"])
    assert train.stretch == val.stretch == (0, 4095)
    assert any("0 to 4095 become 0 to 255" in note for note in train.notes)
    index = next(i for i in range(len(train)) if not train.file_name(i).endswith("p0.png"))
    expected = np.round(GREY * 16.0 * 255 / 4095).astype(np.uint8)
    np.testing.assert_array_equal(train[index].image, np.repeat(expected[..., None], 3, axis=2))
    assert len(np.unique(train[index].image)) == len(np.unique(expected)) > 60
    # As 16 bits nearly nothing is left of it.
    assert len(np.unique(source.open("train")[index].image)) < 20
    # A stretch that is given is kept.
    given = dataclasses.replace(source, reading=data.Reading(stretch=(100, 1000)))
    assert data.open_splits(given, ["train"])[0].stretch == (100, 1000)


def test_a_part_of_a_split_is_stretched_as_well(tmp_path):
    for index in range(8):
        save(tmp_path / f"images/train/p{index}.png", GREY * 16)
        save(tmp_path / f"labels/train/p{index}.png", mask())
    write(tmp_path / "classes.txt", "background\ncell\n")
    (part,) = data.open_splits(data.Source("folder", tmp_path), ["train[!0/2]"])
    assert len(part) == 4 and part.stretch == (0, 4095)
    assert part[0].image.max() == round(int(GREY.max()) * 16 * 255 / 4095)


def test_pictures_of_eight_bits_are_left_as_they_are(pairs):
    source = data.Source("folder", pairs)
    assert data.choose_stretch(source.open("train")) is None
    assert data.open_splits(source, ["train"])[0].stretch is None
    path = source.open("train").image_file(0)
    np.testing.assert_array_equal(read_image(path, stretch=(0, 4095)), read_image(path))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_in_colour(tmp_path, suffix):
    deep = picture().astype(np.uint16) * 16 + 5
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), deep[..., ::-1])
    assert value_range(tmp_path / f"a.{suffix}") == (deep.min(), deep.max())
    found = read_image(tmp_path / f"a.{suffix}", stretch=(0, 4095))
    np.testing.assert_array_equal(found, np.round(deep * (255 / 4095)).astype(np.uint8))


def test_a_file_of_pages_is_refused_or_read_page_by_page(tmp_path):
    pages = [Image.fromarray(picture(seed)) for seed in range(3)]
    masks = [Image.fromarray(mask(value)) for value in (1, 0, 1)]
    for name, first in (("images/train/a.tif", pages), ("labels/train/a.tif", masks)):
        save(tmp_path / name, first[0], save_all=True, append_images=first[1:])
    write(tmp_path / "classes.txt", "background\ncell\n")
    assert count_pages(tmp_path / "images/train/a.tif") == 3
    with pytest.raises(DataError, match=r"a\.tif: .*3 pages.*--pages all"):
        data.check(data.load("folder", "train", tmp_path))
    reading = data.Reading(pages="all")
    train = data.load("folder", "train", tmp_path, reading=reading)
    assert [train.file_name(i) for i in range(3)] == [
        f"images/train/a_page{n}.tif" for n in (1, 2, 3)
    ]
    for index in range(3):
        np.testing.assert_array_equal(train[index].image, picture(index))
        np.testing.assert_array_equal(train[index].labels, mask((1, 0, 1)[index]))
    save(tmp_path / "labels/train/a.tif", masks[0], save_all=True, append_images=masks[1:2])
    with pytest.raises(DataError, match=r"has 3 pages and its label map .* has 2"):
        data.load("folder", "train", tmp_path, reading=reading)
    with pytest.raises(UsageError, match="pages 'some': expected one or all"):
        data.Reading(pages="some")
    with pytest.raises(UsageError, match="scenes has no such choice"):
        data.load("scenes", "train", reading=reading)


def test_an_animation_has_pages_and_a_thumbnail_in_a_tiff_is_none(tmp_path):
    frames = [Image.fromarray(picture(seed)) for seed in range(2)]
    save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"a\.gif: .*2 pages"):
        read_image(tmp_path / "a.gif")
    small = frames[0].resize((16, 12))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    save(tmp_path / "b.tif", frames[0], save_all=True, append_images=[small])
    assert count_pages(tmp_path / "b.tif") == 1
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), picture(0))


def test_heads_and_ranges_are_those_of_the_page_that_is_read(tmp_path):
    pages = [
        picture(seed).astype(np.uint16)[:rows, :, 0] + seed for seed, rows in ((1, 48), (2, 30))
    ]
    reduced = Image.fromarray(picture(3)).resize((16, 12))
    images = [Image.fromarray(page) for page in pages]
    for image in (reduced, *images):
        image.encoderinfo = {"tiffinfo": {254: int(image is reduced)}}
    save(tmp_path / "a.tif", images[0], save_all=True, append_images=[reduced, images[1]])
    save(tmp_path / "b.tif", reduced, tiffinfo={254: 1}, save_all=True, append_images=images)
    for name in ("a.tif", "b.tif"):
        for number, page in enumerate(pages):
            assert read_size(tmp_path / name, page=number) == page.shape
            assert value_range(tmp_path / name, page=number) == (page.min(), page.max())
            assert read_image(tmp_path / name, page=number).shape[:2] == page.shape
        with pytest.raises(DataError, match=r"2 pages; asked for number 3"):
            read_size(tmp_path / name, page=2)
    save(tmp_path / "c.tif", reduced, tiffinfo={254: 1}, save_all=True, append_images=images[:1])
    assert read_size(tmp_path / "c.tif") == read_image(tmp_path / "c.tif").shape[:2] == (48, 64)


def tiff(bands, height=2, width=3):
    """An uncompressed TIFF; the bands beyond grey or RGB are of unspecified meaning."""
    extra = bands - (3 if bands >= 3 else 1)
    colour = 2 if bands >= 3 else 1
    tags = [(256, 4, [width]), (257, 4, [height]), (258, 3, [8] * bands), (259, 3, [1]),
            (262, 3, [colour]), (273, 4, [512]), (277, 3, [bands]), (278, 4, [height]),
            (279, 4, [height * width * bands]), (284, 3, [1])]  # fmt: skip
    if extra:
        tags.append((338, 3, [0] * extra))
    directory, outside = struct.pack("<H", len(tags)), b""
    for tag, kind, values in tags:
        body = struct.pack(f"<{len(values)}{'HI'[kind == 4]}", *values)
        if len(body) > 4:
            place, outside = 300 + len(outside), outside + body
            body = struct.pack("<I", place)
        directory += struct.pack("<HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
    head = struct.pack("<2sHI", b"II", 42, 8) + directory + bytes(4)
    head = head.ljust(300, b"\0") + outside
    return head.ljust(512, b"\0") + bytes(range(height * width * bands))


def test_bands_that_would_be_lost_are_an_error(tmp_path):
    for bands in (5, 4, 2):
        (tmp_path / "a.tif").write_bytes(tiff(bands))
        with pytest.raises(DataError, match=rf"a\.tif: .*{bands} band.*choose the three bands"):
            read_image(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(tiff(3))  # the control
    assert read_image(tmp_path / "a.tif")[1, 1].tolist() == [12, 13, 14]
    save(tmp_path / "f.tif", np.zeros((4, 4), np.float32))
    with pytest.raises(DataError, match="floating-point pixels; expected 8 or 16 bits"):
        read_image(tmp_path / "f.tif")


@pytest.mark.parametrize("suffix", [".jfif", ".ppm", ".jp2", ".tga", ".PNG", ".JPG", ".bmp"])
def test_every_usual_suffix_is_a_picture(tmp_path, suffix):
    kind = {".jfif": "JPEG", ".jp2": "JPEG2000"}.get(suffix)
    save(tmp_path / f"images/train/a{suffix}", picture(), format=kind)
    save(tmp_path / "labels/train/a.png", mask())
    write(tmp_path / "classes.txt", "background\ncar\n")
    train = data.load("folder", "train", tmp_path)
    assert len(train) == 1 and train[0].image.shape == (48, 64, 3)
    if suffix not in (".jfif", ".JPG", ".jp2"):
        np.testing.assert_array_equal(train[0].image, picture())


def test_a_limit_of_memory_that_is_none_is_no_fault_of_a_deep_picture(tmp_path, monkeypatch):
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 300).save(tmp_path / "a.png")
    assert value_range(tmp_path / "a.png") == (0, 3300)
    monkeypatch.setenv("KFCN_IMAGE_MEMORY", "2 GB")
    with pytest.raises(UsageError, match="KFCN_IMAGE_MEMORY='2 GB': expected a number"):
        value_range(tmp_path / "a.png")
