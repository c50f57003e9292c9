import keras
import numpy as np
import pytest
from keras import layers
from rewrite_nets import animate, assert_untouched, images, run, snapshot, tflite_operators

import kfcn
from kfcn.errors import KfcnError, UsageError
from kfcn.inference.class_heatmaps import dense_net, run_dense

APPLICATIONS = {
    "vgg16": (keras.applications.VGG16, {}),
    "mobilenet_v2": (keras.applications.MobileNetV2, {}),
    "mobilenet_v3_small": (keras.applications.MobileNetV3Small, {}),
    "mobilenet_v3_large": (keras.applications.MobileNetV3Large, {}),
    "resnet50": (keras.applications.ResNet50, {}),
    "efficientnet_v2_b0": (keras.applications.EfficientNetV2B0, {}),
}


def check_equal_at_training_size(model, size):
    animate(model, (size, size))
    before = snapshot(model)
    net = kfcn.convolutionalize(model)
    assert_untouched(model, before)
    assert net.input_shape == (None, None, None, 3)
    x = images(2, size, size, 3)
    expected, got = run(model, x), run(net, x)
    assert got.shape == (2, 1, 1, expected.shape[-1])
    # Not vacuous: classes differ, and so do the images.
    assert np.ptp(expected, axis=-1).min() > 2e-4
    assert np.abs(expected[0] - expected[1]).max() > 1e-5
    np.testing.assert_allclose(got[:, 0, 0], expected, rtol=0, atol=1e-6)
    assert run(net, images(1, size + 32, size + 64, 3)).shape[1:3] == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("vgg16", 64, {}),
        ("mobilenet_v2", 96, {"alpha": 0.35}),
        ("mobilenet_v3_small", 96, {}),
        pytest.param("mobilenet_v3_large", 96, {}, marks=pytest.mark.long),
        pytest.param("resnet50", 64, {}, marks=pytest.mark.long),
        pytest.param("efficientnet_v2_b0", 64, {}, marks=pytest.mark.long),
    ],
)
def test_small_applications(name, size, arguments):
    build, _ = APPLICATIONS[name]
    model = build(weights=None, input_shape=(size, size, 3), classes=10, **arguments)
    check_equal_at_training_size(model, size)


@pytest.mark.long
@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications_at_their_own_size(name):
    build, arguments = APPLICATIONS[name]
    model = build(weights=None, input_shape=(224, 224, 3), **arguments)
    check_equal_at_training_size(model, 224)


def valid_classifier(head="flatten", **activation):
    """No padding: then a cell of the map is exactly the classifier on its window."""
    x = inputs = keras.Input((29, 33, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv1")(x)  # 27x31
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)  # 13x15
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="conv2")(x)  # 6x7
    if head == "flatten":
        x = layers.Flatten(name="flat")(x)
        x = layers.Dropout(0.5)(x)
        x = layers.Dense(12, activation="relu", name="fc1")(x)
    else:
        pools = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
        x = pools[head](name="flat")(x)
        x = layers.BatchNormalization(axis=1, name="norm")(x)
    x = layers.Dense(5, name="predictions", **(activation or {"activation": "softmax"}))(x)
    return animate(keras.Model(inputs, x, name="classifier"), (29, 33))


@pytest.mark.parametrize("head", ["flatten", "avg", "max"])
def test_every_cell_of_a_valid_net_is_the_classifier_on_its_window(head):
    model = valid_classifier(head)
    net = kfcn.convolutionalize(model)
    x = images(1, 29 + 8, 33 + 12, 3)
    got = run(net, x)
    assert got.shape == (1, 3, 4, 5)
    for row in range(3):
        for column in range(4):
            crop = x[:, 4 * row : 4 * row + 29, 4 * column : 4 * column + 33]
            np.testing.assert_allclose(got[:, row, column], run(model, crop), atol=1e-6)
    assert np.abs(got[0, 0, 0] - got[0, 1, 1]).max() > 1e-3  # the control: cells differ
    assert kfcn.receptive_field(net) == ((29, 33), 4, (14, 16))


def test_the_kernel_is_laid_out_as_flatten_lays_out_the_map():
    model = valid_classifier()
    kernel = kfcn.convolutionalize(model).get_layer("fc1").kernel
    assert kernel.shape == (6, 7, 6, 12)
    dense = np.asarray(model.get_layer("fc1").kernel)
    # Position (row 2, column 3), channel 4 of a 6x7x6 map is entry (2 * 7 + 3) * 6 + 4.
    np.testing.assert_array_equal(np.asarray(kernel)[2, 3, 4], dense[106])


