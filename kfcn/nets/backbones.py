"""Classifiers' bodies and the taps that a head may draw on.

A backbone takes an RGB image of 0 to 255 and gives one tap for each stride; a head knows only
the taps. Normalisation is part of the graph. Most nets are those of `keras.applications`, always
built for unknown sizes: with a known one some of them choose another padding and the same
weights give another result.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kfcn.errors import UsageError
from kfcn.nets.efficientnet_lite import efficientnet_lite0

# Keras' own 0.99 to 0.999 needs thousands of steps before the moving statistics fit the new
# data; a net that trains well then evaluates as if untrained.
BATCH_NORM_MOMENTUM = 0.95


@dataclasses.dataclass(frozen=True)
class Tap:
    """A map that a head may use.

    Attributes:
        tensor: `(B, ceil(H/stride), ceil(W/stride), channels)`, one row or column less for some
            backbones at odd sizes.
        stride: input pixels from one cell to the next.
        offset: input pixel at the centre of cell 0 (at even sizes).
        layer: name of the layer that gives it.
    """

    tensor: keras.KerasTensor
    stride: int
    offset: float
    layer: str

    @property
    def channels(self) -> int:
        return self.tensor.shape[-1]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A row of the table: how to build a body, where its taps are, how to find its weights."""

    build: Callable[..., keras.Model]  # image tensor, **options -> the body
    taps: dict[int, str]  # stride -> layer name
    offset: Callable[[int], float]  # stride -> centre of cell 0 in input pixels
    application: str | None  # class in keras.applications that has the ImageNet weights; None:
    # they come with the package (`kfcn.nets.weights.SHIPPED`)
    include_top: bool = False
    caffe: bool = False  # ImageNet weights expect BGR minus the mean
    options: tuple[str, ...] = ()


def _two_centred(x):
    """To -1..1, as the MobileNets were trained."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="normalize")(x)


def _minus_mean(x):
    """Minus ImageNet's mean, in RGB: `kfcn.nets.weights` turns the first kernel from BGR to RGB."""
    return keras.layers.Normalization(
        mean=[123.68, 116.779, 103.939], variance=[1.0, 1.0, 1.0], name="normalize"
    )(x)


