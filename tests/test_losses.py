import keras
import numpy as np
import pytest

from kfcn import losses
from kfcn.errors import UsageError
from kfcn.losses import SegmentationLoss


def loss(labels, logits, **options):
    return float(SegmentationLoss(**options)(np.asarray(labels), np.asarray(logits, "float32")))


def reference(labels, logits, weights=None):
    logits = logits - logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total = count = 0.0
    for index in np.ndindex(labels.shape):
        if labels[index] != 255:
            w = 1.0 if weights is None else weights[labels[index]]
            total -= w * log_p[index][labels[index]]
            count += w
    return total / count


def test_by_hand():
    # Two pixels: p = 1/2 and p = 3/4; a third is ignored.
    logits = np.log([[[[1.0, 1.0], [1.0, 3.0], [9.0, 1.0]]]])
    labels = np.array([[[0, 1, 255]]], "uint8")
    assert loss(labels, logits) == pytest.approx((np.log(2) + np.log(4 / 3)) / 2, rel=1e-6)


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
def test_equals_numpy(weights):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (2, 5, 6)).astype("uint8")
    labels[rng.random(labels.shape) < 0.3] = 255
    logits = rng.normal(size=(2, 5, 6, 4)) * 3
    value = loss(labels, logits, class_weights=weights)
    assert value == pytest.approx(reference(labels, logits, weights), rel=1e-5)
    other = loss(np.where(labels == 255, 0, labels), logits, class_weights=weights)
    assert abs(value - other) > 1e-2  # counting the ignored pixels would be seen


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
def test_gradient_by_softmax_minus_truth(weights):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (2, 5, 6)).astype("uint8")
    labels[rng.random(labels.shape) < 0.3] = 255
    logits = tf.constant(rng.normal(size=(2, 5, 6, 4)).astype("float32") * 3)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = SegmentationLoss(class_weights=weights)(labels, logits)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    weight = np.where(labels == 255, 0, np.asarray(weights or [1] * 4)[labels % 4])
    expected = (shares - np.eye(4)[labels % 4]) * (weight / weight.sum())[..., None]
    np.testing.assert_allclose(tape.gradient(value, logits), expected, atol=1e-8, rtol=1e-5)


def test_logits_far_apart():
    """The value stops where a probability leaves float32; the gradient does not."""
    import tensorflow as tf

    logits = tf.constant([[[[1000.0, 0.0], [80.0, 0.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = SegmentationLoss()(np.array([[[1, 1]]], "uint8"), logits)
    assert float(value) == pytest.approx((-np.log(1.2e-38) + 80) / 2, rel=1e-6)
    np.testing.assert_array_equal(tape.gradient(value, logits)[0, 0, 0], [0.5, -0.5])


def test_mean_is_over_the_batch_and_not_over_images():
    logits = np.zeros((2, 1, 4, 2))
    logits[0, ..., 0] = 5.0
    labels = np.array([[[1, 255, 255, 255]], [[1, 1, 1, 1]]], "uint8")
    expected = (np.log1p(np.exp(5)) + 4 * np.log(2)) / 5
    assert loss(labels, logits) == pytest.approx(expected, rel=1e-5)


def test_all_ignored_is_zero_with_zero_gradient():
    import tensorflow as tf

    logits = tf.Variable(tf.ones((1, 2, 2, 3)))
    with tf.GradientTape() as tape:
        value = SegmentationLoss()(np.full((1, 2, 2), 255, "uint8"), logits)
    assert float(value) == 0.0
    assert not np.abs(tape.gradient(value, logits).numpy()).any()


def test_replicas_share_one_mean(monkeypatch):
    """Replicas with different shares of ignored pixels: the global mean, no mean of means."""
    rng = np.random.default_rng(1)
    labels = np.array([[[0, 1, 2, 1]], [[255, 255, 255, 2]]], "uint8")
    logits = rng.normal(size=(2, 1, 4, 3)).astype("float32")

    terms = []
    for replica in (0, 1):
        other = float((labels[1 - replica] != 255).sum())
        monkeypatch.setattr(losses, "sum_over_replicas", lambda own, other=other: own + other)
        terms.append(loss(labels[[replica]], logits[[replica]]))
    assert sum(terms) == pytest.approx(reference(labels, logits.astype(float)), rel=1e-5)
    means = [reference(labels[[i]], logits[[i]].astype(float)) for i in (0, 1)]
    assert abs(np.mean(means) - sum(terms)) > 1e-2  # the mean of means is something else


def test_config_round_trip():
    made = SegmentationLoss(class_weights=np.array([1, 2], "float32"), iou_weight=0.5)
    again = SegmentationLoss.from_config(made.get_config())
    assert again.class_weights == [1.0, 2.0] and again.iou_weight == 0.5
    assert isinstance(again, keras.losses.Loss)


def test_a_compiled_net_loads_with_its_loss(tmp_path):
    inputs = keras.Input((2, 2, 3))
    net = keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs))
    net.compile("sgd", SegmentationLoss(class_weights=[1, 2, 3], iou_weight=0.5))
    x = np.random.default_rng(0).normal(size=(4, 2, 2, 3)).astype("float32")
    y = np.tile(np.array([[0, 1], [2, 255]], "uint8"), (4, 1, 1))
    before = net.evaluate(x, y, verbose=0)
    net.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    assert again.evaluate(x, y, verbose=0) == pytest.approx(before, rel=1e-6)
    again.compile("sgd", SegmentationLoss())
    assert abs(again.evaluate(x, y, verbose=0) - before) > 1e-2  # weights are seen


def soft_iou(labels, logits):
    """What an `iou_weight` of one adds."""
    whole = SegmentationLoss(iou_weight=1.0)(labels, logits)
    return whole - SegmentationLoss()(labels, logits)


def test_soft_iou_by_hand():
    # Class 0: p = 1/2 at its one pixel, and 1/4 at the other: I = 1/2, U = 1 + 1/4. Class 1: p =
    # 3/4 at its pixel, and 1/2: I = 3/4, U = 1 + 1/2. Class 2 is not there.
    logits = np.log(
        np.array([[[[1.0, 1.0, 1e-30], [1.0, 3.0, 1e-30], [9.0, 1.0, 5.0]]]], "float32")
    )
    labels = np.array([[[0, 1, 255]]], "uint8")
    expected = 1 - (0.5 / 1.25 + 0.75 / 1.5) / 2
    assert float(soft_iou(labels, logits)) == pytest.approx(expected, rel=1e-6)
    assert float(soft_iou(np.full_like(labels, 255), logits)) == 0
    weighted = loss(labels, logits, class_weights=[1, 2, 3], iou_weight=0.25)
    assert weighted - loss(labels, logits, class_weights=[1, 2, 3]) == pytest.approx(
        expected / 4, rel=1e-5
    )  # class weights are those of the cross entropy
    sure = 99 * np.eye(3, dtype="float32")[[[[0, 1, 0]]]]
    assert float(soft_iou(labels, sure)) == pytest.approx(0, abs=1e-6)


def test_soft_iou_has_the_gradient_of_its_formula():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (2, 7, 9)).astype("uint8")
    labels[0, :2] = labels[labels == 3] = 255  # one class is not there
    logits = tf.constant(rng.normal(0, 2, (2, 7, 9, 5)).astype("float32"))

    def formula(logits):
        valid = tf.cast(labels != 255, tf.float32)[..., None]
        truth = tf.one_hot(labels.astype("int32"), 5)
        found = tf.nn.softmax(logits) * valid
        both = tf.reduce_sum(found * truth, (0, 1, 2))
        union = tf.reduce_sum(found + truth - found * truth, (0, 1, 2))
        there = np.array([0, 1, 2, 4])
        return 1 - tf.reduce_mean(tf.gather(both / union, there))

    values, gradients = [], []
    for function in (lambda x: soft_iou(labels, x), formula):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values.append(function(logits))
        gradients.append(tape.gradient(values[-1], logits).numpy())
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-6)
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-8)
    assert abs(gradients[0]).max() > 1e-3
    assert not gradients[0][labels == 255].any()


