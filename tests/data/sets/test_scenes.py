"""The drawn data set: what is promised of every picture."""

import hashlib
import time

import numpy as np
import pytest

from kfcn import data
from kfcn.data.sets.scenes import CLASSES, LENGTHS, SIDE


@pytest.fixture(scope="module")
def samples():
    val = data.load("scenes", "val")
    return [val[i] for i in range(len(val))]


def test_lengths_and_names():
    for split, length in LENGTHS.items():
        assert len(data.load("scenes", split)) == length
    train = data.load("scenes", "train")
    assert train.file_name(12) == train[12].name == "scenes/train/000012"
    assert train.file_name(-1) == "scenes/train/000999"
    with pytest.raises(IndexError):
        train[1000]


def test_every_picture_keeps_the_rules(samples):
    shapes = set()
    for image, labels, _ in samples:
        assert image.dtype == labels.dtype == np.uint8
        assert image.shape == (*labels.shape, 3)
        assert all(SIDE[0] <= side <= SIDE[1] for side in labels.shape)
        assert set(np.unique(labels)) <= {*range(len(CLASSES)), 255}
        assert (labels == 0).any() and (labels == 255).any()
        assert image.std() > 5
        shapes.add(labels.shape)
    assert len(shapes) > 50


def test_different_labels_never_touch(samples):
    """The ignore border lies between an object and all that is not that object."""
    for _, labels, _ in samples:
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            assert ((a == b) | (a == 255) | (b == 255)).all()


def test_all_classes_are_common_and_the_border_is_thin():
    counts = data.check(data.load("scenes", "val"))
    share = counts.pixels / counts.pixels.sum()
    assert 0.6 < share[0] < 0.9
    assert share[1:].min() > 0.01
    assert counts.ignored < 0.05 * counts.pixels.sum()


def test_colour_alone_does_not_tell_the_class(samples):
    """The mean colours of the classes lie close together, compared with their spread."""
    means = {c: [] for c in range(1, len(CLASSES))}
    for image, labels, _ in samples:
        for c in means:
            if (labels == c).any():
                means[c].append(image[labels == c].mean(0))
    centres = np.array([np.mean(m, 0) for m in means.values()])
    spread = np.mean([np.std(m, 0) for m in means.values()])
    assert np.std(centres, 0).mean() < 0.35 * spread


def test_a_picture_depends_on_seed_split_and_index_alone(samples):
    again = data.load("scenes", "val")[7]
    assert (again.image == samples[7].image).all() and (again.labels == samples[7].labels).all()

    def digest(sample):
        return hashlib.sha256(sample.image.tobytes()).hexdigest()

    others = [
        data.load("scenes", split, seed=seed)[index]
        for split, seed, index in (("val", 0, 7), ("val", 1, 7), ("test", 0, 7), ("val", 0, 8))
    ]
    assert len({digest(sample) for sample in others}) == 4


@pytest.mark.long
def test_drawing_takes_milliseconds():
    train = data.load("scenes", "train")
    start = time.process_time()
    for i in range(200):
        train[i]
    assert (time.process_time() - start) / 200 < 0.02  # about 0.0045 on a quiet core
