"""EfficientNet-Lite: EfficientNet without squeeze-and-excite and with ReLU6, made for int8.

M. Tan and Q. V. Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*
(ICML 2019); the Lite variants are those of the TPU repository (`efficientnet/lite`). Lite0 is

    image (B, H, W, 3), RGB, 0..255
      -> normalize: (x - 127) / 128
      -> stem                      (B, H/2, W/2, 32)
      -> block1                    (B, H/2, W/2, 16)
      -> block2a, b                (B, H/4, W/4, 24)
      -> block3a, b                (B, H/8, W/8, 40)
      -> block4a, b, c             (B, H/16, W/16, 80)
      -> block5a, b, c             (B, H/16, W/16, 112)
      -> block6a, b, c, d          (B, H/32, W/32, 192)
      -> block7a                   (B, H/32, W/32, 320)
      -> top                       (B, H/32, W/32, 1280)
      -> predictions, a classifier's: (B, classes)

Lite1 and Lite2 are deeper, and Lite2 is wider, by the factors of `SCALES`; stem, top and the first
and the last stage keep their depth.

Strided convolutions are padded as TensorFlow's 'same' pads even maps, at the end first, and always
so: with 'same' itself the cells of an odd map would lie elsewhere.
"""

import math
from pathlib import Path

import keras
from keras import layers

# Kernel, stride of the first block, expansion, channels, blocks.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


SCALES = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
"""Net -> how much wider and deeper it is than Lite0."""


def stages(net: str) -> tuple[tuple[int, int, int, int, int], ...]:
    """`STAGES` at the width and depth of one of `SCALES`."""
    width, depth = SCALES[net]
    scaled = []
    for stage in STAGES:
        *rest, channels, blocks = stage
        if stage not in (STAGES[0], STAGES[-1]):
            blocks = math.ceil(depth * blocks)
        scaled.append((*rest, _eights(width * channels), blocks))
    return tuple(scaled)


def _eights(channels: float) -> int:
    """The nearest multiple of 8, unless it is less than 0.9 of them."""
    nearest = 8 * int((channels + 4) // 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def block_names(net: str) -> list[str]:
    """The names of the blocks in their order: `block1a`, `block2a`, `block2b` and so on."""
    return [
        f"block{number}{letter}"
        for number, (*_, blocks) in enumerate(stages(net), start=1)
        for letter in "abcde"[:blocks]
    ]


def efficientnet_lite0(image: keras.KerasTensor) -> keras.Model:
    """The body, untrained: from an image tensor `(B, H, W, 3)` to `(B, H/32, W/32, 1280)`."""
    return _body(image, "efficientnet_lite0")


def efficientnet_lite1(image: keras.KerasTensor) -> keras.Model:
    """The body, untrained: from an image tensor `(B, H, W, 3)` to `(B, H/32, W/32, 1280)`."""
    return _body(image, "efficientnet_lite1")


def efficientnet_lite2(image: keras.KerasTensor) -> keras.Model:
    """The body, untrained: from an image tensor `(B, H, W, 3)` to `(B, H/32, W/32, 1280)`."""
    return _body(image, "efficientnet_lite2")


def _body(image, net):
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="normalize")(image)
    x = _padded(x, 3, "stem")
    x = layers.Conv2D(32, 3, strides=2, use_bias=False, name="stem_conv")(x)
    x = _normalized(x, "stem", relu=True)
    names = iter(block_names(net))
    for kernel, stride, expansion, channels, blocks in stages(net):
        for block in range(blocks):
            first = stride if block == 0 else 1
            x = _block(x, next(names), kernel, first, expansion, channels)
    x = layers.Conv2D(1280, 1, use_bias=False, name="top_conv")(x)
    return keras.Model(image, _normalized(x, "top", relu=True), name=net)


def classifier(net: str = "efficientnet_lite0", classes: int = 1000) -> keras.Model:
    """The whole classifier, untrained: `(B, 224, 224, 3)` RGB 0..255 to probabilities."""
    image = keras.Input((224, 224, 3), name="image")
    x = layers.GlobalAveragePooling2D(name="pool")(_body(image, net).output)
    x = layers.Dropout(0.2, name="drop")(x)
    x = layers.Dense(classes, activation="softmax", name="predictions")(x)
    return keras.Model(image, x, name=net)


def imagenet_classifier() -> keras.Model:
    """EfficientNet-Lite0 with the ImageNet weights that come with the package."""
    from kfcn.nets.weights import read_tensors, shipped_weights

    net = classifier()
    tensors = read_tensors(shipped_weights(net.name))
    for layer in net.layers:
        if layer.weights:
            layer.set_weights(tensors[layer.name])
    return net


def imagenet_names() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, in the order of the classifiers' outputs."""
    path = Path(__file__).with_name("imagenet_classes.txt")
    return tuple(path.read_text(encoding="utf-8").splitlines())


def _block(x, name, kernel, stride, expansion, channels):
    """An inverted residual block (Sandler et al. 2018) without squeeze-and-excite."""
    skip = x
    if expansion > 1:
        x = layers.Conv2D(expansion * x.shape[-1], 1, use_bias=False, name=f"{name}_expand_conv")(x)
        x = _normalized(x, f"{name}_expand", relu=True)
    padding = "same" if stride == 1 else "valid"
    if stride > 1:
        x = _padded(x, kernel, name)
    x = layers.DepthwiseConv2D(
        kernel, strides=stride, padding=padding, use_bias=False, name=f"{name}_dwconv"
    )(x)
    x = _normalized(x, name, relu=True)
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _normalized(x, f"{name}_project")
    if stride == 1 and skip.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([skip, x])
    return x


def _padded(x, kernel, name):
    pads = ((kernel - 2) // 2, (kernel - 1) // 2)  # (0, 1) for 3, (1, 2) for 5
    return layers.ZeroPadding2D((pads, pads), name=f"{name}_pad")(x)


def _normalized(x, name, relu=False):
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_activation")(x) if relu else x
