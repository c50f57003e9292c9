"""Whole models with a CRF: cloning, training, saving, exporting, converting."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfcn.crf import add_crf, builtin_ops
from kfcn.errors import KfcnError, UsageError

CRF = {"theta_alpha": 20.0, "theta_beta": 30.0, "iterations": 2, "test_iterations": 3}


def small_net(classes=5, size=(None, None)):
    """Two convolutions, by names as a kfcn net has them; the first layer is frozen."""
    keras.utils.set_random_seed(0)
    image = keras.Input((*size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(image)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1")(x)
    x = keras.layers.BatchNormalization(name="bn1")(x)
    model = keras.Model(image, keras.layers.Conv2D(classes, 1, name="score_fr")(x), name="net")
    model.get_layer("conv1").trainable = False
    return model


@pytest.fixture
def images(scene):
    return np.stack([scene(24, 32, seed=seed)[0] for seed in (0, 1)])


def test_the_net_is_cloned(images):
    net = small_net()
    before = [w.copy() for w in net.get_weights()]
    nodes = [len(layer._outbound_nodes) for layer in net.layers]
    logits = net.predict(images, verbose=0)
    model = add_crf(net, spatial_weight=0.0, bilateral_weight=0.0)
    np.testing.assert_array_equal(model.predict(images, verbose=0), logits)
    assert [layer.name for layer in model.layers if layer.name != "crf"] == [
        layer.name for layer in net.layers
    ]
    assert not model.get_layer("conv1").trainable
    assert model.name == "net_crf"
    # Changing the one leaves the other as it was.
    model.get_layer("score_fr").kernel.assign_add(keras.ops.ones((1, 1, 8, 5)))
    assert all(np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True))
    assert nodes == [len(layer._outbound_nodes) for layer in net.layers]


def test_sequential():
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)]
    assert add_crf(keras.Sequential(layers)).output_shape == (None, 8, 8, 2)


def test_models_that_do_not_fit():
    image = keras.Input((8, 8, 3))
    half = keras.Model(image, keras.layers.MaxPooling2D()(image))
    with pytest.raises(UsageError, match="of the same size"):
        add_crf(half)
    with pytest.raises(UsageError, match="Received: 1 inputs and 2 outputs"):
        add_crf(keras.Model(image, [image, half(image)]))


def test_fit_on_batches(scene):
    parts = [scene(24, 32, seed=seed) for seed in range(4)]
    images, _, labels = (np.stack(part) for part in zip(*parts, strict=True))
    model = add_crf(small_net(), **CRF)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss)
    assert not model.jit_compile
    start = [v.numpy() for v in model.get_layer("crf").trainable_variables]
    history = model.fit(images, labels, batch_size=2, epochs=6, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    for variable, value in zip(model.get_layer("crf").trainable_variables, start, strict=True):
        assert np.abs(variable - value).max() > 1e-3


def test_save_and_load(images, tmp_path):
    model = add_crf(small_net(), **CRF)
    model.get_layer("crf").compatibility_matrix.assign_add(
        np.random.default_rng(0).normal(0, 0.2, (5, 5))
    )
    expected = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(images, verbose=0), expected)
    # Any size, also after loading.
    assert again.predict(images[:, :17, :23], verbose=0).shape == (2, 17, 23, 5)


@pytest.mark.slow
def test_saved_model(images, tmp_path):
    model = add_crf(small_net(), **CRF)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    served = loaded.serve(images)
    np.testing.assert_allclose(served, model.predict(images, verbose=0), atol=1e-5)


def convert(model, folder, size):
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = tf.TensorSpec((1, *size, 3), tf.float32)
    archive.add_endpoint("serve", lambda x: model(x, training=False), input_signature=[spec])
    archive.write_out(folder, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter.convert()


@pytest.mark.slow
def test_tflite_with_builtin_operators(scene, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    image = scene(96, 128)[0][None]
    model = add_crf(small_net(), theta_alpha=80.0, theta_beta=13.0, test_iterations=5)
    # Logits that say something: brightness against a class's own.
    model.get_layer("score_fr").kernel.assign(
        np.random.default_rng(0).normal(0, 3, (1, 1, 8, 5)).astype("float32")
    )
    expected = model.predict(image, verbose=0)
    with builtin_ops():
        content = convert(model, tmp_path / "saved", (96, 128))
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))
    assert len(np.unique(expected.argmax(-1))) > 1
    # Control: traced outside of the context, it needs what LiteRT has not.
    with pytest.raises(Exception, match="SparseTensorDenseMatMul"):
        convert(model, tmp_path / "sparse", (96, 128))


class Inverted(keras.losses.Loss):
    """A loss that Keras finds by no name."""

    def call(self, y_true, y_pred):
        return keras.ops.mean(1 / y_pred)


def test_adapted_normalization_is_carried_into_the_copy(images):
    """Nested, too: a copy whose mean and variance stay at 0 and 1 is another net."""
    image = keras.Input((None, None, 3))
    normal = keras.layers.Normalization()
    normal.adapt(images)
    inner = keras.Model(image, normal(image), name="inner")
    whole = keras.Input((None, None, 3))
    scores = keras.layers.Conv2D(4, 3, padding="same")(inner(whole))
    net = keras.Model(whole, scores)
    model = add_crf(net, iterations=0, test_iterations=0)
    np.testing.assert_array_equal(model(images), net(images))
    assert float(np.abs(net(images)).max()) < 20  # of normalised pixels, not of 0..255


@pytest.mark.parametrize("loss", [Inverted(), lambda a, b: keras.ops.mean(a - b)])
def test_a_compiled_net_leaves_its_own_loss_behind(images, loss):
    net = small_net()
    net.compile("adam", loss=loss, metrics=[lambda a, b: keras.ops.mean(b)])
    model = add_crf(net, test_iterations=0)
    assert not model.compiled and net.compiled
    np.testing.assert_array_equal(model(images), net(images))


def test_a_second_crf_and_a_model_without_a_graph_are_refused():
    with pytest.raises(UsageError, match="model 'net_crf' has a CRF already"):
        add_crf(add_crf(small_net()))
    with pytest.raises(KfcnError, match="Sequential without an input shape"):
        add_crf(keras.Sequential([keras.layers.Conv2D(2, 1)]))
