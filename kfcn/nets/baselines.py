"""Nets with one coarse map and no skips: the baseline by nearest neighbour, and the dilated FCN.

Both show what the skips of `kfcn.nets.fcn` are worth: the first against no interpolation at all,
the second against a denser map bought with computation.
"""

from pathlib import Path
from typing import Unpack

import keras

from kfcn.nets.backbones import BodyOptions
from kfcn.nets.fcn import score
from kfcn.nets.taps import taps
from kfcn.nets.upsample import match_size, upsample
from kfcn.nets.weights import fill_backbone


def heatmap(
    classes: int,
    backbone: str = "vgg16",
    *,
    weights: Path | str | None = None,
    **options: Unpack[BodyOptions],
) -> keras.Model:
    """Class scores at stride 32, each enlarged to a block of 32x32 pixels.

    Args:
        classes: number of classes C.
        backbone: a key of `kfcn.nets.backbones.BACKBONES`.
        weights: what the backbone starts from, as in `kfcn.nets.fcn.fcn8s`.
        options: of the backbone.

    Returns:
        `(B, H, W, 3)` RGB 0..255 to logits `(B, H, W, C)`, any size, stock layers.
    """
    image = keras.Input((None, None, 3), name="image")
    tap = taps(image, backbone, **options)[32]
    x = score(tap.tensor, classes, "score_fr")
    x = keras.layers.UpSampling2D(32, interpolation="nearest", dtype="float32", name="upscore")(x)
    model = keras.Model(image, match_size(x, image), name="heatmap")
    return fill_backbone(model, backbone, weights, **options)


def dilated(
    classes: int,
    backbone: str = "vgg16",
    output_stride: int = 8,
    *,
    weights: Path | str | None = None,
    **options: Unpack[BodyOptions],
) -> keras.Model:
    """The dilated FCN: strides beyond `output_stride` removed, later filters dilated.

    This is the net that torchvision and mmsegmentation call "FCN" (with a larger head); it is not
    the FCN-8s of the paper. The backbone keeps its weights and layer names.

    Args:
        classes: number of classes C.
        backbone: vgg16, mobilenet_v2, resnet50 or an EfficientNet-Lite; nets with
            squeeze-and-excite cannot be dilated.
        output_stride: 8 or 16.
        weights: what the backbone starts from, as in `kfcn.nets.fcn.fcn8s`.
        options: of the backbone.

    Returns:
        `(B, H, W, 3)` RGB 0..255 to logits `(B, H, W, C)`, any size. With vgg16 it holds the kfcn
        layer `DilatedPooling2D`, otherwise stock layers only.

    Raises:
        KfcnError: a backbone that cannot be dilated, or weights that do not fit it.
    """
    image = keras.Input((None, None, 3), name="image")
    tap = taps(image, backbone, output_stride, **options)[32]
    x = score(tap.tensor, classes, "score_fr")
    x = upsample(x, tap.stride, "upscore", offset=tap.offset, dtype="float32")
    model = keras.Model(image, match_size(x, image), name="dilated")
    return fill_backbone(model, backbone, weights, **options)
