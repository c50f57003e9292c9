"""Scores of labels and regions, by hand."""

import numpy as np
import pytest

from kfcn.labelling.suspects import (
    average_precision,
    own_probabilities,
    picture_score,
    regions,
)


def logits_of(shares):
    return np.log(np.asarray(shares, np.float32))


def test_own_probabilities_are_those_of_the_labels():
    shares = [[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [[0.25, 0.25, 0.5], [0.3, 0.3, 0.4]]]
    labels = np.array([[0, 0], [2, 255]], np.uint8)
    found = own_probabilities(logits_of(shares), labels)
    np.testing.assert_allclose(found, [[0.7, 0.1], [0.5, 1.0]], atol=1e-6)


def test_the_picture_score_is_the_soft_minimum():
    own = np.array([[1.0, 0.5, 0.0]])
    # Weights exp((1 - s) / t) by hand at t = 0.5: e^0, e^1, e^2.
    e = np.e
    expected = (1.0 * 1 + 0.5 * e + 0.0 * e**2) / (1 + e + e**2)
    assert picture_score(own, 0.5) == pytest.approx(expected, rel=1e-12)
    assert picture_score(own, 1e-3) == pytest.approx(0.0, abs=1e-9)  # the minimum
    assert picture_score(own, 1e6) == pytest.approx(0.5, abs=1e-6)  # the mean
    # A few surely wrong pixels weigh more than many that are a little unsure.
    few = np.ones((100, 100))
    few[:5, :5] = 0.0
    assert picture_score(few) < picture_score(np.full((100, 100), 0.9))


def test_regions_are_where_the_net_is_sure_of_another_class():
    labels = np.zeros((20, 30), np.uint8)
    labels[:, 20:] = 1
    shares = np.zeros((20, 30, 3), np.float32)
    shares[...] = (0.98, 0.01, 0.01)
    shares[:, 20:] = (0.01, 0.98, 0.01)
    shares[2:8, 3:9] = (0.1, 0.1, 0.8)  # 36 pixels labelled 0, seen as 2
    shares[12:16, 22:27] = (0.9, 0.05, 0.05)  # 20 pixels labelled 1, seen as 0
    shares[0, 0] = (0.0, 1.0, 0.0)  # a speck
    shares[17:20, :12] = (0.4, 0.45, 0.15)  # unsure: contradicts nothing
    first, second = regions(7, logits_of(np.maximum(shares, 1e-6)), labels)
    assert (first.picture, first.label, first.seen, first.pixels) == (7, 1, 0, 20)
    assert first.box == (22, 12, 27, 16)
    assert first.own == pytest.approx(0.05, abs=1e-5)
    assert first.score == pytest.approx(np.sqrt(20) * np.log(0.9 / 0.05), rel=1e-4)
    assert (second.label, second.seen, second.box) == (0, 2, (3, 2, 9, 8))
    assert second.score == pytest.approx(np.sqrt(36) * np.log(8), rel=1e-4)
    assert second.score < first.score
    labels[12:16, 22:27] = 255  # nobody can contradict "ignore"
    assert [r.label for r in regions(7, logits_of(np.maximum(shares, 1e-6)), labels)] == [0]


def test_average_precision_by_hand():
    scores, wrong = [0.9, 0.8, 0.7, 0.6], [True, False, True, False]
    assert average_precision(scores, wrong) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, [False, False, False, True]) == pytest.approx(0.25)
    assert np.isnan(average_precision(scores, [False] * 4))
