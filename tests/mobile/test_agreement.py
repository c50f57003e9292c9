import numpy as np
import pytest
from kfcn_mobile.agreement import (
    add_counts,
    boundary_band,
    confidence_error,
    confusion,
    count_agreement,
    mean_iou,
    share,
)
from kfcn_mobile.report.pictures import colour

# Two classes, an edge between columns 4 and 5; the file under test is wrong in three pixels.
EXPECTED = np.zeros((2, 10), np.uint8)
EXPECTED[:, 5:] = 1
LABELS = EXPECTED.copy()
LABELS[0, 0] = 1  # away from the edge, unsure
LABELS[0, 4] = 1  # at the edge, sure
LABELS[1, 7] = 0  # at the edge, unsure
MARGIN = np.full((2, 10), 2.0, np.float32)
MARGIN[0, 0] = MARGIN[1, 7] = 1.0  # not above 1


def test_boundary_band_by_hand():
    row = np.array([[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]], np.uint8)
    assert boundary_band(row, 1).tolist() == [[False] * 4 + [True] * 2 + [False] * 4]
    assert boundary_band(row, 3).tolist() == [[False] * 2 + [True] * 6 + [False] * 2]
    assert not boundary_band(np.zeros((4, 4), np.uint8)).any()


def test_confidence_error_by_hand():
    # Large logits: their powers alone would be infinite.
    logits = np.log(np.array([[1.0, 1.0, 2.0], [3.0, 1.0, 0.5]])) + 1000
    given = np.array([[0.25, 0.25, 0.5], [6 / 9, 2 / 9, 1 / 9]])
    assert confidence_error(given, logits) < 1e-12
    given[1, 2] += 0.003
    assert confidence_error(given, logits) == pytest.approx(0.003)
    for wrong in (np.nan, np.inf):
        given[0, 0] = wrong
        assert confidence_error(given, logits) == 1


def test_boundary_band_counts_diagonals():
    dot = np.zeros((7, 7), np.uint8)
    dot[3, 3] = 1
    expected = np.zeros((7, 7), bool)
    expected[1:6, 1:6] = True
    np.testing.assert_array_equal(boundary_band(dot, 2), expected)


def test_boundary_band_against_a_search_of_every_window():
    labels = np.random.default_rng(0).integers(0, 3, (5, 40)).repeat(4, 0).astype(np.uint8)
    expected = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(labels.shape):
        window = labels[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
        expected[y, x] = (window != labels[y, x]).any()
    np.testing.assert_array_equal(boundary_band(labels, 3), expected)


def test_counts_by_hand():
    counts = count_agreement(LABELS, EXPECTED, MARGIN, 3)
    assert counts["all"].tolist() == [17, 20]
    # Columns 2 to 7 lie within 3 pixels of the edge.
    assert counts["boundary"].tolist() == [10, 12]
    assert counts["interior"].tolist() == [7, 8]
    assert counts["confident"].tolist() == [17, 18]
    assert counts["classes"].tolist() == [[8, 10], [9, 10], [0, 0]]


def test_counts_of_images_add_up_and_empty_ones_have_no_share():
    one = count_agreement(LABELS, EXPECTED, MARGIN, 3)
    two = count_agreement(EXPECTED, EXPECTED, MARGIN, 3)
    total = add_counts([one, two])
    assert total["all"].tolist() == [37, 40]
    assert share(total["all"]) == pytest.approx(0.925)
    assert share(total["classes"][2]) is None


def test_mean_iou_by_hand():
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    labels = np.array([[0, 1, 1, 0]], np.uint8)
    matrix = confusion(truth, labels, 3)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    # IoU 1/2 and 1/2; class 2 stands nowhere and does not count.
    assert mean_iou(matrix) == pytest.approx(0.5)
    assert mean_iou(np.zeros((3, 4), int)) is None


@pytest.mark.parametrize("label", [3, 4, 200, 255])
def test_a_label_that_is_no_class_is_wrong_for_its_own_pixel_alone(label):
    truth = np.array([[0, 0, 1, 2]], np.uint8)
    labels = np.array([[0, label, 1, 2]], np.uint8)
    assert mean_iou(confusion(truth, labels, 3)) == pytest.approx((0.5 + 1 + 1) / 3)


def test_mean_iou_can_rise_while_labels_change():
    """Why agreement is gated: a changed net can even score better."""
    truth = np.array([[0, 0, 0, 0, 1, 1, 1, 1]], np.uint8)
    keras = np.array([[0, 0, 0, 1, 1, 1, 1, 0]], np.uint8)
    other = np.array([[0, 0, 0, 0, 1, 1, 1, 0]], np.uint8)
    assert mean_iou(confusion(truth, other, 2)) > mean_iou(confusion(truth, keras, 2))
    assert (other != keras).any()


def test_a_label_that_is_no_class_is_shown_in_a_colour_of_its_own():
    """WebGPU in a browser gave class 11 of 11."""
    palette = np.array([[0, 0, 0], [9, 8, 7]], np.uint8)
    shown = colour(np.array([[0, 1, 2, 255]], np.uint8), palette)
    assert shown.dtype == np.uint8
    assert shown.tolist() == [[[0, 0, 0], [9, 8, 7], [255, 0, 80], [255, 0, 80]]]
