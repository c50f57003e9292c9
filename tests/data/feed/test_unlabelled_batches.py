"""Strong changes in NumPy, CutMix by hand, and batches that are a function of seed and step."""

import itertools

import cv2
import numpy as np
import pytest
from PIL import Image

from kfcn.data.feed.batches import Shares, uniform
from kfcn.data.feed.strong import Box, cutmix_box, strongly_changed
from kfcn.data.feed.unlabelled import (
    OWN,
    PASTED,
    pasted,
    picture_at,
    unlabelled_batches,
    unlabelled_names,
)
from kfcn.data.feed.views import Skipping
from kfcn.data.pictures import Pictures
from kfcn.errors import DataError
from kfcn.labels import Classes

CLASSES = Classes(("a", "b", "c"), ((0, 0, 0),) * 3)
CROP = (24, 32)


def colours(image, b=1.0, c=1.0, s=1.0, turns=0.0, grey=False):
    """The change of colours pixel by pixel, the hue as an angle in the plane across the greys."""
    x = image.astype(np.float64)
    mean = x.mean()
    own = x.mean(-1, keepdims=True)
    away = s * (x - own)
    u = np.array([2.0, -1.0, -1.0]) / np.sqrt(6)
    v = np.array([0.0, 1.0, -1.0]) / np.sqrt(2)
    plane = (away @ u) + 1j * (away @ v)
    plane = plane * np.exp(2j * np.pi * turns)
    away = plane.real[..., None] * u + plane.imag[..., None] * v
    y = b * (c * (own + away) + (1 - c) * mean)
    if grey:
        y = np.repeat(y.mean(-1, keepdims=True), 3, -1)
    return y.clip(0, 255)


IMAGE = np.random.default_rng(0).integers(60, 180, (9, 11, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0.9, 0, 0, 0, 0, 0.5, 0.9, 0), {}),
        ((0.1, 0.8, 0.5, 0.5, 0.5, 0.5, 0.9, 0), {"b": 1.3}),
        ((0.1, 0.5, 0.1, 0.5, 0.5, 0.5, 0.9, 0), {"c": 0.6}),
        ((0.1, 0.5, 0.5, 1.0, 0.5, 0.5, 0.9, 0), {"s": 1.5}),
        ((0.1, 0.5, 0.5, 0.5, 0.75, 0.5, 0.9, 0), {"turns": 0.125}),
        ((0.1, 0.2, 0.9, 0.7, 0.1, 0.5, 0.9, 0), {"b": 0.7, "c": 1.4, "s": 1.2, "turns": -0.2}),
        ((0.1, 0.2, 0.9, 0.7, 0.1, 0.1, 0.9, 0),
         {"b": 0.7, "c": 1.4, "s": 1.2, "turns": -0.2, "grey": True}),
        ((0.9, 0, 0, 0, 0, 0.1, 0.9, 0), {"grey": True}),
    ],
)  # fmt: skip
def test_colours_equal_numpy(numbers, expected):
    found = strongly_changed(IMAGE, np.array(numbers)).astype(float)
    # OpenCV keeps ten binary digits of a factor: 0.69 at most instead of 0.5.
    assert np.abs(found - colours(IMAGE, **expected)).max() <= 0.8
    seen = "turns" in expected and not expected.get("grey")
    other = {"turns": -expected["turns"]} if seen else {"b": 1.1}
    assert np.abs(found - colours(IMAGE, **expected | other)).max() > 2  # the control


def test_blur_is_gaussian():
    numbers = np.array([0.9, 0, 0, 0, 0, 0.5, 0.1, 0.5])
    found = strongly_changed(IMAGE, numbers)
    np.testing.assert_array_equal(found, cv2.GaussianBlur(IMAGE, (0, 0), 1.05))
    assert (found != IMAGE).any()
    assert (strongly_changed(IMAGE, np.array([0.9, 0, 0, 0, 0, 0.5, 0.6, 0.5])) == IMAGE).all()


def test_the_pasted_part_by_hand():
    """Area 0.02 + 0.38 * 0.5 = 0.21; ratio 1: sqrt(0.21) = 0.458 of each side."""
    assert cutmix_box((100, 200), np.array([0.5, 0, 0, 0, 0])) is None
    box = cutmix_box((100, 200), np.array([0.49, 0.5, 0.5, 0.0, 0.999999]))
    assert box == Box(slice(0, 46), slice(108, 200))
    # Height by width 1 / 0.3: 0.6 * sqrt(1 / 0.3) = 1.1 of the height is all of it.
    tall = cutmix_box((100, 200), np.array([0.0, 0.89473684, 1.0, 0.5, 0.5]))
    assert tall.rows == slice(0, 100)
    assert tall.columns.stop - tall.columns.start == round(200 * (0.36 * 0.3) ** 0.5)


