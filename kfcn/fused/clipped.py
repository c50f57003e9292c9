"""ReLU6 in two operations."""

from collections.abc import Callable

import keras

from kfcn.graph import is_stock


def clipped_after(model: keras.Model) -> dict[keras.Operation, Callable]:
    """`min(relu(x), 6)` instead of `relu6(x)`, for `kfcn.graph.replay`; the same bits.

    TensorFlow's grappler joins a ReLU6 to the convolution before it. On processors without AVX-512,
    oneDNN has no quick kernel for that clip: of the joined 1x1 convolutions each took 2.6 times as
    long as one that ends in ReLU, and a whole MobileNetV2 2.4 times as long (docs/benchmarks.md).
    The ReLU alone is joined without such a loss, and the minimum costs less than can be measured.
    """
    return dict.fromkeys((layer for layer in model.layers if _is_relu6(layer)), _relu_then_minimum)


def _is_relu6(layer):
    if is_stock(layer, keras.layers.Activation):
        return layer.activation is keras.activations.relu6
    plain = is_stock(layer, keras.layers.ReLU) and not layer.negative_slope
    return plain and not layer.threshold and layer.max_value == 6


def _relu_then_minimum(x):
    import tensorflow as tf

    return tf.minimum(tf.nn.relu(x), tf.cast(6, x.dtype))
