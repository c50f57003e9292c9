"""FCN-32s, FCN-16s, FCN-8s, and on to FCN-4s and FCN-2s.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation (CVPR 2015),
section 4.2 and figure 3. Layer names are those of the published nets.

    image (B, H, W, 3), RGB, 0..255
      -> backbone: pool3 (B, H/8, W/8, .), pool4 (B, H/16, W/16, .), fc7 (B, H/32, W/32, .)
      -> score_fr on fc7                                  (B, H/32, W/32, C)
      -> upscore2, + score_pool4 = fuse_pool4             (B, H/16, W/16, C)
      -> upscore_pool4, + score_pool3 = fuse_pool3        (B, H/8, W/8, C)
      -> upscore8                                         (B, H, W, C) logits

The paper stops at stride 8, where its gains had become small on PASCAL's large objects. What is a
pixel or two wide, as a pole in a street, is lost by then: 4s and 2s go on in the same way.

Any height and width: every stage is cut (or, one short, padded) to the map that it meets.
"""

from pathlib import Path
from typing import NamedTuple, Unpack

import keras

from kfcn.errors import UsageError
from kfcn.nets.backbones import BodyOptions
from kfcn.nets.taps import Tap, taps
from kfcn.nets.upsample import match_size, upsample
from kfcn.nets.weights import fill_backbone


class Options(BodyOptions, total=False):
    """What may be chosen of a net and its backbone: see `fcn8s`."""

    weights: Path | str | None
    learn_middle: bool
    learn_last: bool
    align: bool
    output_stride: int


class Skip(NamedTuple):
    """What one skip adds, by the names of the published nets.

    Attributes:
        pool: the map of VGG16 that the skip comes from.
        up: the upsampling of the coarser scores.
    """

    pool: str
    up: str


# By stride, from coarse to fine; beyond 8 the names go on as they began.
SKIPS = {
    16: Skip("pool4", "upscore2"),
    8: Skip("pool3", "upscore_pool4"),
    4: Skip("pool2", "upscore_pool3"),
    2: Skip("pool1", "upscore_pool2"),
}
# How the skips are scaled where all are trained at once, by stride.
ATONCE = {16: 0.01, 8: 0.0001}
# The last upsampling, by its stride.
LAST = {32: "upscore", 16: "upscore16", 8: "upscore8", 4: "upscore4", 2: "upscore_pool1"}


def fcn32s(classes: int, backbone: str = "vgg16", **options: Unpack[Options]) -> keras.Model:
    """FCN-32s: the class scores at stride 32, enlarged 32 times. Arguments as in `fcn8s`."""
    return _fcn(classes, backbone, finest=32, name="fcn32s", **options)


def fcn16s(classes: int, backbone: str = "vgg16", **options: Unpack[Options]) -> keras.Model:
    """FCN-16s: FCN-32s with one skip from stride 16. Arguments as in `fcn8s`."""
    return _fcn(classes, backbone, finest=16, name="fcn16s", **options)


def fcn8s(classes: int, backbone: str = "vgg16", **options: Unpack[Options]) -> keras.Model:
    """FCN-8s: skips from stride 16 and stride 8.

    Args:
        classes: number of classes C, at least 2.
        backbone: a key of `kfcn.nets.backbones.BACKBONES`.
        weights: what the backbone starts from: None for random numbers, "imagenet", or a file, as
            in `kfcn.nets.weights.load_weights`. For `efficientnet_lite0` "imagenet" comes with the
            package; for other backbones Keras downloads it. Default None.
        learn_middle: whether the two 2x upsampling layers learn (the paper) or stay bilinear
            (the authors' released nets). Default True.
        learn_last: whether the last upsampling learns. Default False, as published.
        align: use kernels that put each cell where the backbone's padding has it, instead of the
            usual ones, which are right for 2x2 pooling. Default False.
        output_stride: 32; 16 or 8 for a backbone dilated from there on, whose maps of the same
            stride are added without upsampling.
        options: of the backbone, e.g. `alpha=0.35`.

    Returns:
        An uncompiled functional model of stock layers: `(B, H, W, 3)` RGB 0..255 in, logits
        float32 `(B, H, W, C)` out, for any H and W. Scores start at zero, so that a fresh net
        says "all equal".

    Raises:
        UsageError: an unknown backbone or option, fewer than two classes, or no such file.
        KfcnError: weights that cannot be downloaded or read, or that belong to another backbone.
    """
    return _fcn(classes, backbone, finest=8, name="fcn8s", **options)


