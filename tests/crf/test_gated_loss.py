"""The gated CRF loss against sums that are written out pair by pair."""

import numpy as np
import pytest
import tensorflow as tf

from kfcn.crf.gated_loss import SIGMA_RGB, SIGMA_XY, gated_crf_loss


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def averaged(maps, step):
    b, h, w, c = maps.shape
    return maps.reshape(b, h // step, step, w // step, step, c).mean((2, 4))


def energy(images, logits, radius, step):
    share, colours = averaged(softmax(logits), step), averaged(images, step) / 255
    batch, height, width = share.shape[:3]
    total = 0.0
    for b in range(batch):
        for y, x in np.ndindex(height, width):
            for v, u in np.ndindex(height, width):
                near = max(abs(y - v), abs(x - u)) <= radius
                if near and (y, x) != (v, u):
                    place = ((y - v) ** 2 + (x - u) ** 2) / (2 * SIGMA_XY**2)
                    colour = np.sum((colours[b, y, x] - colours[b, v, u]) ** 2)
                    kernel = np.exp(-place - colour / (2 * SIGMA_RGB**2))
                    total += kernel * (1 - share[b, y, x] @ share[b, v, u])
    return total / (batch * height * width)


def batch(height, width, classes=3):
    rng = np.random.default_rng(0)
    images = np.clip(rng.normal(128, 30, (2, height, width, 3)), 0, 255)
    return images, rng.normal(size=(2, height, width, classes)) * 2


@pytest.mark.parametrize(
    ("size", "radius", "step"), [((6, 7), 2, 1), ((5, 4), 5, 1), ((8, 12), 1, 2)]
)
def test_value_and_gradient(size, radius, step):
    images, logits = batch(*size)
    given = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = gated_crf_loss(tf.constant(images, tf.float32), given, radius, step)
    exact = energy(images, logits, radius, step)
    assert float(value) == pytest.approx(exact, rel=1e-5)
    assert abs(energy(images, logits, radius + 1, step) - exact) > 1e-2 or min(size) <= radius
    gradient = tape.gradient(value, given).numpy()
    for index in [(0, 0, 0, 0), (1, 2, 3, 1), (0, size[0] - 1, size[1] - 1, 2)]:
        moved = [logits.copy(), logits.copy()]
        moved[0][index] += 1e-4
        moved[1][index] -= 1e-4
        up, down = (energy(images, each, radius, step) for each in moved)
        assert gradient[index] == pytest.approx((up - down) / 2e-4, rel=1e-3, abs=1e-6)


def test_by_hand():
    """Two pixels of one colour that are sure of different classes, then of the same one."""
    image = np.full((1, 1, 2, 3), 100.0, np.float32)
    logits = np.array([[[[50.0, 0.0], [0.0, 50.0]]]], np.float32)
    apart = float(gated_crf_loss(image, logits, radius=1, step=1))
    assert apart == pytest.approx(np.exp(-1 / (2 * SIGMA_XY**2)), rel=1e-5)
    assert float(gated_crf_loss(image, logits[:, :, [0, 0]], radius=1, step=1)) == 0
    image[0, 0, 1] = 200  # another colour: nothing pulls
    assert float(gated_crf_loss(image, logits, radius=1, step=1)) < 1e-6


def test_sizes_that_the_step_does_not_divide_and_unknown_ones():
    images, logits = batch(11, 10)
    known = float(gated_crf_loss(tf.constant(images, tf.float32), tf.constant(logits, tf.float32)))
    spec = [tf.TensorSpec((None, None, None, n)) for n in (3, 3)]
    traced = tf.function(gated_crf_loss, input_signature=spec)
    assert float(traced(images.astype("f"), logits.astype("f"))) == pytest.approx(known, rel=1e-5)
    assert 0 < known < 120
