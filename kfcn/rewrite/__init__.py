"""From one Keras model to another with the same weights, and what a model sees.

One walk over a model's graph (`walker.py`) carries the three: `convolutionalize` (a classifier
becomes a fully convolutional net), `to_atrous` (strides removed, later filters dilated) and
`receptive_field`. The model that is given is never changed.

What every rewrite keeps: weights (copied, not shared with the given model), layer names, dtype
policies, `trainable` flags, nested models (rewritten inside, still nested) and layers that are
called several times (one layer stays one layer where its calls need the same form; where they do
not, for instance at two dilation rates, each form gets a copy of the weights of its own). What is
not kept: the compile state (optimizer, loss, metrics). `keras.Sequential` comes back as a
functional model. Images are channels-last.
"""

from kfcn.rewrite.atrous import to_atrous
from kfcn.rewrite.classifier import convolutionalize
from kfcn.rewrite.field import ReceptiveField, receptive_field, receptive_fields
from kfcn.rewrite.pooling import DilatedPooling2D

__all__ = [
    "DilatedPooling2D",
    "ReceptiveField",
    "convolutionalize",
    "receptive_field",
    "receptive_fields",
    "to_atrous",
]