def test_the_weight_of_a_batch_is_that_of_its_labelled_pixels():
    labels = np.array([[[0, 1, 255, 1]]], "uint8")
    assert float(SegmentationLoss().weight(labels)) == 3
    assert float(SegmentationLoss(class_weights=[0.5, 2.0]).weight(labels)) == 4.5


def test_pseudo_labels_equal_numpy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 6, 7, 4)).astype("float32") * 4
    shares = np.exp(logits.astype(float))
    shares /= shares.sum(-1, keepdims=True)
    expected = np.where(shares.max(-1) > 0.95, shares.argmax(-1), 255)
    found = np.asarray(losses.pseudo_labels(logits))
    assert 0.2 < (expected == 255).mean() < 0.8
    np.testing.assert_array_equal(found, expected)
    assert (np.where(shares.max(-1) > 0.9, shares.argmax(-1), 255) != found).any()  # the control


def test_the_loss_of_pseudo_labels_by_hand():
    # Four pixels: p = 1/2, p = 3/4, not sure, beyond the picture; by the three of the picture.
    logits = np.log([[[[1.0, 1.0], [1.0, 3.0], [9.0, 1.0], [9.0, 1.0]]]]).astype("float32")
    labels = np.array([[[0, 1, 255, 0]]])
    inside = np.array([[[True, True, True, False]]])
    loss, share = losses.pseudo_label_loss(labels, inside, logits)
    assert float(loss) == pytest.approx((np.log(2) + np.log(4 / 3)) / 3, rel=1e-6)
    assert float(share) == pytest.approx(2 / 3, rel=1e-6)
    nothing = losses.pseudo_label_loss(labels, np.zeros_like(inside), logits)
    assert [float(x) for x in nothing] == [0.0, 0.0]


def test_weights_that_the_mean_could_not_hold_are_refused():
    """Keras would multiply the finished mean by their sum: B times the loss with B ones."""
    inputs = keras.Input((2, 2, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs))
    model.compile("sgd", SegmentationLoss())
    x, y = np.ones((4, 2, 2, 3), "float32"), np.ones((4, 2, 2), "uint8")
    plain = model.evaluate(x, y, verbose=0)
    assert plain == pytest.approx(float(SegmentationLoss()(y, model(x))), rel=1e-5)
    with pytest.raises(UsageError, match=r"received a sample_weight.* the label 255"):
        model.evaluate(x, y, sample_weight=np.ones(4), verbose=0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({0: 1, 1: 2, 2: 3}, r"as a list, .* received \{0: 1, 1: 2, 2: 3\}"),
        ([1, 2, 3, 4], "expected 3 class weights, received 4"),
        ([1], "expected 3 class weights, received 1"),
    ],
)
def test_class_weights_are_one_a_class(weights, message):
    with pytest.raises(UsageError, match=message):
        SegmentationLoss(weights)(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2, 3), "float32"))
