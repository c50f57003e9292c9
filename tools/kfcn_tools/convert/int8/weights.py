"""Weights as int8 holds them, and channels that it could not hold."""

import keras
import numpy as np

from kfcn_tools.convert.int8.channels import is_depthwise, plain_convolution

# An int8 convolution holds its bias as int32, in steps of (input step * weight step). Channels
# whose weights are all but zero would need more: 2^26 steps leave room for the sum itself.
BIAS_STEPS = 2.0**26
# ReLU6 tensors have a step of 6 / 255, most others a larger one.
INPUT_STEP = 0.01


def rounded(kernel: np.ndarray, axis: int) -> np.ndarray:
    """A kernel as int8 holds it: symmetric, a step size for each output channel (`axis`)."""
    step = steps(kernel, axis)
    return np.round(kernel / step) * step


def steps(kernel: np.ndarray, axis: int) -> np.ndarray:
    """The step sizes of the output channels (`axis`), to divide the kernel by; 1 for zeros."""
    others = tuple(a for a in range(kernel.ndim) if a != axis % kernel.ndim)
    step = np.abs(kernel).max(others, keepdims=True) / 127
    return np.where(step > 0, step, 1)


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
        # (taps, input, output channel); a depthwise kernel's own channel is its output channel.
        shape = (-1, 1, len(bias)) if is_depthwise(conv) else (-1, kernel.shape[2], len(bias))
        taps = kernel.reshape(shape)
        floor = 127 * np.abs(bias) / (BIAS_STEPS * INPUT_STEP)
        dead = np.abs(taps).max((0, 1)) < floor
        if dead.any():
            taps[0, 0, dead] = floor[dead]
            conv.set_weights([taps.reshape(kernel.shape), bias])
            revived[conv.name] = int(dead.sum())
    return revived
