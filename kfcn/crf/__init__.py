"""CRF-RNN: the fully connected CRF as a layer, in TensorFlow operations alone.

- `DenseCRF`: the layer, called on `[logits, image]`.
- `add_crf(model)`: a model with the CRF on top of another's logits.
- `NO_WEIGHT_DECAY`: the names of the variables that an optimizer's weight decay must not touch.
- `builtin_ops()`: the context in which to trace a model that is to become a `.tflite`.
"""

from kfcn.crf.layer import NO_WEIGHT_DECAY, DenseCRF
from kfcn.crf.on_top import add_crf
from kfcn.crf.permutohedral import builtin_ops

__all__ = ["NO_WEIGHT_DECAY", "DenseCRF", "add_crf", "builtin_ops"]
