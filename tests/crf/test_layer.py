"""DenseCRF by value: by hand on two pixels, against mean field in NumPy, and its gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import exact_filter

from kfcn.crf import NO_WEIGHT_DECAY, DenseCRF
from kfcn.crf.gaussian import spatial_filter
from kfcn.crf.permutohedral import bilateral_features, build_lattice, lattice_filter
from kfcn.errors import UsageError


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def mean_field(unary, kernels, weights, compatibility, iterations, normalization):
    """Zheng algorithm 1 as published, with whole kernel matrices; unary (N, C), float64."""

    def normalized(kernel):
        sums = kernel.sum(1)
        before, after = {
            "after": (1, 1 / sums),
            "before": (1 / sums, 1),
            "symmetric": (sums**-0.5, sums**-0.5),
            "none": (1, 1),
        }[normalization]
        return np.reshape(after, (-1, 1)) * kernel * np.reshape(before, (1, -1))

    kernels = [normalized(kernel) for kernel in kernels]
    logits = unary
    for _ in range(iterations):
        q = softmax(logits)
        messages = [kernel @ q for kernel in kernels]
        weighted = sum(
            w[None] * message for w, message in zip(weights, messages, strict=True)
        )  # (N, C)
        logits = unary - np.einsum("kl,nl->nk", compatibility, weighted)
    return logits


def random_weights(layer, seed=0):
    """Give the layer weights that differ by class and a compatibility that is not symmetric."""
    rng = np.random.default_rng(seed)
    classes = layer.spatial_weights.shape[0]
    values = [rng.uniform(0.5, 2, classes), rng.uniform(0.5, 2, classes)]
    matrix = 1 - np.eye(classes) + rng.normal(0, 0.3, (classes, classes))
    layer.spatial_weights.assign(values[0])
    layer.bilateral_weights.assign(values[1])
    layer.compatibility_matrix.assign(matrix)
    return values, matrix


def test_two_pixels_by_hand():
    # Only the smoothness kernel: K = [[1, a], [a, 1]] / (1 + a) with a = exp(-1/2) at distance 1.
    layer = DenseCRF(1, 1, theta_gamma=1.0, spatial_weight=2.0, bilateral_weight=0.0)
    logits = np.array([[[[2.0, 0.0], [0.0, 1.0]]]], np.float32)  # (1, 1, 2, 2)
    refined = np.asarray(layer([logits, np.zeros((1, 1, 2, 3), np.float32)]))[0, 0]
    a = np.exp(-0.5)
    left, right = 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(1.0))  # Q of class 0
    message = np.array([left + a * right, a * left + right]) / (1 + a)
    expected = [
        [2.0 - 2 * (1 - message[0]), 0.0 - 2 * message[0]],
        [0.0 - 2 * (1 - message[1]), 1.0 - 2 * message[1]],
    ]
    np.testing.assert_allclose(refined, expected, atol=1e-6)


@pytest.mark.parametrize("normalization", ["after", "before", "symmetric", "none"])
def test_mean_field_with_the_same_kernels(scene, normalization):
    # Kernel matrices read off the filters: what is left to compare is the algorithm.
    image, logits, _ = scene(12, 16)
    unary = logits.reshape(-1, 5)
    layer = DenseCRF(3, 3, 20.0, 30.0, 2.0, normalization=normalization)
    layer.build([(1, 12, 16, 5), (1, 12, 16, 3)])
    weights, matrix = random_weights(layer)
    unit = np.eye(12 * 16, dtype=np.float32)
    smooth = spatial_filter(tf.constant(unit.reshape(1, 12, 16, -1)), 2.0).numpy()
    lattice = build_lattice(bilateral_features(image[None], 20.0, 30.0))
    bilateral = lattice_filter(lattice, unit).numpy()
    kernels = [smooth.reshape(12 * 16, -1), bilateral]
    if normalization == "none":  # sums of 25 and more: keep the field from saturating
        weights = [w / 20 for w in weights]
        layer.spatial_weights.assign(weights[0])
        layer.bilateral_weights.assign(weights[1])
    expected = mean_field(unary, kernels, weights, matrix, 3, normalization)
    refined = np.asarray(layer([logits[None], image[None]])).reshape(-1, 5)
    np.testing.assert_allclose(refined, expected, atol=1e-4)
    # Control: the transposed compatibility is another field.
    other = mean_field(unary, kernels, weights, matrix.T, 3, normalization)
    assert np.abs(refined - other).max() > 0.1


def test_mean_field_with_exact_kernels(scene):
    image, logits, _ = scene(32, 40)
    features = bilateral_features(image[None], 80.0, 13.0).numpy()
    y, x = np.mgrid[:32, :40] / 3.0
    unit = np.eye(32 * 40)
    kernels = [exact_filter(f, unit) for f in ([y.ravel(), x.ravel()], features)]
    weights = [np.full(5, 3.0), np.full(5, 5.0)]
    unary = logits.reshape(-1, 5)
    expected = mean_field(unary, kernels, weights, 1 - np.eye(5), 5, "after")
    layer = DenseCRF(5, 5, 80.0, 13.0, 3.0)
    refined = np.asarray(layer([logits[None], image[None]])).reshape(-1, 5)
    assert np.abs(softmax(refined) - softmax(expected)).mean() < 2e-3
    assert (refined.argmax(1) == expected.argmax(1)).mean() >= 0.995
    # Control: the CRF changes more than this.
    assert (refined.argmax(1) == unary.argmax(1)).mean() < 0.99


def test_it_helps_on_flat_colours(scene):
    image, logits, labels = scene(96, 128)
    refined = np.asarray(DenseCRF(theta_alpha=80.0, theta_beta=13.0)([logits[None], image[None]]))
    before, after = ((each.argmax(-1) != labels).mean() for each in (logits, refined[0]))
    assert before > 0.02
    assert after < before / 4


def test_zero_weights_return_the_unaries(scene):
    image, logits, _ = scene(16, 20)
    inputs = [logits[None], image[None]]
    zero = DenseCRF(spatial_weight=0.0, bilateral_weight=0.0)(inputs)
    np.testing.assert_array_equal(zero[0], logits)
    assert np.abs(DenseCRF()(inputs)[0] - logits).max() > 1


def test_iterations_in_training_and_out_of_it(scene):
    image, logits, _ = scene(16, 20)
    inputs = [logits[None], image[None]]
    layer = DenseCRF(iterations=2, test_iterations=0)
    np.testing.assert_array_equal(layer(inputs)[0], logits)
    twice = DenseCRF(iterations=0, test_iterations=2)
    np.testing.assert_array_equal(layer(inputs, training=True), twice(inputs, training=False))
    np.testing.assert_array_equal(twice(inputs, training=True)[0], logits)


def test_batch_equals_one_by_one(scene):
    images, logits, _ = (np.stack(part) for part in zip(scene(seed=0), scene(seed=1), strict=True))
    layer = DenseCRF(theta_alpha=80.0, theta_beta=13.0)
    both = np.asarray(layer([logits, images]))
    alone = np.concatenate([layer([logits[i : i + 1], images[i : i + 1]]) for i in (0, 1)])
    np.testing.assert_allclose(both, alone, atol=1e-4)
    swapped = np.asarray(layer([logits, images[::-1]]))
    assert np.abs(swapped - alone).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["after", "before", "symmetric", "none"])
def test_gradients_against_differences(scene, normalization):
    """The derivative along a random direction, of each of the four things that have one."""
    image, logits, _ = scene(24, 32)
    height = 0.02 if normalization == "none" else 1.0
    layer = DenseCRF(5, 5, 20.0, 30.0, 2.0, height, height, normalization=normalization)
    unary = keras.Variable(logits[None])
    rng = np.random.default_rng(3)
    layer.build([(1, 24, 32, 5), (1, 24, 32, 3)])
    upstream = rng.normal(size=logits.shape)

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            # Without the unaries that the last step adds: their gradient of 1 would hide the rest.
            pairwise = layer([unary.value, image[None]], training=True) - unary.value
            loss = tf.reduce_sum(pairwise * tf.constant(upstream[None], tf.float32))
        return pairwise, tape.gradient(loss, [v.value for v in variables])

    def value():
        return np.sum(np.asarray(run()[0], np.float64)[0] * upstream)

    variables = [unary, *layer.trainable_variables]
    assert len(variables) == 4
    analytic = [np.asarray(each, np.float64) for each in run()[1]]
    for variable, gradient in zip(variables, analytic, strict=True):
        start = variable.numpy()
        direction = np.sign(gradient) * rng.uniform(0.5, 1, start.shape)
        step = 1e-2 * max(np.abs(start).mean(), 1e-2)
        ends = []
        for sign in (1, -1):
            variable.assign(start + sign * step * direction)
            ends.append(value())
        variable.assign(start)
        ends = np.array(ends)
        numeric = (ends[0] - ends[1]) / (2 * step)
        expected = np.sum(gradient * direction)
        assert abs(numeric - expected) < 1e-3 * abs(expected), variable.name
        # Control: the field is not linear, a step as large as the value itself misses the tangent.
        variable.assign(start + max(np.abs(start).mean(), 1.0) * direction)
        far = (value() - ends.mean()) / max(np.abs(start).mean(), 1.0)
        variable.assign(start)
        assert abs(far - expected) > 1e-3 * abs(expected), variable.name


def test_gradients_out_of_training_are_the_same(scene):
    image, logits, _ = scene(12, 16)
    image, logits = tf.constant(image[None]), tf.constant(logits[None])
    upstream = np.random.default_rng(0).normal(size=logits.shape).astype(np.float32)
    layer = DenseCRF(2, 2, 20.0, 30.0)
    gradients = []
    for training in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            refined = layer([logits, image], training=training)
        sources = [logits, *(v.value for v in layer.trainable_variables)]
        gradients.append(tape.gradient(refined, sources, upstream))
    for ours, own in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, own, rtol=1e-3, atol=1e-4)


def test_no_gradient_to_the_image(scene):
    image, logits, _ = scene(8, 8)
    image, logits = tf.constant(image[None]), tf.constant(logits[None])
    with tf.GradientTape() as tape:
        tape.watch([image, logits])
        refined = DenseCRF(1, 1)([logits, image])
    to_image, to_logits = tape.gradient(refined, [image, logits])
    assert to_image is None
    assert np.abs(to_logits).max() > 0


@pytest.mark.parametrize("spare", [True, False])
def test_weight_decay(spare):
    layer = DenseCRF()
    layer.build([(1, 8, 8, 3), (1, 8, 8, 3)])
    start = [v.numpy() for v in layer.trainable_variables]
    other = keras.Variable(np.ones(2, np.float32), name="kernel")
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    if spare:
        optimizer.exclude_from_weight_decay(var_names=NO_WEIGHT_DECAY)
    variables = [*layer.trainable_variables, other]
    optimizer.apply([np.zeros(v.shape, np.float32) for v in variables], variables)
    moved = [np.abs(v - s).max() for v, s in zip(layer.trainable_variables, start, strict=True)]
    assert np.max(np.abs(other.numpy() - 1)) > 0.01
    assert max(moved) == 0 if spare else min(moved) > 0.01


def test_mixed_precision(scene):
    image, logits, _ = scene(16, 20)
    inputs = [logits[None], image[None]]
    expected = np.asarray(DenseCRF()(inputs))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = DenseCRF()
        refined = layer(inputs)
        half = layer([tf.cast(logits[None], tf.float16), image[None]])
    finally:
        keras.config.set_dtype_policy("float32")
    assert refined.dtype == half.dtype == tf.float32
    assert {v.dtype for v in layer.variables} == {"float32"}
    np.testing.assert_array_equal(refined, expected)
    np.testing.assert_allclose(half, expected, atol=0.05)


def test_config():
    arguments = {
        "iterations": 3,
        "test_iterations": 4,
        "theta_alpha": 61.0,
        "theta_beta": 11.0,
        "theta_gamma": 1.5,
        "spatial_weight": 0.5,
        "bilateral_weight": 0.25,
        "compatibility": [[0.0, 2.0], [1.0, 0.0]],
        "normalization": "symmetric",
    }
    layer = DenseCRF(**arguments, name="x")
    config = layer.get_config()
    assert {name: config[name] for name in arguments} == arguments
    again = DenseCRF.from_config(config)
    assert again.get_config() == config
    again.build([(None, None, None, 2), (None, None, None, 3)])
    np.testing.assert_array_equal(again.compatibility_matrix, arguments["compatibility"])
    np.testing.assert_array_equal(again.spatial_weights, [0.5, 0.5])
    np.testing.assert_array_equal(again.bilateral_weights, [0.25, 0.25])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 2.5}, "iterations to be an integer"),
        ({"test_iterations": -1}, "test_iterations to be an integer"),
        ({"iterations": True}, "iterations to be an integer"),
        ({"theta_beta": 0}, "theta_beta to be a number above 0"),
        ({"theta_gamma": np.inf}, "theta_gamma to be a number above 0. Received: inf"),
        ({"theta_alpha": "160"}, "theta_alpha to be a number above 0. Received: '160'"),
        ({"spatial_weight": np.nan}, "spatial_weight to be a finite number. Received: nan"),
        ({"normalization": "both"}, "Received: 'both'"),
        ({"compatibility": "pots"}, "Received: 'pots'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UsageError, match=message):
        DenseCRF(**arguments)


def test_bad_inputs():
    with pytest.raises(UsageError, match="of the same size"):
        DenseCRF()([np.zeros((1, 4, 5, 3), np.float32), np.zeros((1, 5, 4, 3), np.float32)])
    with pytest.raises(UsageError, match=r"\[logits, image\]"):
        DenseCRF()(np.zeros((1, 4, 5, 3), np.float32))
    with pytest.raises(UsageError, match=r"shape \(3, 3\)"):
        DenseCRF(compatibility=np.eye(2)).build([(1, 4, 4, 3), (1, 4, 4, 3)])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float64"])
def test_pictures_of_any_number_type(scene, dtype):
    image, logits, _ = scene(12, 16)  # whole numbers
    layer = DenseCRF(test_iterations=2)
    expected = layer([logits[None], image[None]])
    np.testing.assert_array_equal(layer([logits[None], image.astype(dtype)[None]]), expected)
    given = keras.Input((None, None, 3), dtype=dtype)
    scores = keras.Input((None, None, 5))
    model = keras.Model([scores, given], layer([scores, given]))
    found = model([logits[None], image.astype(dtype)[None]])
    np.testing.assert_array_equal(found, expected)


def test_numpy_integers_count_iterations():
    layer = DenseCRF(np.int64(3), np.int32(4))
    assert (layer.iterations, layer.test_iterations) == (3, 4)
    assert type(layer.get_config()["iterations"]) is int


def test_shapes_are_checked_at_every_call():
    """Of 20x20 and 10x40 pixels there are equally many: unseen, they would be mixed."""
    layer = DenseCRF(test_iterations=1)
    logits = np.zeros((1, 20, 20, 3), np.float32)
    layer([logits, np.zeros((1, 20, 20, 3), np.float32)])
    wide = np.zeros((1, 10, 40, 3), np.float32)
    with pytest.raises(UsageError, match=r"Received: \(1, 20, 20, 3\) and \(1, 10, 40, 3\)"):
        layer([logits, wide])
    open_sizes = [tf.TensorSpec((None, None, None, 3))] * 2
    traced = tf.function(lambda *both: layer(list(both)), input_signature=open_sizes)
    assert traced(wide, wide).shape == wide.shape
    with pytest.raises(tf.errors.InvalidArgumentError, match="of the same batch, height and width"):
        traced(logits, wide)


@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_pictures_without_numbers_do_not_blame_the_widths(value):
    image = np.zeros((0 if value is None else 1, 4, 5, 3), np.float32)
    image[:, 2, 3] = value or 0
    with pytest.raises(tf.errors.InvalidArgumentError, match="pictures of finite numbers"):
        DenseCRF()([np.zeros((len(image), 4, 5, 2), np.float32), image])
