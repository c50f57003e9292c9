"""The optimizers' steps against their formulas."""

import keras
import numpy as np
import pytest

from kfcn.errors import UsageError
from kfcn.training.optimizers import AdamW, CaffeSGD, build_optimizer
from kfcn.training.resolution import resolve

RATE, DECAY, MOMENTUM, PIXELS = 1e-3, 0.5, 0.9, 40.0


def variables():
    rng = np.random.default_rng(0)
    return [
        keras.Variable(rng.normal(size=shape).astype("float32"), name=name)
        for name, shape in (("kernel", (3, 2)), ("bias", (2,)), ("gamma", (2,)))
    ]


def gradients(step):
    rng = np.random.default_rng(10 + step)
    return [rng.normal(size=shape).astype("float32") for shape in ((3, 2), (2,), (2,))]


def caffe(values, steps):
    """Of the sum over the pixels, with lr_mult 2 and decay_mult 0 for biases; in float64."""
    values = [v.astype("float64") for v in values]
    speed = [np.zeros_like(v) for v in values]
    for step in range(steps):
        for i, (mean, times, decay) in enumerate(
            zip(gradients(step), (1, 2, 1), (DECAY, 0, 0), strict=True)
        ):
            gradient = PIXELS * mean + decay * values[i]
            speed[i] = MOMENTUM * speed[i] + times * RATE * gradient
            values[i] = values[i] - speed[i]
    return values


def apart(a, b):
    return max(float(np.abs(np.asarray(x) - y).max()) for x, y in zip(a, b, strict=True))


def test_sgd_is_caffes_also_when_the_loss_is_a_mean():
    """A mean over N pixels asks for N times the rate and an N-th of the decay."""
    ours, keras_own = variables(), variables()
    expected = caffe([np.asarray(v) for v in ours], 6)
    optimizer = CaffeSGD(PIXELS * RATE, MOMENTUM, DECAY / PIXELS, ("bias", "gamma"))
    control = keras.optimizers.SGD(PIXELS * RATE, MOMENTUM, weight_decay=DECAY / PIXELS)
    control.exclude_from_weight_decay(var_names=["bias", "gamma"])
    optimizer.build(ours)
    control.build(keras_own)
    for step in range(6):
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients(step)], ours)
        control.apply([keras.ops.convert_to_tensor(g) for g in gradients(step)], keras_own)
    assert apart(ours, expected) < 1e-6
    assert apart(keras_own[:1], expected[:1]) > 1e-4  # decoupled decay
    assert apart(keras_own[1:2], expected[1:2]) > 0.1  # biases at the same rate


@pytest.mark.parametrize("power", [0.0, 0.9, 2.0])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_rate_falls_with_the_power(name, power):
    config = resolve(optimizer=name, power=power, learning_rate=0.1)
    weights = variables()
    optimizer = build_optimizer(config, weights, 8)
    rates = []
    for step in range(8):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients(step)], weights)
    expected = 0.1 * (1 - np.arange(8) / 8) ** power
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert float(optimizer.learning_rate) == pytest.approx(0.0 if power else 0.1, abs=1e-7)


def test_settings_that_make_no_sense():
    for given, told in (
        ({"optimizer": "adam"}, "expected one of adamw, sgd"),
        ({"momentum": 1.0}, "momentum 1.0: expected a number of at least 0 and below 1"),
        ({"power": -1.0}, "power -1.0: expected a number of at least 0"),
    ):
        with pytest.raises(UsageError, match=told):
            resolve(**given)


def test_adamw_is_keras_own():
    """By two operations a variable: also under a schedule, and with what does not decay."""
    found = {}
    for name, kind, epsilon in (
        ("ours", AdamW, 1e-7), ("keras", keras.optimizers.AdamW, 1e-7), ("other", AdamW, 1e-3)
    ):  # fmt: skip
        rate = keras.optimizers.schedules.PolynomialDecay(0.1, 20, end_learning_rate=0.0, power=0.9)
        optimizer = kind(rate, weight_decay=DECAY, epsilon=epsilon)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
        values = variables()
        optimizer.build(values)
        for step in range(12):
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients(step)], values)
        found[name] = [np.asarray(v) for v in (*values, *optimizer.variables)]
    assert len(found["ours"]) == len(found["keras"]) == 3 + 1 + 6
    # 2e-6: TensorFlow rounds 0.999 to float32 before it takes it from 1, Keras after.
    assert apart(found["ours"], found["keras"]) < 1e-5
    assert apart(found["ours"], [np.asarray(v) for v in variables()] + found["ours"][3:]) > 0.1
    assert apart(found["other"], found["keras"]) > 1e-4
