"""Bodies of classifiers, untrained, on an image of RGB 0..255; `kfcn.nets.backbones` lists them.

Normalisation is part of the graph. Most nets are those of `keras.applications`, always built for
unknown sizes: with a known one some of them choose another padding and the same weights give
another result.
"""

import keras
import numpy as np


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


def mobilenet_v2(image: keras.KerasTensor, alpha: float = 1.0) -> keras.Model:
    """MobileNetV2 of `keras.applications`, `alpha` times as wide."""
    return keras.applications.MobileNetV2(
        input_tensor=_two_centred(image), include_top=False, weights=None, alpha=alpha
    )


def mobilenet_v3_large(image: keras.KerasTensor) -> keras.Model:
    """MobileNetV3Large of `keras.applications`."""
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


def resnet50(image: keras.KerasTensor) -> keras.Model:
    """ResNet50 of `keras.applications`."""
    return keras.applications.ResNet50(
        input_tensor=_minus_mean(image), include_top=False, weights=None
    )


def efficientnet_v2_b0(image: keras.KerasTensor) -> keras.Model:
    """EfficientNetV2B0 of `keras.applications`."""
    return keras.applications.EfficientNetV2B0(
        input_tensor=_standardized(image),
        include_top=False,
        weights=None,
        include_preprocessing=False,
    )


def vgg16(image: keras.KerasTensor, fc_filters: int = 4096) -> keras.Model:
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
