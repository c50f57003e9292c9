"""The forward pass of a net for inference."""

import threading
import weakref
from collections.abc import Callable

import keras
import numpy as np

from kfcn.fused.clipped import clipped_after
from kfcn.fused.cuts import slices
from kfcn.fused.enlargements import by_channel
from kfcn.fused.norms import folded
from kfcn.fused.resizes import resizes
from kfcn.graph import replay

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


def inference_functions(model: keras.Model) -> dict[keras.Operation, Callable]:
    """What `kfcn.graph.replay` is to call in the place of a net's operations; for inference."""
    import tensorflow as tf

    instead = slices(model) | folded(model) | resizes(model)
    if not tf.config.list_physical_devices("GPU"):  # these were measured on CPUs only
        instead |= by_channel(model) | clipped_after(model)
    return instead


def _function(model):
    """The traced forward pass; it holds the model weakly, as it is kept as long as the model."""
    import tensorflow as tf

    instead = inference_functions(model)
    model = weakref.ref(model)

    @tf.function(reduce_retracing=True, autograph=False)
    def forward(images):
        return replay(model(), images, instead)

    return forward