@pytest.mark.parametrize("form", ["argument", "layer", "softmax layer", "sigmoid"])
def test_logits_leave_out_the_last_activation(form):
    if form == "argument":
        model = valid_classifier()
    elif form == "sigmoid":
        model = valid_classifier(activation="sigmoid")
    else:
        linear = valid_classifier(activation="linear")
        last = layers.Softmax() if form == "softmax layer" else layers.Activation("softmax")
        model = keras.Model(linear.input, last(linear.output))
    logits = run(kfcn.convolutionalize(model, logits=True), x := images(2, 29, 33, 3))[:, 0, 0]
    assert logits.min() < 0
    squash = keras.ops.sigmoid if form == "sigmoid" else keras.ops.softmax
    np.testing.assert_allclose(np.asarray(squash(logits)), run(model, x), atol=1e-6)


def test_sequential_with_a_nested_body():
    body = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv"),
            layers.BatchNormalization(name="bn"),
        ],
        name="body",
    )
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), body, layers.GlobalAveragePooling2D(), layers.Dense(3)]
    )
    animate(model, (16, 16))
    body.trainable = False
    before = snapshot(model)
    net = kfcn.convolutionalize(model)
    assert_untouched(model, before)
    x = images(2, 16, 16, 3)
    np.testing.assert_allclose(run(net, x)[:, 0, 0], run(model, x), atol=1e-6)
    nested = net.get_layer("body")
    assert nested is not body
    assert not nested.trainable
    assert not nested.get_layer("conv").trainable
    assert net.layers[-1].trainable
    # The weights are copies: changing one model leaves the other alone.
    nested.get_layer("conv").kernel.assign(keras.ops.zeros((3, 3, 3, 4)))
    assert_untouched(model, before)


def test_the_head_may_start_inside_a_nested_model():
    body = keras.applications.MobileNetV2(
        weights=None, alpha=0.35, include_top=False, pooling="avg", input_shape=(64, 64, 3)
    )
    model = keras.Sequential([keras.Input((64, 64, 3)), body, layers.Dense(4, "softmax")])
    animate(model, (64, 64))
    x = images(2, 64, 64, 3)
    net = kfcn.convolutionalize(model)
    np.testing.assert_allclose(run(net, x)[:, 0, 0], run(model, x), atol=1e-6)
    assert run(net, images(1, 96, 128, 3)).shape == (1, 2, 3, 4)


def test_squeeze_and_excite_pools_are_not_taken_for_the_head():
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same")(x)
    gate = layers.GlobalAveragePooling2D(name="squeeze")(x)
    gate = layers.Reshape((1, 1, 6))(layers.Dense(6, activation="sigmoid")(gate))
    x = layers.Flatten()(layers.Multiply()([x, gate]))
    model = animate(keras.Model(inputs, layers.Dense(4, "softmax")(x)), (16, 16))
    net = kfcn.convolutionalize(model)
    assert isinstance(net.get_layer("squeeze"), layers.GlobalAveragePooling2D)
    x = images(2, 16, 16, 3)
    np.testing.assert_allclose(run(net, x)[:, 0, 0], run(model, x), atol=1e-6)
    assert run(net, images(1, 32, 16, 3)).shape == (1, 9, 1, 4)


def test_adapted_normalization_and_operations_are_carried():
    normalize = layers.Normalization()
    normalize.adapt(images(4, 16, 16, 3) * 5 + 2)
    x = inputs = keras.Input((16, 16, 3))
    x = keras.ops.relu(normalize(x) / 2.0 + 0.1)
    x = layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(4, 3)(x))
    x = layers.Flatten()(layers.Conv2D(3, 1, activation="softmax")(x))
    model = animate(keras.Model(inputs, x), (16, 16))
    before = snapshot(model)
    net = kfcn.convolutionalize(model)
    assert_untouched(model, before)
    x = images(2, 16, 16, 3)
    np.testing.assert_allclose(run(net, x)[:, 0, 0], run(model, x), atol=1e-6)


def test_a_shared_layer_stays_one_layer():
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(shared(shared(inputs)))
    model = animate(keras.Model(inputs, layers.Dense(2)(x)), (8, 8))
    net = kfcn.convolutionalize(model)
    assert len(net.weights) == len(model.weights)
    x = images(1, 8, 8, 3)
    np.testing.assert_allclose(run(net, x)[:, 0, 0], run(model, x), atol=1e-6)


def test_open_input_sizes_need_the_classifiers_size():
    x = inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(4, 3, strides=2)(x))
    model = animate(keras.Model(inputs, layers.Dense(3, "softmax")(x), name="open"), (21, 25))
    with pytest.raises(UsageError, match=r"'open'.*size=\(224, 224\)"):
        kfcn.convolutionalize(model)
    net = kfcn.convolutionalize(model, size=(21, 25))
    assert net.get_layer("pool").pool_size == (10, 12)
    x = images(1, 21, 25, 3)
    np.testing.assert_allclose(run(net, x)[:, 0, 0], run(model, x), atol=1e-6)