def fcn4s(classes: int, backbone: str = "vgg16", **options: Unpack[Options]) -> keras.Model:
    """FCN-4s: FCN-8s and one skip more, from stride 4. Arguments as in `fcn8s`."""
    return _fcn(classes, backbone, finest=4, name="fcn4s", **options)


def fcn2s(classes: int, backbone: str = "vgg16", **options: Unpack[Options]) -> keras.Model:
    """FCN-2s: FCN-4s and one skip more, from stride 2. Arguments as in `fcn8s`."""
    return _fcn(classes, backbone, finest=2, name="fcn2s", **options)


def fcn8s_atonce(classes: int, backbone: str = "vgg16", **options: Unpack[Options]) -> keras.Model:
    """FCN-8s for training in one go: the skips start scaled by 0.01 and 0.0001.

    The scales stand before the score layers, as in the published `voc-fcn8s-atonce`; they keep
    the large activations of the early layers from drowning the coarse scores.
    """
    return _fcn(classes, backbone, finest=8, name="fcn8s_atonce", atonce=True, **options)


def _fcn(
    classes: int,
    backbone: str,
    finest: int,
    name: str,
    atonce: bool = False,
    weights: Path | str | None = None,
    learn_middle: bool = True,
    learn_last: bool = False,
    align: bool = False,
    output_stride: int = 32,
    **body: Unpack[BodyOptions],
) -> keras.Model:
    image, tap, x = scores(
        classes, backbone, finest, atonce, learn_middle, align, output_stride, **body
    )
    x = upsample(
        x,
        tap[finest].stride,
        LAST[finest],
        offset=offset(tap, finest) if align else None,
        trainable=learn_last,
        dtype="float32",  # also under mixed precision: softmax and argmax need the resolution
    )
    logits = match_size(x, image)  # (B, H, W, C)
    return fill_backbone(keras.Model(image, logits, name=name), backbone, weights, **body)


def scores(
    classes: int,
    backbone: str,
    finest: int,
    atonce: bool = False,
    learn_middle: bool = True,
    align: bool = False,
    output_stride: int = 32,
    **body: Unpack[BodyOptions],
) -> tuple[keras.KerasTensor, dict[int, Tap], keras.KerasTensor]:
    """The net up to its last sum.

    Args:
        classes: number of classes C.
        backbone: a key of `kfcn.nets.backbones.BACKBONES`.
        finest: stride of the last skip.
        atonce: scale the skips as `fcn8s_atonce`.
        learn_middle: whether the 2x upsampling layers learn.
        align: as in `fcn8s`.
        output_stride: of the backbone.
        body: options of the backbone.

    Returns:
        The image `(B, H, W, 3)`, the taps by stride, the scores `(B, H/finest, W/finest, C)`.
    """
    if classes < 2:
        raise UsageError(f"expected at least 2 classes; received {classes}")
    image = keras.Input((None, None, 3), name="image")
    tap = taps(image, backbone, output_stride, **body)
    x = score(tap[32].tensor, classes, "score_fr")  # (B, H/32, W/32, C)
    for stride, skip in SKIPS.items():
        if stride < finest:
            break
        if tap[stride].stride < tap[2 * stride].stride:
            shift = offset(tap, 2 * stride, stride) if align else None
            x = upsample(x, 2, skip.up, offset=shift, trainable=learn_middle)
        pool = tap[stride].tensor
        if atonce:
            pool = keras.layers.Rescaling(ATONCE[stride], name=f"scale_{skip.pool}")(pool)
        pool = score(pool, classes, f"score_{skip.pool}")
        # (B, H/stride, W/stride, C)
        x = keras.layers.Add(name=f"fuse_{skip.pool}")([match_size(x, pool), pool])
    return image, tap, x


def offset(tap: dict[int, Tap], coarse: int, fine: int = 1) -> float:
    """Where the grid of the tap `fine`, or of the image, has cell 0 of `coarse`, in its cells."""
    if fine == 1:
        return tap[coarse].offset
    return (tap[coarse].offset - tap[fine].offset) / tap[fine].stride


def score(x: keras.KerasTensor, classes: int, name: str) -> keras.KerasTensor:
    """1x1 convolution to class scores, zero at the start (section 4.3)."""
    return keras.layers.Conv2D(classes, 1, kernel_initializer="zeros", name=name)(x)
