"""Bias correction before int8 (Nagel et al. 2019, arXiv 1906.04721, section 4.2).

Rounding a weight to int8 shifts the mean of the outputs it contributes to: with W + e in place of
W, the output is E[e x] off on average, the same for every image. The shift is known and goes into
the bias. It matters most where large weights of both signs nearly cancel each other, as in the
first depthwise convolution of MobileNetV2.
"""

from collections.abc import Sequence

import keras
import numpy as np

from .channels import channel_statistics, is_depthwise, plain_convolution, producer

# An int8 convolution holds its bias as int32, in steps of (input step * weight step). Channels
# whose weights are all but zero would need more: 2^26 steps leave room for the sum itself.
BIAS_STEPS = 2.0**26
# ReLU6 tensors have a step of 6 / 255, most others a larger one.
INPUT_STEP = 0.01


def correct_biases(model: keras.Model, images: Sequence[np.ndarray]) -> dict[str, float]:
    """Corrects the biases of a model of fixed size, in place, for int8 weights.

    The corrected model is only meant to be quantised: in float it is off by what was corrected.

    Args:
        model: what `fix_size` gave.
        images: uint8 (H, W, 3), from the training split.

    Returns:
        The largest correction of each convolution, by its name.
    """
    convs = [layer for layer in model.layers if plain_convolution(layer) and layer.use_bias]
    inputs = {conv.name: producer(conv.input).name for conv in convs}
    statistics = channel_statistics(model, images, inputs.values())
    largest = {}
    for conv in convs:
        kernel, bias = conv.get_weights()
        error = rounded(conv, kernel) - kernel
        # Zero padding is left out of the mean: it touches the outermost pixels only.
        shift = error.sum((0, 1)) * statistics[inputs[conv.name]].mean[:, None]
        shift = shift.reshape(-1) if is_depthwise(conv) else shift.sum(0)
        conv.set_weights([kernel, bias - shift])
        largest[conv.name] = float(np.abs(shift).max())
    return largest


def rounded(conv, kernel: np.ndarray) -> np.ndarray:
    """A kernel as int8 will hold it: symmetric, one step size for each output channel."""
    axes = (0, 1) if is_depthwise(conv) else (0, 1, 2)
    step = np.abs(kernel).max(axes, keepdims=True) / 127
    step = np.where(step > 0, step, 1)
    return np.round(kernel / step) * step


def revive_dead_channels(model: keras.Model) -> dict[str, int]:
    """Gives channels whose weights are all but zero a weight that int8 can work with, in place.

    Pretrained nets have channels that no input reaches: weights near 1e-20 and a bias. The step
    of such a channel's bias follows from its weights and would be so small that the bias
    overflows int32 and is lost. One weight of about a hundred-thousandth of the bias keeps it.

    Returns:
        The number of such channels, by convolution.
    """
    revived = {}
    for conv in model.layers:
        if not plain_convolution(conv) or not conv.use_bias:
            continue
        kernel, bias = conv.get_weights()
        # (taps, output channel): a depthwise kernel's own channel is its output channel.
        taps = kernel.reshape(kernel.shape[0] * kernel.shape[1], -1, len(bias))
        if is_depthwise(conv):
            taps = taps.reshape(-1, 1, len(bias))
        floor = 127 * np.abs(bias) / (BIAS_STEPS * INPUT_STEP)
        dead = np.abs(taps).max((0, 1)) < floor
        if dead.any():
            taps[0, 0, dead] = floor[dead]
            conv.set_weights([taps.reshape(kernel.shape), bias])
            revived[conv.name] = int(dead.sum())
    return revived
