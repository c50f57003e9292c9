"""A net that ends in a softmax becomes one that returns logits."""

import keras
from keras import layers

from kfcn.graph import inputs, is_operation, is_stock, place
from kfcn.rewrite.walker import as_functional

_LAST = (layers.Conv2D, layers.SeparableConv2D, layers.Conv2DTranspose, layers.Dense)


def as_logits(model: keras.Model) -> keras.Model:
    """The net without the softmax over classes in which it ends; the net itself where it has none.

    The labels stay as they are. Whoever makes probabilities of what it returns, compares two
    classes by their difference or rounds to 8 bits expects logits.

    Args:
        model: functional or Sequential, `(B, H, W, 3)` to `(B, H, W, C)`. Its layers are shared,
            but for the last one where the softmax is a part of it: that is copied.
    """
    graph = as_functional(model)
    last, call, _ = place(graph.outputs[0])
    if _is_softmax(last):
        (logits,) = inputs(last, call)
    elif is_stock(last, *_LAST) and last.activation is keras.activations.softmax:
        copy = type(last).from_config(last.get_config() | {"activation": "linear"})
        logits = copy(*inputs(last, call))
        copy.set_weights(last.get_weights())
    else:
        return model
    return keras.Model(graph.inputs[0], logits, name=graph.name)


def _is_softmax(operation):
    if is_stock(operation, layers.Activation):
        return operation.activation is keras.activations.softmax
    softmax = is_stock(operation, layers.Softmax) or is_operation(operation, "Softmax")
    return softmax and operation.axis in (-1, 3)
