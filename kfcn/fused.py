"""The forward pass of a net for inference, with batch normalisation as one operation.

Keras spells batch normalisation out as a multiplication and an addition over the whole map, which
TensorFlow does not join with anything while the weights are variables. The layers of the net stay
Keras' own; only what they do while this function is traced is replaced.
"""

import contextlib
import functools
import weakref
from collections.abc import Iterator

import keras
import numpy as np

_FUNCTIONS = weakref.WeakKeyDictionary()


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
    if model not in _FUNCTIONS:
        _FUNCTIONS[model] = _function(weakref.ref(model))
    return _FUNCTIONS[model](images).numpy()


def _function(model):
    """The traced forward pass; it holds the model weakly, as it is kept as long as the model."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def forward(images):
        with _fused_norms(model()):  # while it is traced
            return model()(images, training=False)

    return forward


@contextlib.contextmanager
def _fused_norms(model: keras.Model) -> Iterator[None]:
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.call = functools.partial(_call, layer, layer.call)
    try:
        yield
    finally:
        for layer in norms:
            vars(layer).pop("call")


def _call(layer, usual, inputs, training=None, mask=None):
    """`BatchNormalization.call` of maps `(B, H, W, C)` by the moving statistics."""
    import tensorflow as tf

    if layer.axis not in (-1, 3) or len(inputs.shape) != 4 or training or mask is not None:
        return usual(inputs, training=training, mask=mask)
    channels = inputs.shape[-1]
    scale = layer.gamma if layer.scale else tf.ones(channels)
    offset = layer.beta if layer.center else tf.zeros(channels)
    vectors = (scale, offset, layer.moving_mean, layer.moving_variance)
    vectors = [tf.cast(tf.convert_to_tensor(vector), tf.float32) for vector in vectors]
    return tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=vectors[0],
        offset=vectors[1],
        mean=vectors[2],
        variance=vectors[3],
        epsilon=layer.epsilon,
        is_training=False,
    )[0]
