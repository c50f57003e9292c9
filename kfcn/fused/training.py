"""The forward pass of a training step."""

from collections.abc import Callable

import keras
import tensorflow as tf

from kfcn.fused.batch_norm import over_batch
from kfcn.fused.cuts import slices
from kfcn.fused.depthwise import depthwise_convolutions
from kfcn.fused.enlargements import by_channel
from kfcn.fused.recompute import replay_in_segments
from kfcn.graph import replay


def training_forward(
    model: keras.Model, replicas: int = 1, recompute: bool = False, moving: bool = True
) -> Callable[[tf.Tensor], tf.Tensor]:
    """What `model(images, training=True)` does, sooner; to be traced.

    Args:
        model: the net.
        replicas: how many there are; batch normalisation takes the statistics of all together.
        recompute: keep fewer maps for the gradient (`kfcn.fused.recompute`); on one replica.
        moving: whether the moving statistics of batch normalisation take the batch in.

    Returns:
        A function of images float32 `(B, H, W, 3)` that gives the logits. Its gradients reach the
        variables of the net.
    """
    instead = slices(model) | over_batch(model, replicas, moving)
    again = over_batch(model, replicas, moving=False)
    if not tf.config.list_physical_devices("GPU"):  # these were measured on CPUs only
        instead |= by_channel(model) | depthwise_convolutions(model)

    @tf.autograph.experimental.do_not_convert  # it holds nothing to convert, and that takes a while
    def forward(images):
        if recompute:
            return replay_in_segments(model, images, instead, instead | again)
        return replay(model, images, instead, training=True)

    return forward