def _standardized(x):
    """Minus mean, divided by deviation of ImageNet, as EfficientNetV2 was trained."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return keras.layers.Normalization(
        mean=list(255 * mean), variance=list((255 * deviation) ** 2), name="normalize"
    )(x)


def _mobilenet_v2(image, alpha=1.0):
    return keras.applications.MobileNetV2(
        input_tensor=_two_centred(image), include_top=False, weights=None, alpha=alpha
    )


def _mobilenet_v3_large(image):
    body = keras.applications.MobileNetV3Large(
        input_tensor=_two_centred(image),
        include_top=False,
        weights=None,
        include_preprocessing=False,
    )
    # Its last activation has a generated name; taps and saved files need one that stays.
    last = body.get_layer("conv_1_bn").output
    last = keras.layers.Activation("hard_swish", name="conv_1_activation")(last)
    return keras.Model(image, last)


def _resnet50(image):
    return keras.applications.ResNet50(
        input_tensor=_minus_mean(image), include_top=False, weights=None
    )


def _efficientnet_v2_b0(image):
    return keras.applications.EfficientNetV2B0(
        input_tensor=_standardized(image),
        include_top=False,
        weights=None,
        include_preprocessing=False,
    )


def _vgg16(image, fc_filters=4096):
    """VGG16 with the classifier's fc6 and fc7 as convolutions (Long et al. 2015, section 3.1).

    Written out because the pooling of `keras.applications` drops the last row of an odd map: an
    image below 32 pixels would end in a map of no cells. At even sizes the two are equal.
    """
    x = _minus_mean(image)
    for block, (depth, filters) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for index in range(1, depth + 1):
            x = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",  # without batch norm Glorot's fades away
                name=f"block{block}_conv{index}",
            )(x)
        x = keras.layers.MaxPooling2D(2, padding="same", name=f"block{block}_pool")(x)
    for name, size in (("fc6", 7), ("fc7", 1)):
        x = keras.layers.Conv2D(
            fc_filters,
            size,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=name,
        )(x)
        x = keras.layers.Dropout(0.5, name=f"drop_{name}")(x)
    return keras.Model(image, x)


def _strides_minus_one(stride):
    return stride - 1  # every strided convolution is padded (0, 1)


def _half_stride(stride):
    return (stride - 1) / 2  # 2x2 pooling


def _zero(stride):
    return 0  # padded on both sides, then strided


BACKBONES = {
    "vgg16": Backbone(
        _vgg16,
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
        _mobilenet_v2,
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
        _mobilenet_v3_large,
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
        _resnet50,
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
        _efficientnet_v2_b0,
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
    # Its taps are the widest maps of a stride, as those of mobilenet_v2: what is expanded for the
    # strided depthwise convolution that leaves it.
    "efficientnet_lite0": Backbone(
        efficientnet_lite0,
        {
            2: "block2a_expand_activation",
            4: "block3a_expand_activation",
            8: "block4a_expand_activation",
            16: "block6a_expand_activation",
            32: "top_activation",
        },
        _strides_minus_one,
        application=None,
    ),
}


CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def taps(
    image: keras.KerasTensor, backbone: str, output_stride: int = 32, **options: Any
) -> dict[int, Tap]:
    """Builds a backbone on an image tensor.

    Args:
        image: symbolic `(B, H, W, 3)`, RGB, 0 to 255.
        backbone: a key of `BACKBONES`.
        output_stride: 32, or 16 or 8: strides beyond it are removed and later filters dilated
            (`kfcn.to_atrous`), so that the coarsest maps are finer, at the cost of computation.
        options: of that backbone (`alpha` of mobilenet_v2, `fc_filters` of vgg16).

    Returns:
        A tap for each of the backbone's own strides 2, 4, 8, 16 and 32. Beyond `output_stride`
        a tap's `stride` is `output_stride`.

    Raises:
        UsageError: an unknown backbone or option, or another output stride.
        KfcnError: a backbone that cannot be dilated.
    """
    entry = row(backbone)
    unknown = set(options) - set(entry.options)
    if unknown:
        raise UsageError(
            f"backbone {backbone} has no option {', '.join(sorted(unknown))}; "
            f"it has: {', '.join(entry.options) or 'none'}"
        )
    if output_stride not in (8, 16, 32):
        raise UsageError(f"output stride {output_stride}: expected 8, 16 or 32")
    body = entry.build(image, **options)
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    if output_stride < 32:
        body = _denser(body, image, list(entry.taps.values()), output_stride)
    keep_last_cells(body)
    found = {}
    for stride, name in entry.taps.items():
        tensor, here = body.get_layer(name).output, min(stride, output_stride)
        # A dense map's cells lie where the net's padding has them.
        offset = entry.offset(stride) if here == stride else _offset(image, tensor, here)
        found[stride] = Tap(tensor, here, offset, name)
    return found


def _denser(body, image, names, output_stride):
    """The untrained body with strides removed, on the same image."""
    from kfcn.rewrite import to_atrous

    maps = keras.Model(body.inputs, [body.get_layer(name).output for name in names])
    dense = to_atrous(maps, output_stride, centered=True)
    return keras.models.clone_model(dense, input_tensors=[image])


def _offset(image, tensor, stride) -> float:
    """The place of cell 0 that an enlarging kernel can have and that is nearest to the true one."""
    from kfcn.rewrite import receptive_fields

    centre = receptive_fields(keras.Model(image, tensor))[0].offset
    centre = centre[0] if isinstance(centre, tuple) else centre
    return min((0, (stride - 1) / 2, stride - 1), key=lambda place: abs(place - centre))


def keep_last_cells(body: keras.Model) -> None:
    """Pads odd maps so that strided layers keep their last row and column.

    The MobileNets' explicit padding, made for even maps, drops them, and leaves an image below 32
    pixels with no cell at all. One more row at the end is stepped over at even sizes.
    """
    for layer in body.layers:
        if not isinstance(layer, CONVOLUTIONS) or layer.padding != "valid":
            continue
        padding = layer.input._keras_history.operation
        if not isinstance(padding, keras.layers.ZeroPadding2D):
            continue
        padding.padding = tuple(
            (before, after + 1) if stride == 2 and before + after == kernel - 2 else (before, after)
            for (before, after), kernel, stride in zip(
                padding.padding, layer.kernel_size, layer.strides, strict=True
            )
        )


def row(backbone: str) -> Backbone:
    """The row of a backbone.

    Raises:
        UsageError: there is none of this name.
    """
    if backbone not in BACKBONES:
        raise UsageError(f"unknown backbone '{backbone}'; expected one of {', '.join(BACKBONES)}")
    return BACKBONES[backbone]
