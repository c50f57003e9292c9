"""Per-channel statistics of a model's tensors, and who feeds whom, for the rewrites before int8."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from kfcn.graph import inputs, is_stock, producer

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
# Layers that keep channels apart and commute with a positive factor on each.
TRANSPARENT = (keras.layers.ZeroPadding2D,)


@dataclass(frozen=True)
class Channels:
    """Statistics of one tensor over images and positions, each float32 (C,)."""

    low: np.ndarray
    high: np.ndarray


def channel_statistics(
    model: keras.Model, images: Iterable[np.ndarray], names: Iterable[str]
) -> dict[str, Channels]:
    """Smallest and largest value of each channel of the named operations' outputs.

    Args:
        model: of fixed size, input (1, H, W, 3) RGB 0..255.
        images: uint8 (H, W, 3).
        names: of operations with one output (1, h, w, C).
    """
    outputs = {operation.name: operation.output for operation in model.operations}
    wanted = {}
    for name in names:
        ends = [end(outputs[name], (0, 1, 2)) for end in (ops.min, ops.max)]
        wanted[name] = ops.stack(ends)
    seen = on_each(model, images, wanted)
    return {name: Channels(v[:, 0].min(0), v[:, 1].max(0)) for name, v in seen.items()}


def on_each(
    model: keras.Model, images: Iterable[np.ndarray], tensors: dict[str, keras.KerasTensor]
) -> dict[str, np.ndarray]:
    """What tensors that follow from a model's input are, image by image.

    Args:
        model: of fixed size, input (1, H, W, 3) RGB 0..255.
        images: uint8 (H, W, 3).
        tensors: by any name, each (...).

    Returns:
        By the same names, each (images, ...).
    """
    function = keras.Function(model.inputs, tensors)
    # One traced graph: eager calls of some two hundred operations would take longer than the net.
    import tensorflow as tf

    traced = tf.function(lambda image: function([image]))
    seen = [traced(tf.constant(image[None], tf.float32)) for image in images]
    return {name: np.stack([np.asarray(values[name]) for values in seen]) for name in tensors}


def readers_of(model: keras.Model) -> dict[str, list]:
    """For each operation's name the operations of the model that read its output.

    Padding is looked through: its readers stand in its place.
    """
    direct = {operation.name: [] for operation in model.operations}
    for operation in model.operations:
        for source in {producer(tensor).name: None for tensor in inputs(operation)}:
            direct[source].append(operation)

    def resolve(name):
        found = []
        for reader in direct[name]:
            found += resolve(reader.name) if isinstance(reader, TRANSPARENT) else [reader]
        return found

    return {name: resolve(name) for name in direct}


def is_depthwise(layer: keras.Operation) -> bool:
    """Whether a layer convolves each channel alone."""
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def plain_convolution(operation: keras.Operation) -> bool:
    """A convolution whose input channels can be scaled: Conv2D or depthwise, no groups."""
    return is_stock(operation, *CONVOLUTIONS) and getattr(operation, "groups", 1) == 1