def test_a_size_that_contradicts_the_model():
    with pytest.raises(UsageError, match=r"29x33 pixels, received size=\(64, 64\)"):
        kfcn.convolutionalize(valid_classifier(), size=(64, 64))
    for rewrite in (kfcn.convolutionalize, kfcn.receptive_field, kfcn.class_heatmap):
        first = [images(40, 40, 3)] if rewrite is kfcn.class_heatmap else []
        with pytest.raises(UsageError, match=r"size=\(height, width\) in pixels, received size=32"):
            rewrite(valid_classifier(), *first, size=32)


def test_saved_and_loaded(tmp_path):
    net = kfcn.convolutionalize(valid_classifier())
    net.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    x = images(1, 40, 50, 3)
    np.testing.assert_array_equal(run(again, x), run(net, x))


def test_converts_with_builtin_operators(tmp_path):
    net = kfcn.convolutionalize(valid_classifier("avg"))
    operators, got, expected = tflite_operators(net, (1, 37, 41, 3), tmp_path)
    assert not any("Flex" in name or "CUSTOM" in name.upper() for name in operators)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def attention():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((64, 3), name="tokens")(x)
    x = layers.MultiHeadAttention(1, 4, name="attend")(x, x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def attention_on_maps():
    inputs = keras.Input((8, 8, 3))
    x = layers.MultiHeadAttention(1, 4, attention_axes=(1, 2), name="attend")(inputs, inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def bypassed_flatten():
    inputs = keras.Input((8, 8, 3))
    a = layers.Flatten(name="flat_a")(layers.Conv2D(2, 3)(inputs))
    b = layers.Flatten(name="flat_b")(layers.Conv2D(2, 3)(inputs))
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([a, b])))


def normalized_positions():
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="bn_flat")(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Dense(2)(x))


def recurrent_head():
    inputs = keras.Input((8, 8, 3))
    x = layers.RepeatVector(3, name="repeat")(layers.GlobalAveragePooling2D()(inputs))
    return keras.Model(inputs, layers.LSTM(2)(x))


def own_dense():
    class Normalized(layers.Dense):
        def call(self, inputs):
            return keras.ops.matmul(inputs, self.kernel / keras.ops.norm(self.kernel))

    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, Normalized(2, name="own")(layers.Flatten()(inputs)))


def own_pooling():
    class GeM(layers.GlobalAveragePooling2D):
        def call(self, inputs):
            return super().call(inputs**3) ** (1 / 3)

    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.Dense(2)(GeM(name="gem")(inputs)))


def no_head():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.Conv2D(2, 3, name="only")(inputs))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (attention, "'tokens' \\(Reshape\\)"),
        (attention_on_maps, "'attend' \\(MultiHeadAttention\\) attends"),
        (bypassed_flatten, "'flat_b' \\(Flatten\\) is not a bottleneck"),
        (normalized_positions, "'bn_flat' \\(BatchNormalization\\)"),
        (recurrent_head, "'repeat' \\(RepeatVector\\)"),
        (own_pooling, "'gem' \\(GeM\\) is a layer of your own"),
        (own_dense, "'own' \\(Normalized\\)"),
        (no_head, "'only' \\(Conv2D\\)"),
    ],
)
def test_what_has_no_convolutional_form_is_named(build, named):
    with pytest.raises(KfcnError, match=named) as caught:
        kfcn.convolutionalize(build())
    assert "\n" not in str(caught.value)


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(KfcnError, match="subclassed"):
        kfcn.convolutionalize(Own(name="own"))
    with pytest.raises(KfcnError, match="without an input shape"):
        kfcn.convolutionalize(keras.Sequential([layers.Flatten()]))


def _softmax_behind(x):
    return keras.layers.Dropout(0.5)(keras.layers.Identity()(keras.layers.Softmax()(x)))


@pytest.mark.parametrize(
    ("units", "end"),
    [
        (3, keras.ops.softmax),
        (3, keras.activations.softmax),
        (3, _softmax_behind),
        (3, keras.layers.Activation("hard_sigmoid")),
        (1, keras.ops.sigmoid),
        (3, lambda x: x),
        (1, lambda x: x),
    ],
)
def test_heatmaps_are_probabilities_whatever_the_classifier_ends_in(units, end):
    keras.utils.set_random_seed(4)
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    logits = keras.layers.Dense(units)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, end(logits))
    given = images(1, 32, 32, 3)
    expected = np.asarray(model(given, training=False))[0]
    if end(logits) is logits:
        z = expected.astype(np.float64)
        expected = np.exp(z) / np.exp(z).sum() if units > 1 else 1 / (1 + np.exp(-z))
    net, probabilities = dense_net(model)
    found = run_dense(net, given[0], probabilities)[0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(np.append(expected, 0)) > 0.05
    # And without it, what comes before.
    plain = keras.Model(image, logits)
    bare = kfcn.convolutionalize(model, logits=True)
    np.testing.assert_allclose(run(bare, given)[:, 0, 0], run(plain, given), atol=1e-6)
