"""A folder of pictures without labels: what is found in it, how it is read, what is refused."""

import numpy as np
import pytest
from PIL import Image

from kfcn.data.pictures import Pictures, check_pictures
from kfcn.data.reading import Reading
from kfcn.errors import DataError, UsageError
from kfcn.labels import Classes

CLASSES = Classes(("a", "b"), ((0, 0, 0),) * 2)
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def save(path, pixels=PIXELS, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **more)


def test_all_pictures_below_the_folder(tmp_path):
    save(tmp_path / "b.png")
    save(tmp_path / "deep" / "er" / "a.PNG")
    save(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("x")
    found = Pictures(tmp_path, CLASSES)
    assert [found.file_name(i) for i in range(len(found))] == ["b.png", "deep/er/a.PNG"]
    assert found.notes == (f"{tmp_path}: left out 1 file of another kind: notes.txt",)
    image, labels, name = found[1]
    np.testing.assert_array_equal(image, PIXELS)
    assert labels.shape == (4, 6) and not labels.any() and name == "deep/er/a.PNG"
    assert found.size(0) == (4, 6)
    check_pictures(found)


def test_they_are_read_like_those_of_a_data_set(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    save(tmp_path / "phone.png", exif=exif)
    deep = np.array([[0, 1000], [2000, 4095]], np.uint16)
    save(tmp_path / "deep.png", deep)
    found = Pictures(tmp_path, CLASSES, Reading(stretch=(0, 4095)))
    assert found[0].image[..., 0].tolist() == [[0, 62], [125, 255]]
    np.testing.assert_array_equal(found[1].image, np.rot90(PIXELS, -1))
    assert Pictures(tmp_path, CLASSES)[0].image.max() == 16  # the control: as if of 16 bits


def test_pages(tmp_path):
    pages = [Image.fromarray(PIXELS + shift) for shift in (0, 100)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    save(tmp_path / "z.png")
    with pytest.raises(DataError, match=r"stack\.tif: .*\(2 pages; .* --pages all"):
        Pictures(tmp_path, CLASSES)[0]
    found = Pictures(tmp_path, CLASSES, Reading(pages="all"))
    names = [found.file_name(i) for i in range(len(found))]
    assert names == ["stack_page1.tif", "stack_page2.tif", "z.png"]
    np.testing.assert_array_equal(found[1].image, PIXELS + 100)


def test_what_is_no_folder_of_pictures_is_told(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        Pictures(tmp_path / "nowhere", CLASSES)
    with pytest.raises(UsageError, match=r"no images; expected pictures to learn from"):
        Pictures(tmp_path, CLASSES)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"no images, only other files: notes\.txt"):
        Pictures(tmp_path, CLASSES)
    (tmp_path / "bad.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"bad\.jpg: cannot be read as an image"):
        check_pictures(Pictures(tmp_path, CLASSES))


def test_the_fingerprint_is_of_names_and_sizes_not_of_the_place(tmp_path):
    for name in ("here", "there"):
        save(tmp_path / name / "a.png")
    here, there = (Pictures(tmp_path / name, CLASSES) for name in ("here", "there"))
    assert here.fingerprint() == there.fingerprint()
    save(tmp_path / "there" / "b.png")
    assert here.fingerprint() != Pictures(tmp_path / "there", CLASSES).fingerprint()
