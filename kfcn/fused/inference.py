"""The forward pass of a net for inference."""

import threading
import weakref

import keras
import numpy as np

from kfcn.fused.calls import calls_as
from kfcn.fused.cuts import cuts_as_slices
from kfcn.fused.enlargements import enlarged_by_channel, fixed_enlargements
from kfcn.fused.norms import by_moving_statistics, folded_norms, norms

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
            _FUNCTIONS[model] = _function(model)
        forward = _FUNCTIONS[model]
    return forward(images).numpy()


def _function(model):
    """The traced forward pass; it holds the model weakly, as it is kept as long as the model."""
    import tensorflow as tf

    fixed = fixed_enlargements(model)
    model = weakref.ref(model)

    @tf.function(reduce_retracing=True)
    def forward(images):
        net = model()
        with (
            calls_as(norms(net), by_moving_statistics),
            folded_norms(net),
            cuts_as_slices(net),
            enlarged_by_channel(fixed),
        ):
            return net(images, training=False)

    return forward
