"""The forward pass of a net for inference, with batch normalisation as one operation.

Keras spells batch normalisation out as a multiplication and an addition over the whole map, which
TensorFlow does not join with anything while the weights are variables. The layers of the net stay
Keras' own; only what they do while this function is traced is replaced.
"""

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterator

import keras
import numpy as np

_FUNCTIONS = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def run_net(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What `model.predict_on_batch` gives, sooner.

    Args:
        model: `(B, H, W, 3)` to one output.
        images: float32 `(B, H, W, 3)`.

    Returns:
        The model's output, to rounding.
    """
    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch(images)
    with _LOCK:  # Beam's workers are threads
        if model not in _FUNCTIONS:
            _FUNCTIONS[model] = _function(weakref.ref(model))
        forward = _FUNCTIONS[model]
    return forward(images).numpy()


def _function(model):
    """The traced forward pass; it holds the model weakly, as it is kept as long as the model."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def forward(images):
        with norms_as(model(), _call):  # while it is traced
            return model()(images, training=False)

    return forward


@contextlib.contextmanager
def norms_as(model: keras.Model, call: Callable) -> Iterator[None]:
    """Has the batch normalisation of `model` done by `call` in what is traced inside.

    The layers stay Keras' own, so that a file saved from the net is stock.

    Args:
        model: the net.
        call: `(layer, usual, inputs, training=None, mask=None)`, where `usual` is the layer's own
            `call`.
    """
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.call = functools.partial(call, layer, layer.call)
    try:
        yield
    finally:
        for layer in norms:
            vars(layer).pop("call")


def scale_and_offset(layer: keras.layers.BatchNormalization):
    """Gamma and beta as float32 `(C,)`, ones and zeros where the layer has none."""
    import tensorflow as tf

    channels = layer.moving_mean.shape[0]
    scale = layer.gamma if layer.scale else tf.ones(channels)
    offset = layer.beta if layer.center else tf.zeros(channels)
    return tuple(tf.cast(tf.convert_to_tensor(vector), tf.float32) for vector in (scale, offset))


def _call(layer, usual, inputs, training=None, mask=None):
    """`BatchNormalization.call` of maps `(B, H, W, C)` by the moving statistics."""
    import tensorflow as tf

    if layer.axis not in (-1, 3) or len(inputs.shape) != 4 or training or mask is not None:
        return usual(inputs, training=training, mask=mask)
    scale, offset = scale_and_offset(layer)
    mean, variance = (
        tf.cast(tf.convert_to_tensor(moving), tf.float32)
        for moving in (layer.moving_mean, layer.moving_variance)
    )
    return tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=layer.epsilon,
        is_training=False,
    )[0]
