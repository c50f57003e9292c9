"""What to label next, by hand."""

import keras
import numpy as np
import pytest
from small_nets import TINY

from kfcn.errors import KfcnError
from kfcn.labelling.next_pictures import (
    choose,
    describer,
    description,
    picture_uncertainty,
    pixel_uncertainty,
)
from kfcn.nets.convnet import convnet
from kfcn.nets.fcn import fcn8s


def test_uncertainty_is_normalised_entropy():
    logits = np.array([[[0.0, 0.0], [100.0, 0.0], [np.log(3.0), 0.0]]], np.float32)
    quarter = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(2)
    np.testing.assert_allclose(pixel_uncertainty(logits), [[1.0, 0.0, quarter]], atol=1e-6)


def test_each_class_weighs_the_same_in_a_picture():
    logits = np.zeros((10, 10, 2), np.float32)
    logits[..., 0] = 100.0  # 99 sure pixels of class 0
    logits[0, 0] = (0.0, 1e-4)  # one that is class 1 by a hair
    assert picture_uncertainty(logits) == pytest.approx(0.5, abs=1e-3)


def unit(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_the_unsure_come_first_and_near_twins_late():
    uncertainty = [0.9, 0.89, 0.5, 0.1]
    descriptions = unit(0, 1, 90, 180)
    assert choose(uncertainty, descriptions, 4) == [0, 2, 3, 1]
    # Control: without its likeness to the first, the twin would be second.
    assert choose(uncertainty, unit(0, 120, 90, 180), 2) == [0, 1]


def test_what_is_like_a_labelled_picture_comes_late():
    uncertainty = [0.9, 0.5]
    assert choose(uncertainty, unit(0, 90), 1) == [0]
    assert choose(uncertainty, unit(0, 90), 1, labelled=unit(2)) == [1]
    assert choose(uncertainty, unit(0, 90), 9) == [0, 1]


def test_a_description_is_the_mean_of_the_deepest_features():
    keras.utils.set_random_seed(0)
    net = fcn8s(3, **TINY)
    body = describer(net)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    found = description(body, image)
    deep = np.asarray(body(image[None].astype("float32")))[0].mean((0, 1))
    np.testing.assert_allclose(found, deep / np.linalg.norm(deep), atol=1e-5)
    # A large picture is described by its small form.
    large = image.repeat(8, 0).repeat(8, 1)
    assert description(body, large).shape == found.shape == (1280,)


def test_a_net_without_a_backbone_is_refused():
    with pytest.raises(KfcnError, match="convnet has no layer score_fr"):
        describer(convnet(3))
