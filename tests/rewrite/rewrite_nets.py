"""Nets and measurements that the rewriting tests share."""

import keras
import numpy as np
from keras import layers


def leaves(model):
    """All layers of a model, those of nested models included."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def animate(model, size, seed=0, batch=8):
    """He-random weights and batch statistics: a fresh net puts out almost nothing, and an
    equality of almost nothing proves nothing."""
    rng = np.random.default_rng(seed)
    norms = []
    for layer in leaves(model):
        if isinstance(layer, layers.BatchNormalization):
            norms.append(layer)
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.2, layer.beta.shape))
            continue
        for weight in layer.trainable_weights:
            if len(weight.shape) < 2:
                weight.assign(rng.normal(0, 0.1, weight.shape))
                continue
            fan_in = np.prod(weight.shape[:-1])
            if weight.name == "depthwise_kernel" or isinstance(layer, layers.DepthwiseConv2D):
                fan_in = np.prod(weight.shape[:2])
            weight.assign(rng.normal(0, np.sqrt(2 / fan_in), weight.shape))
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    images = rng.uniform(-1, 1, (batch, *size, model.input_shape[-1])).astype("float32")
    if norms:
        model(images, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def images(*shape, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def run(model, x):
    return np.asarray(model(x, training=False))


def snapshot(model):
    """What a rewrite must leave alone: weights and the number of calls of every layer."""
    weights = [np.array(weight) for weight in model.get_weights()]
    calls = [len(layer._inbound_nodes) for layer in leaves(model)]
    calls += [len(op._inbound_nodes) for op in getattr(model, "operations", [])]
    return weights, calls, [layer.name for layer in leaves(model)]


def assert_untouched(model, before):
    weights, calls, names = snapshot(model)
    assert calls == before[1]
    assert names == before[2]
    for now, then in zip(weights, before[0], strict=True):
        np.testing.assert_array_equal(now, then)


def tflite_operators(model, shape, tmp_path):
    """The operators of the converted model, and its output next to Keras's on a random input."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    fixed = keras.Input(batch_shape=shape)
    keras.Model(fixed, model(fixed)).export(tmp_path / "saved", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    path = tmp_path / "model.tflite"
    path.write_bytes(converter.convert())
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    x = images(*shape)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    y = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    operators = {op["op_name"] for op in interpreter._get_ops_details()}
    return operators, y, run(model, x)
