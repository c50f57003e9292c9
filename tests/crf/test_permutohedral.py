"""The lattice filter by value: by hand in one dimension, against the definition in two and five."""

import math

import numpy as np
import pytest
import tensorflow as tf
from exact import exact_filter

from kfcn.crf.permutohedral import (
    _elevation,
    _numbered,
    _simplices,
    bilateral_features,
    build_lattice,
    builtin_ops,
    lattice_filter,
)


def filtered(features, values, **options):
    lattice = build_lattice(tf.constant(features, tf.float32))
    return lattice_filter(lattice, tf.constant(values), **options).numpy()


def normalized_error(features, values, lattice_features=None):
    """Mean |lattice - exact| of the filters divided by their own sums, and both filters' arrays."""
    ones = np.ones((len(values), 1), np.float32)
    used = features if lattice_features is None else lattice_features
    ours = filtered(used, values) / filtered(used, ones)
    exact = exact_filter(features, values) / exact_filter(features, ones)
    return np.abs(ours - exact).mean(), ours, exact


def probabilities(logits):
    flat = logits.reshape(-1, logits.shape[-1])
    return np.asarray(tf.nn.softmax(flat))


def test_one_dimension_by_hand():
    # d = 1: vertices lie sqrt(3)/2 apart, here one under each of the two pixels. Both axes run
    # along the line, so the blur is [[1, 1/2], [1/2, 1]] twice, [[5/4, 1], [1, 5/4]], and the
    # factor is 1 / (1 + 1/2).
    kernel = filtered([[0.0, math.sqrt(3) / 2]], np.eye(2, dtype=np.float32))
    np.testing.assert_allclose(kernel, [[5 / 6, 4 / 6], [4 / 6, 5 / 6]], atol=1e-6)


def test_distant_pixels_do_not_meet():
    kernel = filtered([[0.0, 50.0], [0.0, 0.0]], np.eye(2, dtype=np.float32))
    assert kernel[0, 1] == kernel[1, 0] == 0
    assert kernel[0, 0] > 0.5


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_barycentric_weights(dimensions):
    rng = np.random.default_rng(0)
    features = rng.normal(0, 7, (dimensions, 500)).astype(np.float32)
    weights = _simplices(tf.constant(features)).weights.numpy()
    assert weights.shape == (500, dimensions + 1)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_weights_interpolate_the_position(dimensions):
    # The corners average to the pixel's place on the plane.
    rng = np.random.default_rng(1)
    features = rng.normal(0, 5, (dimensions, 200)).astype(np.float32)
    cells, moves, weights = (each.numpy() for each in _simplices(tf.constant(features)))
    place = _elevation(dimensions).astype(np.float64) / (dimensions + 1) @ features
    axes = np.eye(dimensions + 1)
    steps = axes[:-1] - axes[1:]  # (d, d + 1): what each axis adds to the differences
    corners = cells + np.cumsum([np.zeros_like(cells), *(steps[:, each] for each in moves)], 0)
    centre = (corners * weights.T[:, None]).sum(0)
    np.testing.assert_allclose(centre, place[:-1] - place[1:], atol=1e-5)
    # Every axis at most once, and the order matters.
    assert all(len(set(column)) == dimensions for column in moves.T)
    if dimensions > 1:
        turned = cells + np.cumsum([np.zeros_like(cells), *(steps[:, e] for e in moves[::-1])], 0)
        assert np.abs((turned * weights.T[:, None]).sum(0) - centre).max() > 0.1


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_corners_and_neighbours_by_counting(dtype):
    features = np.random.default_rng(2).normal(0, 3, (2, 60)).astype(np.float32)
    simplices = _simplices(tf.constant(features))
    corners, count, after = _numbered(simplices, 2, dtype)
    cells, moves, _ = (each.numpy().astype(int) for each in simplices)
    steps = [np.array(each) for each in ((1, 0), (-1, 1), (0, -1))]
    names, vertices = [], {}
    for pixel in range(60):
        here = cells[:, pixel]
        for corner in range(3):
            name = (pixel // 30, *here)  # the image is a part of the name
            names.append(vertices.setdefault(name, len(vertices)))
            if corner < 2:
                here = here + steps[moves[corner, pixel]]
    np.testing.assert_array_equal(np.reshape(corners, -1), names)
    assert count == len(vertices)
    for step, found in zip(steps, after, strict=True):
        expected = [vertices.get((i, *(z + step)), len(vertices)) for i, *z in vertices]
        np.testing.assert_array_equal(found, expected)
        assert 0 < np.mean(found == count) < 1


def test_two_dimensions_against_exact():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:30, :40] / 4.0
    features = np.stack([y.ravel(), x.ravel()])
    error, _, exact = normalized_error(features, rng.random((1200, 3)).astype(np.float32))
    assert error < 5e-3
    assert np.abs(exact - 0.5).mean() > 2 * error  # the filter has not flattened everything


