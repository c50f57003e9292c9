"""Quantisation-aware fine-tuning: the net learns to live with int8 rounding.

After each layer stands a node that rounds as int8 will (Jacob et al. 2018, arXiv 1712.05877), and
convolutions round their weights; the gradient passes through as if they did not. The teacher is
the trained net itself, in float: the student learns to give its scores, so that no labels are
needed and what is optimised is the agreement that is gated later. Ranges are calibrated and
biases corrected once beforehand: left to the optimiser, the biases' large error would move the
weights first. On an FCN-8s of MobileNetV2 a short fine-tune gained nothing over bias correction
alone, and rates of 2e-5 without and 1e-4 with that start lost agreement: see `LEARNING_RATE`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kfcn.rewrite.walker import give_weights
from kfcn_tools.convert.int8.channels import (
    channel_statistics,
    is_depthwise,
    on_each,
    plain_convolution,
    readers_of,
)
from kfcn_tools.convert.int8.weights import rounded

BATCH = 4
# Adam's first steps move every weight by about the rate, however small the weight: the rate has
# to stay far below the steps of int8, and rises over the first part of the training.
LEARNING_RATE = 4e-6
WARMUP = 1 / 6


@keras.saving.register_keras_serializable(package="kfcn")
class FakeQuant(keras.layers.Layer):
    """Rounds a tensor to 256 steps of a fixed range; the gradient ignores the rounding.

    Args:
        low: start of the range, <= 0.
        high: its end, > low.
    """

    def __init__(self, low: float, high: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.low, self.high = float(low), float(high)

    def call(self, x: Any) -> Any:
        """Any shape."""
        step = max(self.high - self.low, 1e-8) / 255
        zero = round(-self.low / step)
        low, high = -zero * step, (255 - zero) * step
        x = ops.clip(x, low, high)
        return x + ops.stop_gradient(ops.round(x / step) * step - x)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"low": self.low, "high": self.high}


class _RoundedConv2D(keras.layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, _round_kernel(kernel, (0, 1, 2)))


class _RoundedDepthwise(keras.layers.DepthwiseConv2D):
    def call(self, inputs):
        kernel = _round_kernel(self.kernel, (0, 1))
        x = ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return self.activation(x + self.bias if self.use_bias else x)


def _round_kernel(kernel, axes):
    step = ops.stop_gradient(ops.max(ops.abs(kernel), axes, keepdims=True)) / 127
    step = ops.maximum(step, 1e-12)
    return kernel + ops.stop_gradient(ops.round(kernel / step) * step - kernel)


def fake_quantized(fixed: keras.Model, images: Sequence[np.ndarray]) -> keras.Model:
    """A copy of a model of fixed size whose weights and activations are rounded as in int8.

    Args:
        fixed: what `fix_size` gave.
        images: uint8 (H, W, 3), whose ranges are taken.

    Returns:
        A model for any batch size. Its layers with weights have the names of those they stand for.
    """
    rounded = _rounded_outputs(fixed)
    statistics = channel_statistics(fixed, images, rounded)

    def clone(layer):
        config = layer.get_config()
        kinds = {
            keras.layers.Conv2D: _RoundedConv2D,
            keras.layers.DepthwiseConv2D: _RoundedDepthwise,
        }
        return kinds.get(type(layer), type(layer)).from_config(config)

    def call(operation, *args, **kwargs):
        kwargs.pop("training", None)
        x = operation(*args, **kwargs)
        if isinstance(operation, keras.layers.Layer):
            give_weights(operation, fixed.get_layer(operation.name).get_weights())
        if operation.name in statistics:
            seen = statistics[operation.name]
            low, high = min(0.0, seen.low.min()), max(0.0, seen.high.max())
            x = FakeQuant(low, high, name=f"{operation.name}_rounded")(x)
        return x

    inputs = keras.Input(fixed.inputs[0].shape[1:], name="image")
    copy = keras.models.clone_model(
        fixed,
        input_tensors=keras.tree.map_structure(lambda _: inputs, fixed.input),
        clone_function=clone,
        call_function=call,
    )
    return keras.Model(inputs, copy.outputs[0])


def fine_tune(
    fixed: keras.Model,
    images: Sequence[np.ndarray],
    epochs: int,
    calibration: Sequence[np.ndarray],
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> list[float]:
    """Fine-tunes a model of fixed size for int8, in place.

    Args:
        fixed: what `fix_size` gave; its biases are corrected on the way.
        images: uint8 (H, W, 3), the training split.
        epochs: passes over them.
        calibration: uint8 (H, W, 3), for the ranges.
        learning_rate: of Adam, rising over the first sixth, then falling to zero along a cosine.
        seed: of the order and the mirroring.
        progress: gets a line after each epoch.

    Returns:
        The mean loss of each epoch (Kullback-Leibler divergence from the float scores, in nats).
    """
    student = fake_quantized(fixed, calibration)
    teacher = keras.models.clone_model(
        fixed,
        input_tensors=keras.tree.map_structure(
            lambda _: keras.Input(fixed.inputs[0].shape[1:]), fixed.input
        ),
    )
    give_weights(teacher, fixed.get_weights())
    teacher.trainable = False
    correct_biases(student, fixed, calibration)
    steps = epochs * -(-len(images) // BATCH)
    warmup = int(WARMUP * steps)
    student.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                0.0, steps - warmup, warmup_target=learning_rate, warmup_steps=warmup
            )
            if warmup
            else learning_rate
        )
    )
    rng = np.random.default_rng(seed)
    losses = []
    step = _train_step(student, teacher)
    for epoch in range(epochs):
        order = rng.permutation(len(images))
        total = 0.0
        for start in range(0, len(order), BATCH):
            batch = [images[i][:, :: rng.choice((-1, 1))] for i in order[start : start + BATCH]]
            total += float(step(np.stack(batch).astype(np.float32))) * len(batch)
        losses.append(total / len(images))
        progress(f"quantisation-aware epoch {epoch + 1}/{epochs}: loss {losses[-1]:.5f}")
    for layer in fixed.layers:
        if layer.get_weights():
            layer.set_weights(student.get_layer(layer.name).get_weights())
    return losses


def correct_biases(student: keras.Model, fixed: keras.Model, images: Sequence[np.ndarray]) -> None:
    """Takes the mean error of weights rounded to the nearest out of the biases, in place.

    Args:
        student: what `fake_quantized` gave.
        fixed: the model that it stands for.
        images: uint8 (H, W, 3), over which the error is averaged.
    """
    errors = {}
    for layer in filter(plain_convolution, fixed.layers):
        if not layer.use_bias:
            continue
        kernel = layer.get_weights()[0]
        # What the error of the weights gives by itself, of the inputs that the layer has.
        alone = {"name": f"{layer.name}_error", "use_bias": False, "activation": None}
        error = type(layer).from_config(layer.get_config() | alone)
        output = error(layer.input)
        error.set_weights([rounded(kernel, 2 if is_depthwise(layer) else 3) - kernel])
        errors[layer.name] = output
    means = on_each(fixed, images, {name: ops.mean(x, (0, 1, 2)) for name, x in errors.items()})
    for name, shifts in means.items():
        layer = student.get_layer(name)
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, bias - shifts.mean(0)])


def _train_step(student, teacher):
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def step(batch):
        wanted = ops.log_softmax(teacher(batch, training=False))
        with tf.GradientTape() as tape:
            given = ops.log_softmax(student(batch, training=True))
            loss = ops.mean(ops.sum(ops.exp(wanted) * (wanted - given), axis=-1))
        gradients = tape.gradient(loss, student.trainable_variables)
        student.optimizer.apply(gradients, student.trainable_variables)
        return loss

    return step


def _rounded_outputs(fixed) -> list[str]:
    """Operations whose output int8 stores.

    Where an activation follows a convolution alone the two are one operator, and only the
    activation's output is stored. Padding and slices store what they were given.
    """
    readers = readers_of(fixed)
    names = []
    for operation in fixed.operations:
        alone = readers[operation.name][:1]
        fused = (
            plain_convolution(operation)
            and len(readers[operation.name]) == 1
            and isinstance(alone[0], keras.layers.ReLU)
        )
        kinds = (
            keras.layers.Conv2D,
            keras.layers.DepthwiseConv2D,
            keras.layers.Conv2DTranspose,
            keras.layers.ReLU,
            keras.layers.Add,
            keras.layers.Rescaling,
            keras.layers.Normalization,
        )
        if isinstance(operation, kinds) and not fused:
            names.append(operation.name)
    return names
