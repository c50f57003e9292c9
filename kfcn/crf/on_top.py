"""A CRF on top of any net of this package: the net of CRF-RNN (Zheng et al. 2015, figure 3)."""

from typing import Any

import keras

from kfcn.crf.layer import DenseCRF
from kfcn.errors import UsageError
from kfcn.rewrite.walker import as_functional, copied


def add_crf(model: keras.Model, **crf: Any) -> keras.Model:
    """A new model: the given net, and a `DenseCRF` on its logits and its input image.

    The net is cloned with its weights, and the layers keep their names and `trainable` flags: the
    given model stays as it is, and training the new one does not change it. The new model is not
    compiled.

    Args:
        model: functional or sequential Keras model from RGB images (B, H, W, 3) in 0..255 to
            logits (B, H, W, C) of the same size, such as any net of kfcn.
        **crf: arguments of `DenseCRF`.

    Returns:
        keras.Model with the same input; its last layer is named "crf".

    Raises:
        UsageError: when the model has several inputs or outputs, their shapes do not go together,
            or it has a CRF already.
        KfcnError: for a subclassed or unbuilt model, which have no graph.
    """
    model = as_functional(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(
            "Expected a model with one input (RGB images) and one output (logits). "
            f"Received: {len(model.inputs)} inputs and {len(model.outputs)} outputs."
        )
    if any(isinstance(layer, DenseCRF) for layer in model.layers):
        raise UsageError(f"model '{model.name}' has a CRF already: expected a net without one")
    net = copied(model)
    image, logits = net.inputs[0], net.outputs[0]
    refined = DenseCRF(**{"name": "crf", **crf})([logits, image])
    return keras.Model(image, refined, name=f"{model.name}_crf")