# With widths of 160 and 3 and noise above the width of 3, pixels hardly meet and the lattice, which
# blurs through vertices that exist only near to pixels, is rough (mean error 6e-3 at noise 12).
@pytest.mark.parametrize(
    ("alpha", "beta", "noise", "other_alpha"), [(80.0, 13.0, 12.0, 20.0), (160.0, 3.0, 2.0, 20.0)]
)
def test_bilateral_against_exact(scene, alpha, beta, noise, other_alpha):
    image, logits, _ = scene(noise=noise)
    features = bilateral_features(image[None], alpha, beta).numpy()
    error, ours, exact = normalized_error(features, probabilities(logits))
    assert error < 2e-3
    assert (ours.argmax(1) == exact.argmax(1)).mean() >= 0.995
    # Control: another width is another filter.
    other = bilateral_features(image[None], other_alpha, beta).numpy()
    assert normalized_error(features, probabilities(logits), other)[0] > 5e-3


def test_height_of_the_kernel():
    # Without normalisation the lattice's gain is near to that of exp(-|f|^2 / 2), not equal to it.
    y, x = np.mgrid[:40, :40] / 4.0
    features = np.stack([y.ravel(), x.ravel()])
    ones = np.ones((1600, 1), np.float32)
    ratio = (filtered(features, ones) / exact_filter(features, ones)).reshape(40, 40)
    assert 0.85 < ratio[12:-12, 12:-12].min() <= ratio[12:-12, 12:-12].max() < 1.15


@pytest.mark.parametrize("builtin", [False, True])
def test_transpose_is_the_adjoint(scene, builtin):
    image, _, _ = scene(24, 32)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 24 * 32, 4)).astype(np.float32)
    features = bilateral_features(image[None], 20.0, 30.0)
    if builtin:
        with builtin_ops():
            lattice = build_lattice(features)
    else:
        lattice = build_lattice(features)

    def product(a, b):
        return np.sum(np.asarray(a, np.float64) * np.asarray(b, np.float64))

    left, right = (
        product(lattice_filter(lattice, x), y),
        product(x, lattice_filter(lattice, y, transpose=True)),
    )
    assert abs(left - right) < 1e-5 * abs(left)
    # Control: the order of the axes matters, the filter itself is not symmetric.
    assert abs(left - product(x, lattice_filter(lattice, y))) > 1e-4 * abs(left)


def test_segment_steps_equal_sparse_steps(scene):
    image, logits, _ = scene()
    features = bilateral_features(image[None], 80.0, 13.0)
    values = probabilities(logits)
    with builtin_ops():
        segments = build_lattice(features)
    sparse = build_lattice(features)
    assert type(segments) is not type(sparse)
    for transpose in (False, True):
        a, b = (np.asarray(lattice_filter(each, values, transpose)) for each in (sparse, segments))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transpose", [False, True])
def test_many_columns_are_filtered_in_parts(scene, transpose):
    image, _, _ = scene(24, 32)
    values = np.random.default_rng(3).random((24 * 32, 53)).astype(np.float32)  # 18, 18 and 17
    lattice = build_lattice(bilateral_features(image[None], 20.0, 30.0))
    whole = lattice_filter(lattice, values, transpose).numpy()
    for column in (0, 17, 18, 36, 52):
        alone = lattice_filter(lattice, values[:, column : column + 1], transpose).numpy()
        np.testing.assert_allclose(whole[:, column : column + 1], alone, rtol=1e-5)


def test_scaled_filter(scene):
    image, _, _ = scene(24, 32)
    rng = np.random.default_rng(4)
    before, after = rng.uniform(0.5, 2, (2, 24 * 32, 1)).astype(np.float32)
    values = rng.random((24 * 32, 3)).astype(np.float32)
    features = bilateral_features(image[None], 20.0, 30.0)
    with builtin_ops():
        segments = build_lattice(features)
    for lattice in (build_lattice(features), segments):
        for sides in ((before, after), (None, after), (before, None)):
            left, right = (1 if each is None else each for each in sides)
            scaled = lattice.scaled(*sides)
            for transpose, (first, last) in ((False, (left, right)), (True, (right, left))):
                expected = last * lattice_filter(lattice, first * values, transpose)
                found = lattice_filter(scaled, values, transpose)
                np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_images_of_a_batch_do_not_mix(scene):
    images = np.stack([scene(seed=seed)[0] for seed in (0, 1)])
    values = np.random.default_rng(0).random((2, 48 * 64, 3)).astype(np.float32)
    features = bilateral_features(images, 80.0, 13.0)
    both = lattice_filter(build_lattice(features, 2), values.reshape(-1, 3)).numpy()
    for image, value, part in zip(images, values, np.split(both, 2), strict=True):
        alone = filtered(bilateral_features(image[None], 80.0, 13.0), value)
        np.testing.assert_allclose(part, alone, rtol=1e-4, atol=1e-4)
    # Control: told that they are one image, the two meet.
    mixed = filtered(features, values.reshape(-1, 3))
    assert np.abs(mixed - both).max() > 1


def test_keys_that_do_not_fit_are_refused():
    features = np.random.default_rng(0).random((5, 10)).astype(np.float32) * 1e4
    with pytest.raises(tf.errors.InvalidArgumentError, match="larger kernel widths"):
        build_lattice(tf.constant(features))
