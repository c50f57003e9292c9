"""FCN-8s with a feature pyramid that draws the outlines.

The skips of an FCN add class scores, each a linear function of one map: at strides 4 and 2, where
a map knows edges and not yet things, such a score can say little. Here the fine maps meet what the
coarse ones know before a class is named, as in the feature pyramid of Lin et al., *Feature Pyramid
Networks for Object Detection* (CVPR 2017); its scores are added to those of FCN-8s.

    taps of the backbone at strides 32, 16, 8, 4, 2
      -> fuse_pool3 of FCN-8s                                           (B, H/8, W/8, C)
      -> pyramid: lateral32, and at strides 16, 8, 4, 2:
           relu(enlarged twice + lateral), separable 3x3 convolution    (B, H/s, W/s, D)
      -> score_pyramid + fuse_pool3 enlarged four times = fuse_pyramid  (B, H/2, W/2, C)
      -> upscore_pool1                                                  (B, H, W, C) logits
"""

from pathlib import Path
from typing import Unpack

import keras

from kfcn.nets import fcn
from kfcn.nets.backbones import BATCH_NORM_MOMENTUM, BodyOptions
from kfcn.nets.upsample import match_size, upsample
from kfcn.nets.weights import fill_backbone

# D by stride. A third of FPN's 256 channels, as the head is to cost less than a small backbone;
# fewer where a map is large.
CHANNELS = {32: 96, 16: 96, 8: 96, 4: 64, 2: 32}


def fcn8s_fpn(
    classes: int,
    backbone: str = "vgg16",
    *,
    weights: Path | str | None = None,
    learn_middle: bool = True,
    learn_last: bool = False,
    align: bool = False,
    output_stride: int = 32,
    **body: Unpack[BodyOptions],
) -> keras.Model:
    """FCN-8s, corrected at stride 2 by a feature pyramid. Arguments as in `kfcn.nets.fcn.fcn8s`.

    The pyramid's scores start at zero, and all layers of FCN-8s but its last upsampling are in it
    by name: a trained FCN-8s is where to start from.
    """
    image, tap, scores = fcn.scores(
        classes,
        backbone,
        finest=8,
        learn_middle=learn_middle,
        align=align,
        output_stride=output_stride,
        **body,
    )
    x = _lateral(tap[32].tensor, 32)
    for stride in (16, 8, 4, 2):
        if x.shape[-1] != CHANNELS[stride]:
            x = keras.layers.Conv2D(CHANNELS[stride], 1, name=f"narrow{stride}")(x)
        skip = _lateral(tap[stride].tensor, stride)
        # Not `UpSampling2D`: bilinear, it cannot be traced for a size known only at run time.
        if tap[stride].stride < tap[2 * stride].stride:
            shift = fcn.offset(tap, 2 * stride, stride) if align else None
            x = upsample(x, 2, f"enlarge{stride}", offset=shift)
        x = keras.layers.Add(name=f"join{stride}")([match_size(x, skip), skip])
        x = keras.layers.ReLU(6.0, name=f"join{stride}_relu")(x)
        x = _separable(x, f"smooth{stride}")  # (B, H/stride, W/stride, D)
    detail = fcn.score(x, classes, "score_pyramid")
    shift = fcn.offset(tap, 8, 2) if align else None
    scores = upsample(scores, 4, "upscore_pool3", offset=shift)
    x = keras.layers.Add(name="fuse_pyramid")([match_size(scores, detail), detail])
    shift = fcn.offset(tap, 2) if align else None
    x = upsample(x, 2, fcn.LAST[2], offset=shift, trainable=learn_last, dtype="float32")
    model = keras.Model(image, match_size(x, image), name="fcn8s_fpn")
    return fill_backbone(model, backbone, weights, **body)


def _lateral(x, stride):
    x = keras.layers.Conv2D(CHANNELS[stride], 1, use_bias=False, name=f"lateral{stride}")(x)
    return _normalized(x, f"lateral{stride}")


def _separable(x, name):
    channels = x.shape[-1]
    x = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = keras.layers.ReLU(6.0, name=f"{name}_depthwise_relu")(_normalized(x, f"{name}_depthwise"))
    x = keras.layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_pointwise")(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(_normalized(x, name))


def _normalized(x, name):
    return keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_BN")(x)
