"""The table of backbones: classifiers' bodies, and where the maps are that a head may draw on.

A row imports no Keras: `--help`, checks and documentation read it. `kfcn.nets.taps` builds.
"""

import dataclasses
from collections.abc import Callable
from typing import TypedDict

from kfcn.errors import UsageError

# Keras' own 0.99 to 0.999 needs thousands of steps before the moving statistics fit the new
# data; a net that trains well then evaluates as if untrained.
BATCH_NORM_MOMENTUM = 0.95


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A row of the table: how to build a body, where its taps are, how to find its weights.

    Attributes:
        build: "module:function" from an image tensor `(B, H, W, 3)`, RGB 0..255, and `options` to
            the untrained body, a `keras.Model`.
        about: a line for help and documentation.
        taps: stride -> layer name.
        offset: stride -> centre of cell 0 in input pixels (at even sizes).
        application: class in `keras.applications` that has the ImageNet weights; None: Keras has
            none; those of efficientnet_lite0 come with the package
            (`kfcn.nets.weights.shipped_weights`).
        include_top: whether the body holds layers of the classifier's top.
        caffe: ImageNet weights expect BGR minus the mean.
        options: what `build` takes beside the image.
    """

    build: str
    about: str
    taps: dict[int, str]
    offset: Callable[[int], float]
    application: str | None
    include_top: bool = False
    caffe: bool = False
    options: tuple[str, ...] = ()


class BodyOptions(TypedDict, total=False):
    """What may be chosen of a backbone; each takes what its row lists.

    Attributes:
        alpha: width of mobilenet_v2.
        fc_filters: channels of vgg16's fc6 and fc7.
    """

    alpha: float
    fc_filters: int


def _strides_minus_one(stride):
    return stride - 1  # every strided convolution is padded (0, 1)


def _half_stride(stride):
    return (stride - 1) / 2  # 2x2 pooling


def _zero(stride):
    return 0  # padded on both sides, then strided


def _efficientnet_lite(net, about):
    return Backbone(
        f"kfcn.nets.efficientnet_lite:{net}",
        about,
        # The widest maps of a stride, as those of mobilenet_v2: what is expanded for the strided
        # depthwise convolution that leaves it.
        {
            2: "block2a_expand_activation",
            4: "block3a_expand_activation",
            8: "block4a_expand_activation",
            16: "block6a_expand_activation",
            32: "top_activation",
        },
        _strides_minus_one,
        application=None,
    )


BACKBONES = {
    "vgg16": Backbone(
        "kfcn.nets.bodies:vgg16",
        "the paper's; fc6 and fc7 are filled from the classifier's Dense weights",
        {
            2: "block1_pool",
            4: "block2_pool",
            8: "block3_pool",
            16: "block4_pool",
            32: "drop_fc7",
        },
        _half_stride,
        "VGG16",
        include_top=True,
        caffe=True,
        options=("fc_filters",),
    ),
    "mobilenet_v2": Backbone(
        "kfcn.nets.bodies:mobilenet_v2",
        "2.3 M parameters with the FCN-8s head",
        {
            2: "block_1_expand_relu",
            4: "block_3_expand_relu",
            8: "block_6_expand_relu",
            16: "block_13_expand_relu",
            32: "out_relu",
        },
        _strides_minus_one,
        "MobileNetV2",
        options=("alpha",),
    ),
    "mobilenet_v3_large": Backbone(
        "kfcn.nets.bodies:mobilenet_v3_large",
        "with squeeze-and-excite: cannot be dilated",
        {
            2: "expanded_conv_add",
            4: "expanded_conv_2_add",
            8: "expanded_conv_5_add",
            16: "expanded_conv_11_add",
            32: "conv_1_activation",
        },
        _strides_minus_one,
        "MobileNetV3Large",
    ),
    "resnet50": Backbone(
        "kfcn.nets.bodies:resnet50",
        "24 M parameters with the FCN-8s head",
        {
            2: "conv1_relu",
            4: "conv2_block3_out",
            8: "conv3_block4_out",
            16: "conv4_block6_out",
            32: "conv5_block3_out",
        },
        _zero,
        "ResNet50",
        caffe=True,
    ),
    "efficientnet_v2_b0": Backbone(
        "kfcn.nets.bodies:efficientnet_v2_b0",
        "with squeeze-and-excite: cannot be dilated",
        {
            2: "block1a_project_activation",
            4: "block2b_add",
            8: "block3b_add",
            16: "block5e_add",
            32: "top_activation",
        },
        _strides_minus_one,
        "EfficientNetV2B0",
    ),
    "efficientnet_lite0": _efficientnet_lite(
        "efficientnet_lite0", "made for int8; its ImageNet weights come with kfcn, no network"
    ),
    "efficientnet_lite1": _efficientnet_lite(
        "efficientnet_lite1", "seven blocks deeper than Lite0, 0.8 M parameters more"
    ),
    "efficientnet_lite2": _efficientnet_lite(
        "efficientnet_lite2", "as deep as Lite1 and a tenth wider, 1.5 M parameters more than Lite0"
    ),
}


def row(backbone: str) -> Backbone:
    """The row of a backbone.

    Raises:
        UsageError: there is none of this name.
    """
    if backbone not in BACKBONES:
        raise UsageError(f"unknown backbone '{backbone}'; expected one of {', '.join(BACKBONES)}")
    return BACKBONES[backbone]
