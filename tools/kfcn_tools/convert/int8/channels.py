"""Per-channel statistics of a model's tensors, and who feeds whom, for the rewrites before int8."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from kfcn.graph import inputs, producer

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
# Layers that keep channels apart and commute with a positive factor on each.
TRANSPARENT = (keras.layers.ZeroPadding2D,)


@dataclass(frozen=True)
class Channels:
    """Statistics of one tensor over images and positions, each float32 (C,)."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray


def channel_statistics(
    model: keras.Model, images: Iterable[np.ndarray], names: Iterable[str]
) -> dict[str, Channels]:
    """Smallest, largest and mean value of each channel of the named operations' outputs.

    Args:
        model: of fixed size, input (1, H, W, 3) RGB 0..255.
        images: uint8 (H, W, 3).
        names: of operations with one output (1, h, w, C).
    """
    names = list(dict.fromkeys(names))
    by_name = {operation.name: operation for operation in model.operations}
    reduced = []
    for name in names:
        x = by_name[name].output
        reduced.append([f(x, axis=(0, 1, 2)) for f in (ops.min, ops.max, ops.mean)])
    function = keras.Function(model.inputs, reduced)
    # One traced graph: eager calls of some two hundred operations would take longer than the net.
    import tensorflow as tf

    traced = tf.function(lambda image: function([image]))
    seen = [
        [[np.asarray(v) for v in triple] for triple in traced(tf.constant(image[None], tf.float32))]
        for image in images
    ]
    return {
        name: Channels(
            np.min([s[i][0] for s in seen], axis=0),
            np.max([s[i][1] for s in seen], axis=0),
            np.mean([s[i][2] for s in seen], axis=0),
        )
        for i, name in enumerate(names)
    }


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
    return isinstance(operation, CONVOLUTIONS) and not isinstance(
        operation, keras.layers.Conv2DTranspose
    )
