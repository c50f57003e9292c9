import numpy as np
import pytest


def make_scene(height=48, width=64, classes=5, seed=0, noise=12.0):
    """Coloured shapes on a background, and logits that know them blurred and with noise.

    Returns image float32 (H, W, 3) of whole numbers in 0..255, logits float32 (H, W, C), labels.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), int)
    for shape in range(2 * classes):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(height / 10, height / 4), rng.uniform(width / 10, width / 4)
        labels[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = shape % classes
    colours = rng.uniform(20, 235, (classes, 3))
    image = colours[labels] + rng.normal(0, noise, (height, width, 3))
    image = np.clip(image, 0, 255).round().astype(np.float32)
    blurred = np.eye(classes)[labels]
    for axis in (0, 1):  # a box of 5 pixels, twice
        for _ in range(2):
            blurred = sum(np.roll(blurred, shift, axis) for shift in range(-2, 3)) / 5
    logits = 4 * blurred + rng.normal(0, 0.5, blurred.shape)
    return image, logits.astype(np.float32), labels


@pytest.fixture(scope="session")
def scene():
    return make_scene