def test_pasting_by_hand():
    own = np.zeros((2, 3, 3), np.uint8), np.array([[0, 0, 255], [0, 0, 255]], np.uint8)
    other = np.full((2, 3, 3), 9, np.uint8), np.array([[1, 1, 1], [255, 255, 255]], np.uint8)
    image, source = pasted(own, other, Box(slice(0, 2), slice(1, 3)))
    assert image[..., 0].tolist() == [[0, 9, 9], [0, 9, 9]]
    assert source.tolist() == [[0, 1, 1], [0, 255, 255]]
    assert not own[0].any() and own[1][0, 1] == 0  # it is somebody's partner
    image, source = pasted(own, other, None)
    assert not image.any() and source.tolist() == own[1].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five pictures, some of them smaller than the crop."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index, size in enumerate([(40, 50), (12, 60), (60, 20), (30, 33), (44, 40)]):
        pixels = rng.integers(0, 255, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{index}.png")
    return root


def read(folder, count, batch_size=4, first=0, shares=Shares(), dataset=None):  # noqa: B008
    dataset = dataset or Pictures(folder, CLASSES)
    stream = unlabelled_batches(dataset, batch_size, CROP, 7, first, (0.8, 1.4), shares)
    return [type(x)(*(part.numpy() for part in x)) for x in stream.take(count)]


def test_from_any_step_on_and_as_told(folder):
    whole = read(folder, 6)
    for found, expected in zip(read(folder, 3, first=3), whole[3:], strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert (whole[0].weak != whole[1].weak).any()
    for batch in whole:
        assert batch.weak.shape == batch.strong.shape == (4, *CROP, 3)
        assert batch.weak.dtype == batch.strong.dtype == np.float32
        assert batch.source.shape == (4, *CROP) and set(np.unique(batch.source)) <= {0, 1, 255}
        assert batch.partner.tolist() == [3, 0, 1, 2]
    sources = np.concatenate([batch.source for batch in whole])
    assert {0, 1, 255} == set(np.unique(sources))
    # The strong crop is made of the weak one: where nothing is changed, they are the same.
    same = [(b.weak[i] == b.strong[i]).all(-1).mean() for b in whole for i in range(4)]
    assert min(same) < 0.2


def test_a_strong_crop_is_made_of_the_weak_one_and_its_partner(folder):
    """Worked out again from the random numbers, for six batches."""
    for step, batch in enumerate(read(folder, 6)):
        numbers = [uniform(7, 4 * step + place, 2, 20) for place in range(4)]
        crops = [
            strongly_changed(w.astype(np.uint8), n[7:15])
            for w, n in zip(batch.weak, numbers, strict=True)
        ]
        for place in range(4):
            box, expected = cutmix_box(CROP, numbers[place][15:]), crops[place].copy()
            origin = np.full(CROP, OWN)
            if box:
                expected[box] = crops[place - 1][box]
                origin[box] = PASTED
            inside = batch.source[place] != 255
            np.testing.assert_array_equal(batch.source[place][inside], origin[inside])
            np.testing.assert_array_equal(batch.strong[place][inside], expected[inside])
            outside = batch.strong[place][batch.source[place] == 255]
            assert (outside == 117).all()


def test_every_picture_comes_once_in_an_epoch():
    stream = [picture_at(5, 3, number) for number in range(20)]
    epochs = [tuple(stream[i : i + 5]) for i in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 2


def test_the_names_are_those_of_the_pictures_in_the_batch(tmp_path):
    for index in range(5):  # the colour says which picture it is
        Image.fromarray(np.full((30, 40, 3), 50 * index, np.uint8)).save(tmp_path / f"{index}.png")
    found = []
    for step, batch in enumerate(read(tmp_path, 4, batch_size=3)):
        names = unlabelled_names(Pictures(tmp_path, CLASSES), 3, 7, step)
        assert names == [f"{colour / 50:.0f}.png" for colour in batch.weak[:, 0, 0, 0].tolist()]
        found += names
    assert len(set(found)) == 5


def test_fewer_pictures_than_places(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "one.png")
    (batch,) = read(tmp_path, 1, batch_size=3)
    assert batch.strong.shape == (3, *CROP, 3)
    (batch,) = read(tmp_path, 1, batch_size=1)
    assert batch.weak.shape == (1, *CROP, 3) and batch.partner.tolist() == [0]


@pytest.mark.parametrize(
    "ways", [(Shares(3, 2, 0), Shares(3, 1, 2)), (Shares(2, 1), Shares(2, 1, 1))]
)
def test_shares_of_all_replicas_are_the_batch(folder, ways):
    """And the partner of a crop is with it, though it be another replica's."""
    whole = read(folder, 3, batch_size=7)
    parts = [read(folder, 3 * s.here, batch_size=7, shares=s) for s in ways]
    for step, batch in enumerate(whole):
        shares = list(
            itertools.chain.from_iterable(
                part[s.here * step : s.here * (step + 1)]
                for part, s in zip(parts, ways, strict=True)
            )
        )
        for name in ("strong", "source"):
            joined = np.concatenate([getattr(x, name) for x in shares])
            np.testing.assert_array_equal(joined, getattr(batch, name))
        own = np.concatenate([x.weak[: len(x.strong)] for x in shares])
        np.testing.assert_array_equal(own, batch.weak)
        partners = np.concatenate([x.weak[x.partner] for x in shares])
        np.testing.assert_array_equal(partners, batch.weak[batch.partner])
        assert all(len(x.weak) == len(x.strong) + 1 for x in shares)


def test_a_picture_that_cannot_be_read(folder, tmp_path):
    """Without permission it stops; with it its places are padding, and the others as they were."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "2.png").write_bytes(b"gone")
    pictures = Pictures(tmp_path, CLASSES)
    with pytest.raises(DataError, match=r"2\.png: cannot be read as an image"):
        pictures[2]
    said = []
    seen = read(tmp_path, 5, dataset=Skipping(pictures, 1, said.append))
    assert len(said) == 1 and "2.png" in said[0]
    for step, (batch, usual) in enumerate(zip(seen, read(folder, 5), strict=True)):
        for place in range(4):
            if picture_at(5, 7, 4 * step + place) == 2:
                assert (batch.source[place] != OWN).all()
                assert (batch.weak[place] == 117).all()
            else:
                np.testing.assert_array_equal(batch.weak[place], usual.weak[place])
