import numpy as np
import pytest

from kfcn import metrics


def test_four_metrics_by_hand():
    # Truth: 4 pixels of class 0, 2 of class 1; one pixel of each is taken for the other.
    matrix = np.array([[3, 1], [1, 1]])
    values = metrics.scores(matrix)
    assert values["pixel_accuracy"] == pytest.approx(4 / 6)
    assert values["mean_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert values["mean_iou"] == pytest.approx((3 / 5 + 1 / 3) / 2)
    assert values["frequency_weighted_iou"] == pytest.approx((4 * 3 / 5 + 2 * 1 / 3) / 6)


def slow_reference(labels, predictions, classes):
    """The definitions of the paper, pixel by pixel."""
    n = np.zeros((classes, classes))
    for truth, guess in zip(labels.ravel(), predictions.ravel(), strict=True):
        if truth != 255:
            n[truth, guess] += 1
    accuracies, ious, weighted = [], [], 0.0
    for i in range(classes):
        t, u = n[i].sum(), n[i].sum() + n[:, i].sum() - n[i, i]
        if t:
            accuracies.append(n[i, i] / t)
            weighted += t * n[i, i] / u
        if u:
            ious.append(n[i, i] / u)
    total = n.sum()
    return np.trace(n) / total, np.mean(accuracies), np.mean(ious), weighted / total


@pytest.mark.parametrize("absent", [None, 2])
def test_equal_to_the_plain_reference(absent):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 3, 4, 255], size=(3, 20, 30)).astype("uint8")
    predictions = rng.integers(0, 5, labels.shape)
    if absent is not None:
        labels[labels == absent] = 0
    matrix = metrics.confusion_matrix(labels, predictions, 5)
    assert matrix.dtype == np.int64
    expected = slow_reference(labels, predictions, 5)
    assert list(metrics.scores(matrix).values()) == pytest.approx(list(expected), abs=1e-12)


def test_class_in_neither_is_left_out_and_class_only_predicted_counts():
    matrix = np.zeros((3, 3), int)
    matrix[0, 0] = 10
    assert metrics.scores(matrix)["mean_iou"] == 1.0
    assert np.isnan(metrics.class_iou(matrix)[1:]).all()
    matrix[0, 1] = 10
    assert metrics.scores(matrix)["mean_iou"] == pytest.approx((0.5 + 0) / 2)
    assert metrics.scores(matrix)["mean_accuracy"] == 0.5


def test_empty_matrix_gives_zeros():
    assert set(metrics.scores(np.zeros((2, 2), int)).values()) == {0.0}


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"expected 0\.\.1, received 0\.\.7"):
        metrics.confusion_matrix(np.array([0, 7]), np.array([0, 0]), 2)
    with pytest.raises(ValueError, match="shape"):
        metrics.confusion_matrix(np.zeros(3), np.zeros(4), 2)


@pytest.mark.parametrize("step", [1, 3])
def test_counting_in_the_step_equals_numpy(step):
    rng = np.random.default_rng(2)
    labels = rng.choice([0, 1, 3, 255], size=(2, 9, 11)).astype("uint8")
    logits = rng.normal(size=(2, 9, 11, 4)).astype("float32")
    part = (slice(None), slice(None, None, step), slice(None, None, step))
    expected = metrics.confusion_matrix(labels[part], logits.argmax(-1)[part], 4)
    counted = np.asarray(metrics.count_cells(labels, logits, 4, step))
    assert counted.dtype == np.int64
    np.testing.assert_array_equal(counted.reshape(4, 4), expected)


def test_boundary_counts_by_hand():
    labels = np.array([[0, 0, 0, 0, 1, 1, 1, 1]] * 2)
    shifted = np.array([[0, 0, 0, 0, 0, 1, 1, 1]] * 2)
    # Width 1: the truth's band is columns 3 and 4, the prediction's 4 and 5. Of class 0 that is
    # column 3 against column 4, of class 1 column 4 against 5.
    counts = metrics.boundary_counts(labels, shifted, 2, width=1)
    assert counts.tolist() == [[0, 0], [4, 4]]
    # Width 2: columns 2 to 5 against 3 to 6. Class 0: {2, 3} and {3, 4}; class 1: {4, 5}, {5, 6}.
    counts = metrics.boundary_counts(labels, shifted, 2, width=2)
    assert counts.tolist() == [[2, 2], [6, 6]]
    assert metrics.boundary_iou(counts) == pytest.approx(1 / 3)
    assert metrics.boundary_iou(np.zeros((2, 3))) == 0.0


def slow_boundary_counts(labels, predictions, classes, width):
    """The definition, pixel by pixel: another class within the window, void left out."""

    def band(which, image):
        rows, columns = np.nonzero((image == which) & (labels != 255))
        near = set()
        for y, x in zip(rows.tolist(), columns.tolist(), strict=True):
            window = (
                slice(max(y - width, 0), y + width + 1),
                slice(max(x - width, 0), x + width + 1),
            )
            if ((image[window] != which) & (labels[window] != 255)).any():
                near.add((y, x))
        return near

    bands = [(band(c, labels), band(c, predictions)) for c in range(classes)]
    return [[len(a & b) for a, b in bands], [len(a | b) for a, b in bands]]


@pytest.mark.parametrize("width", [1, 3])
def test_boundary_counts_equal_the_plain_reference(width):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 255], (4, 5), p=[0.3, 0.3, 0.3, 0.1]).repeat(6, 0).repeat(6, 1)
    predictions = np.where(labels == 255, 1, labels)
    predictions = np.roll(predictions, (2, -1), (0, 1))
    labels, predictions = labels.astype("uint8"), predictions.astype("int64")
    counts = metrics.boundary_counts(labels, predictions, 3, width)
    assert counts.tolist() == slow_boundary_counts(labels, predictions, 3, width)
    assert 0 < metrics.boundary_iou(counts) < 1
    perfect = np.where(labels == 255, 0, labels)
    assert metrics.boundary_iou(metrics.boundary_counts(labels, perfect, 3, width)) == 1.0
