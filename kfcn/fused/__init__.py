"""What a net of kfcn does while it is traced, in the operations that TensorFlow is quickest at.

A saved net is made of stock layers that work for any size, and some of them are slow: Keras spells
batch normalisation out over the whole map, `kfcn.nets.upsample` enlarges by a transposed
convolution between all classes and cuts by gathers. The layers stay as they are; only what
they do while a function is traced is replaced, by operations that give the same values to
rounding.

`run_net` is the forward pass for inference; `kfcn.training.step` traces its own.
"""

from kfcn.fused.calls import calls_as
from kfcn.fused.cuts import cuts_as_slices
from kfcn.fused.depthwise import kernel_gradients_in_parts
from kfcn.fused.enlargements import enlarged_by_channel, fixed_enlargements
from kfcn.fused.inference import run_net
from kfcn.fused.norms import norms, scale_and_offset

__all__ = [
    "calls_as",
    "cuts_as_slices",
    "enlarged_by_channel",
    "fixed_enlargements",
    "kernel_gradients_in_parts",
    "norms",
    "run_net",
    "scale_and_offset",
]
