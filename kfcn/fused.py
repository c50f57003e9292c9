"""The forward pass of a net for inference, in the operations that TensorFlow is quickest at.

Keras spells batch normalisation out as a multiplication and an addition over the whole map, which
TensorFlow does not join with anything while the weights are variables; and `kfcn.upsample` cuts
maps by gathers, as a saved net has to for sizes that are known only later. The layers of the net
stay Keras' own; only what they do while this function is traced is replaced.
"""

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator

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
        with calls_as(norms(model()), _norm), cuts_as_slices(model()):  # while it is traced
            return model()(images, training=False)

    return forward


@contextlib.contextmanager
def calls_as(operations: Iterable[keras.Operation], call: Callable) -> Iterator[None]:
    """Has layers or operations of a net done by `call` in what is traced inside.

    They stay Keras' own, so that a file saved from the net is stock.

    Args:
        operations: of the net.
        call: `(operation, usual, *inputs, **options)`, where `usual` is the operation's own `call`.
    """
    replaced = list(operations)
    for operation in replaced:
        operation.call = functools.partial(call, operation, operation.call)
    try:
        yield
    finally:
        for operation in replaced:
            vars(operation).pop("call")


def norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The batch normalisation layers of a net."""
    return [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]


def cuts_as_slices(model: keras.Model):
    """Has the gathers of `kfcn.upsample.match_size` done by slices in what is traced inside.

    Where both sizes are known while it is traced. The gradient of a gather adds up row by row
    and transposes twice, a sixteenth of a MobileNetV2 step; that of a slice pads.

    Args:
        model: a net of kfcn, whose only gathers are those of `match_size`.
    """
    return calls_as([x for x in model.operations if type(x).__name__ == "Take"], _cut)


def _cut(operation, usual, x, indices):
    """`Take.call` for the indices min(0 .. n-1, last) of `match_size`."""
    import tensorflow as tf

    axis, wanted = operation.axis, indices.shape[0]
    if axis not in (1, 2) or len(x.shape) != 4 or None in (wanted, x.shape[axis]):
        return usual(x, indices)
    short = wanted - x.shape[axis]
    if short == 0:
        return x
    if short < 0:
        return x[:, :wanted] if axis == 1 else x[:, :, :wanted]
    last = x[:, -1:] if axis == 1 else x[:, :, -1:]
    return tf.concat([x, *[last] * short], axis)


def scale_and_offset(layer: keras.layers.BatchNormalization):
    """Gamma and beta as float32 `(C,)`, ones and zeros where the layer has none."""
    import tensorflow as tf

    channels = layer.moving_mean.shape[0]
    scale = layer.gamma if layer.scale else tf.ones(channels)
    offset = layer.beta if layer.center else tf.zeros(channels)
    return tuple(tf.cast(tf.convert_to_tensor(vector), tf.float32) for vector in (scale, offset))


def _norm(layer, usual, inputs, training=None, mask=None):
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
