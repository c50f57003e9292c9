"""The change of one picture against plain NumPy: resampling, colour, and labels at their place."""

import cv2
import numpy as np
import pytest

from kfcn.data.feed.augment import Augmentation, augment, whole_size

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (24, 36, 3), np.uint8)
LABELS = RNG.integers(0, 12, (24, 36), np.uint8)
STAY = np.array([0.5, 0.5, 0.5, 0.9, 0.5, 0.5, 0.5], np.float32)  # not mirrored, no colour


def only(scale, **colour):
    strengths = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, **colour}
    return Augmentation(scale=(scale, scale), flip=True, **strengths)


def positions(length, size):
    """Where the centres of the new pixels lie among the centres of the old ones."""
    return (np.arange(size) + 0.5) * length / size - 0.5


def bilinear(image, size):
    result = image.astype(np.float64)
    for axis, length in enumerate(size):
        place = positions(image.shape[axis], length).clip(0, image.shape[axis] - 1)
        first = np.floor(place).astype(int).clip(0, image.shape[axis] - 2)
        weight = (place - first).reshape([-1 if k == axis else 1 for k in range(image.ndim)])
        low, high = (result.take(first + k, axis) for k in (0, 1))
        result = low * (1 - weight) + high * weight
    return result


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.3, 2.0])
def test_images_are_resized_by_bilinear_interpolation(scale):
    image, labels = augment(IMAGE, LABELS, STAY, None, only(scale))
    size = whole_size(LABELS.shape, STAY, only(scale))
    assert size == (round(24 * scale), round(36 * scale)) == labels.shape == image.shape[:2]
    assert np.abs(image - bilinear(IMAGE, size)).max() < 1  # of 255; weights have 8 bits
    moved = bilinear(np.roll(IMAGE, 1, axis=1), size)
    assert np.abs(image - moved).mean() > 5  # the control


def test_below_one_half_no_pixel_is_left_out():
    """A third: the mean of 3x3 pixels, where bilinear would look at one of them alone."""
    image, _ = augment(IMAGE, LABELS, STAY, None, only(1 / 3))
    mean = IMAGE.reshape(8, 3, 12, 3, 3).mean((1, 3))
    assert np.abs(image - mean).max() <= 0.51
    assert np.abs(image - bilinear(IMAGE, (8, 12))).mean() > 20  # the control


@pytest.mark.parametrize("scale", [0.6, 0.75, 1.0, 1.3, 2.5])
def test_labels_are_those_of_the_pixel_whose_centre_is_nearest(scale):
    _, labels = augment(IMAGE, LABELS, STAY, None, only(scale))
    places = [positions(*pair) for pair in zip(LABELS.shape, labels.shape, strict=True)]
    rows, columns = (np.floor(place + 0.5).astype(int) for place in places)
    one_is_nearest = [np.abs(place % 1 - 0.5) > 1e-6 for place in places]
    np.testing.assert_array_equal(
        labels[np.ix_(*one_is_nearest)], LABELS[rows][:, columns][np.ix_(*one_is_nearest)]
    )


def test_labels_lie_where_the_image_does():
    """A bright spot and its label grow alike; a corner rule would shift the labels by half."""
    labels = np.zeros((9, 9), np.uint8)
    labels[4, 4] = 1
    image = np.repeat(labels[..., None] * 200, 3, 2)
    grown, found = augment(image, labels, STAY, None, only(5.0))
    assert [v.mean() for v in np.nonzero(found)] == [22, 22]  # the middle of 45
    weights = grown[..., 0] / grown[..., 0].sum()
    np.testing.assert_allclose((weights * np.arange(45)).sum(), 22, atol=1e-6)
    shrunk = cv2.resize(labels, (3, 3), interpolation=cv2.INTER_NEAREST)
    assert shrunk.max() == 0  # the control: it takes the pixels 0, 3 and 6
    assert augment(image, labels, STAY, None, only(1 / 3))[1][1, 1] == 1


def test_the_colour_map_is_the_documented_one():
    """Saturation, then contrast around the mean, then brightness, in floating point."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        uniform = np.concatenate([[0.5, 0.5, 0.5, 0.9], rng.random(3)]).astype(np.float32)
        strengths = {"brightness": 0.2, "contrast": 0.5, "saturation": 0.6}
        image, _ = augment(IMAGE, LABELS, uniform, None, only(1.0, **strengths))
        s, c, b = (
            k + v * (2 * u - 1)
            for k, v, u in zip((1, 1, 0), (0.6, 0.5, 51.0), uniform[4:].astype(float), strict=True)
        )
        grey = IMAGE.mean(-1, keepdims=True)
        saturated = s * IMAGE + (1 - s) * grey
        mean = saturated.mean((0, 1))
        expected = (c * saturated + (1 - c) * mean + b).clip(0, 255)
        # Coefficients are rounded to 1/1024.
        assert np.abs(image - expected).max() <= 0.5 + 3 * 255 / 2048
        assert np.abs(image - IMAGE.astype(float)).max() > 1  # the control


def test_a_mirrored_picture_is_mirrored_exactly():
    mirrored = STAY.copy()
    mirrored[3] = 0.1
    for crop in (None, (16, 20), (40, 40)):
        plain = augment(IMAGE, LABELS, STAY, crop, only(1.0))
        for ours, theirs in zip(
            augment(IMAGE, LABELS, mirrored, crop, only(1.0)), plain, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs[:, ::-1])


def test_the_bytes_are_golden_ones():
    """A change of OpenCV's rounding would change the batches of a run: be told of it."""
    image, labels = augment(IMAGE, LABELS, STAY * 0.4, (30, 30), Augmentation())
    assert (int(image.sum()), int(labels.sum())) == GOLDEN


GOLDEN = (294614, 64805)
