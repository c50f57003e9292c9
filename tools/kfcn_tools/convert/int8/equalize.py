"""Equal channel ranges across layers, before int8 (Nagel et al. 2019, arXiv 1906.04721).

An int8 tensor has one step size for all its channels: a channel that uses a hundredth of the
tensor's range is left with two or three of the 256 values. Scaling a convolution's output channel
up by s and the weights that read it down by s leaves the net as it is and gives that channel more
of them. Weights are quantised by output channel, so that the scaling costs the producer nothing,
and a depthwise reader nothing either.

The paper scales across ReLU, which commutes with a positive factor. MobileNet's ReLU6 does not;
here a channel whose largest value over the calibration images is m < 6 is scaled by 6 / m at
most, which moves its clip from 6 to m: the same net as long as no image exceeds m (`MARGIN`
leaves some room).
"""

from collections.abc import Sequence

import keras
import numpy as np

from kfcn.graph import is_stock, producer
from kfcn_tools.convert.int8.channels import (
    channel_statistics,
    is_depthwise,
    plain_convolution,
    readers_of,
)

# How far above the largest value seen on the calibration images a channel may still go.
MARGIN = 1.1
# Where the reader mixes channels, its weights of scaled-up channels shrink below the row's
# largest and lose precision themselves: half of the factor (in log scale) goes each way.
MIXED_POWER = 0.5
LARGEST = 1e4


def equalize(model: keras.Model, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Equalises a model of fixed size in place.

    Args:
        model: what `fix_size` gave.
        images: uint8 (H, W, 3), from the training split.

    Returns:
        The factors (C,) on the output channels of each activation, by its name.
    """
    pairs = _pairs(model)
    statistics = channel_statistics(model, images, [activation.name for activation, *_ in pairs])
    factors = {}
    for activation, conv, readers in pairs:
        high = statistics[activation.name].high
        top = float(activation.max_value)
        power = 1.0 if all(is_depthwise(reader) for reader in readers) else MIXED_POWER
        room = np.where(high > 0, top / np.maximum(high * MARGIN, 1e-12), 1.0)
        factor = np.clip(room, 1.0, LARGEST) ** power
        scale_outputs(conv, factor)
        for reader in readers:
            scale_inputs(reader, 1 / factor)
        factors[activation.name] = factor
    return factors


def _pairs(model):
    """(ReLU6, convolution before it, convolutions that alone read it)."""
    found, readers_by_name = [], readers_of(model)
    for layer in model.layers:
        if not is_stock(layer, keras.layers.ReLU) or not layer.max_value:
            continue
        conv = producer(layer.input)
        readers = readers_by_name[layer.name]
        alone = plain_convolution(conv) and len(readers_by_name[conv.name]) == 1
        if alone and readers and all(plain_convolution(reader) for reader in readers):
            found.append((layer, conv, readers))
    return found


def scale_outputs(conv: keras.layers.Layer, factor: np.ndarray) -> None:
    """Multiplies a convolution's output channels."""
    kernel, *bias = conv.get_weights()
    shaped = factor.reshape(kernel.shape[2:]) if is_depthwise(conv) else factor
    conv.set_weights([kernel * shaped, *(b * factor for b in bias)])


def scale_inputs(conv: keras.layers.Layer, factor: np.ndarray) -> None:
    """Multiplies the weights that read each input channel of a convolution."""
    kernel, *bias = conv.get_weights()
    conv.set_weights([kernel * factor[:, None], *bias])
