"""A net of convolutions only: no pooling, no stride, full resolution from end to end.

The receptive field must then grow by dilation. Rates that double from layer to layer make it grow
exponentially while the parameters grow linearly, and every pixel inside is seen (Yu and Koltun,
"Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016, arXiv 1511.07122, section 2;
the rates are those of their context module, one doubling longer). Undilated 3x3 layers alone would
need 65 layers for the same field.
"""

import keras
from keras import layers

from kfcn.nets.backbones import BATCH_NORM_MOMENTUM

# Two layers at rate 1 for edges, doublings up to 32 for context, one at rate 1 against gridding.
RATES = (1, 1, 2, 4, 8, 16, 32, 1)


def convnet(classes: int, width: int = 16, rates: tuple[int, ...] = RATES) -> keras.Model:
    """A segmentation net of 3x3 convolutions at stride 1.

    Every convolution works at the image's full resolution, so it costs what its width costs
    everywhere: it is kept narrow. The receptive field is `1 + 2 * sum(rates)` pixels, 131 by
    default, at stride 1 and offset 0.

    Args:
        classes: number of classes.
        width: channels of every layer.
        rates: dilation of each 3x3 layer.

    Returns:
        A functional model of stock layers: RGB `(B, H, W, 3)` in 0..255, any size, normalised
        inside, to logits float32 `(B, H, W, classes)`. The layer `score` (1x1) starts at zero.
    """
    inputs = keras.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalize")(inputs)
    for number, rate in enumerate(rates, start=1):
        # No bias: the batch normalisation behind it has one.
        x = layers.Conv2D(
            width,
            3,
            dilation_rate=rate,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(x)
        x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"conv{number}_bn")(x)
        x = layers.ReLU(name=f"conv{number}_relu")(x)  # (B, H, W, width)
    # Float32 also under mixed precision: softmax and argmax need the resolution.
    score = layers.Conv2D(classes, 1, kernel_initializer="zeros", name="score", dtype="float32")(x)
    return keras.Model(inputs, score, name="convnet")
