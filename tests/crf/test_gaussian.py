"""The spatial Gaussian and the exact filter, by hand and against each other."""

import math

import numpy as np
import pytest
import tensorflow as tf
from exact import exact_filter

from kfcn.crf import gaussian
from kfcn.crf.gaussian import SpatialKernel, gaussian_taps, spatial_filter


def test_taps_by_hand():
    taps = gaussian_taps(1.0)
    np.testing.assert_allclose(
        taps, [math.exp(-i * i / 2) for i in (-4, -3, -2, -1, 0, 1, 2, 3, 4)], rtol=1e-6
    )
    assert len(gaussian_taps(3.0)) == 25
    assert len(gaussian_taps(0.3)) == 5  # 4 theta = 1.2 pixels, rounded up to 2


def test_impulse_by_hand():
    image = np.zeros((1, 3, 3, 2), np.float32)
    image[0, 0, 0, 1] = 1
    response = spatial_filter(tf.constant(image), 1.0).numpy()[0]
    a, b = math.exp(-0.5), math.exp(-2)
    np.testing.assert_allclose(
        response[..., 1], [[1, a, b], [a, a * a, a * b], [b, a * b, b * b]], rtol=1e-5
    )
    assert (response[..., 0] == 0).all()


def test_exact_filter_by_hand():
    # Two pixels at distance 2, and one far from both.
    filtered = exact_filter([[0.0, 2.0, 100.0]], [[1.0], [10.0], [100.0]], block=2)
    near = math.exp(-2)
    np.testing.assert_allclose(filtered[:, 0], [1 + 10 * near, 10 + near, 100], rtol=1e-12)


def test_spatial_filter_is_exact_up_to_truncation():
    values = np.random.default_rng(0).random((2, 20, 30, 3)).astype(np.float32)
    ours = spatial_filter(tf.constant(values), 3.0).numpy()
    y, x = np.mgrid[:20, :30] / 3.0
    for image, filtered in zip(values, ours, strict=True):
        exact = exact_filter([y.ravel(), x.ravel()], image.reshape(-1, 3)).reshape(20, 30, 3)
        np.testing.assert_allclose(filtered, exact, rtol=1e-3)
        # Control: a width 3 % off is seen.
        wrong = spatial_filter(tf.constant(image[None]), 3.1).numpy()[0]
        assert np.abs(wrong / exact - 1).max() > 1e-2


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("size", [(3, 5), (41, 90)])  # within one block of 32 rows; cut ones
def test_kernel_with_factors_against_whole_matrices(monkeypatch, slow, size):
    monkeypatch.setattr(gaussian, "_convolutions_are_slow", lambda: slow)
    values = np.random.default_rng(0).random((2, *size, 3)).astype(np.float32)
    y, x = (part.ravel() / 2.0 for part in np.mgrid[: size[0], : size[1]])
    matrix = np.exp(-0.5 * ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2))
    sums = matrix.sum(1)
    found = []
    for before, after in ((False, False), (False, True), (True, False), (True, True)):
        power = -0.5 if before and after else -1.0
        left, right = (sums**power if side else np.ones_like(sums) for side in (after, before))
        kernel = SpatialKernel.build(tf.constant(size), 2.0, before, after)
        assert bool(kernel.bands) == slow
        whole = left[:, None] * matrix * right
        for transpose in (False, True):
            ours = kernel.filter(tf.constant(values), transpose).numpy()
            product = whole.T if transpose else whole
            expected = [product @ image.reshape(-1, 3) for image in values]
            # The taps end at 4 widths, where the Gaussian's height is 3e-4.
            np.testing.assert_allclose(ours.reshape(2, -1, 3), expected, rtol=2e-3)
            found.append(ours)
    forward_only = SpatialKernel.build(tf.constant(size), 2.0, True, True, transpose=False)
    np.testing.assert_array_equal(forward_only.filter(tf.constant(values)), found[6])
    with pytest.raises(AssertionError):
        forward_only.filter(tf.constant(values), transpose=True)
    # Control: sides and factors matter.
    assert np.abs(found[2] / found[3] - 1).max() > 0.1
    assert np.abs(found[2] / found[6] - 1).max() > 0.05
