"""Class heatmaps: what a classifier, made convolutional, says of each place of an image.

Figure 2 of the FCN paper (arXiv 1411.4038): a classifier turned into a fully convolutional net
puts out a map of class probabilities for an image of any size.
"""

import math
import numbers

import keras
import numpy as np

from kfcn.errors import UsageError
from kfcn.inference.protocol import resize, softmax
from kfcn.inference.scales import SCALES, scaled_size
from kfcn.rewrite import convolutionalize, to_atrous
from kfcn.rewrite.classifier import gives_probabilities

LONGEST = 32
"""A picture that has to be enlarged may be this much longer than the classifier's own size: then
224 x 7168 pixels, fewer than a camera's."""
FEW = 4
"""With fewer rows or columns of cells than this a map hardly shows where something is."""


def class_heatmap(
    model: keras.Model,
    image: np.ndarray,
    class_index: int | None = None,
    size: tuple[int, int] | None = None,
    output_stride: int | None = None,
) -> np.ndarray:
    """The map of a class's probability over an image of any size.

    Each call converts the model and traces it again, which takes about a second for a MobileNetV2.
    For many images, convert once (`kfcn.convolutionalize`, `kfcn.to_atrous`) and call the result.

    Args:
        model: a Keras classifier, `(B, H, W, C)` to `(B, classes)`, of logits or probabilities;
            or a fully convolutional net of class maps, which is used as it is.
        image: `(H, W, C)` in the units that the model takes. An image smaller than the classifier's
            own size is enlarged (bilinear, aspect kept) until it covers that size; see `LONGEST`.
        class_index: the class; None for the maps of all classes.
        size: `(height, width)` that the classifier was made for, where its input leaves it open.
        output_stride: pixels from cell to cell, by `to_atrous`; None for the model's own stride.

    Returns:
        float32 probabilities in 0..1: `(rows, columns)`, or `(rows, columns, classes)` without
        `class_index`. Cell i is centred at `stride * i + offset` pixels of
        `kfcn.receptive_field(kfcn.convolutionalize(model))`.

    Raises:
        UsageError: an image of another shape or too narrow to enlarge, or a class that the model
            does not have.
        KfcnError: the model has no convolutional form (see `kfcn.convolutionalize`).
    """
    image = np.asarray(image, np.float32)
    net, probabilities = dense_net(model, size, output_stride)
    channels = net.input_shape[-1]
    if image.ndim != 3 or not image.size or channels not in (None, image.shape[2]):
        raise UsageError(
            f"expected an image (H, W, {channels or 'C'}), received an array of {image.shape}"
        )
    if not isinstance(class_index, numbers.Integral | None):
        raise UsageError(f"expected a class's index, an integer, received {class_index!r}")
    maps = run_dense(net, enlarge(image, classifier_size(model, size)), probabilities)
    if class_index is None:
        return maps
    if not 0 <= class_index < maps.shape[-1]:
        raise UsageError(f"the model has classes 0..{maps.shape[-1] - 1}, received {class_index}")
    return maps[..., class_index]


def dense_net(
    model: keras.Model, size: tuple[int, int] | None = None, output_stride: int | None = None
) -> tuple[keras.Model, bool]:
    """The fully convolutional form of a model, and whether it puts out probabilities."""
    probabilities = gives_probabilities(model)
    net = model if len(model.output_shape) == 4 else convolutionalize(model, size)
    if output_stride is not None:
        net = to_atrous(net, output_stride)
    return net, probabilities


def run_dense(net: keras.Model, image: np.ndarray, probabilities: bool) -> np.ndarray:
    """Class probabilities, float32 `(rows, columns, classes)`, of one image.

    Logits get their softmax, a single one, which says yes or no, its sigmoid.
    """
    import tensorflow as tf

    # In a graph: called as it is, a Keras model keeps the maps of all its layers to the end.
    maps = tf.function(net, autograph=False)(tf.constant(image[None]), training=False)
    maps = tf.cast(maps, tf.float32)[0].numpy()
    if probabilities:
        return maps
    return softmax(maps) if maps.shape[-1] > 1 else (1 + np.tanh(maps / 2)) / 2


def classifier_size(model: keras.Model, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """The size `(height, width)` in pixels that a classifier was made for; (1, 1) if any."""
    height, width = model.input_shape[1:3]
    if len(model.output_shape) == 4:  # a map's net has no size of its own
        return 1, 1
    if size is not None:
        height, width = size
    return height, width


def enlarge(image: np.ndarray, least: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    """An image at `scale` times its size, or at the size at which it covers `least`.

    Args:
        image: `(H, W, C)`.
        least: height and width in pixels that the result covers.
        scale: in `kfcn.inference.scales.SCALES`.

    Returns:
        float32 `(H', W', C)`, the aspect kept.

    Raises:
        UsageError: a scale that makes no sense, or at which the picture would fill the memory; a
            picture that is so narrow that its long side would come to more than `LONGEST` times
            what it has to cover.
    """
    if scale not in SCALES:
        raise UsageError(f"scale {scale:g}: expected a number {SCALES}")
    height, width = image.shape[:2]
    factor = max(scale, least[0] / height, least[1] / width)
    long = max(height * factor / least[0], width * factor / least[1])
    if factor > scale and long > LONGEST:
        raise UsageError(
            f"a picture of {height}x{width} pixels (height x width) is too narrow to be enlarged "
            f"to {least[0]}x{least[1]}, the classifier's own size: it would come to "
            f"{round(height * factor)}x{round(width * factor)}; crop it, or pad it to a long side "
            f"of at most {LONGEST} short ones"
        )
    return resize(image, scaled_size((height, width), factor, least))


def scale_for_more(cells: tuple[int, ...], factor: float) -> int | None:
    """The scale at which to look again, where a map has few cells.

    Args:
        cells: rows and columns of the map.
        factor: by which the picture was enlarged.

    Returns:
        Twice that factor or little more; None where there are cells enough (`FEW`), or where it
        would be none of `kfcn.inference.scales.SCALES`.
    """
    scale = math.ceil(2 * factor)
    return scale if min(cells[:2]) < FEW and scale in SCALES else None


def spread_map(
    heat: np.ndarray,
    image_shape: tuple[int, ...],
    stride: float | tuple[float, float],
    offset: float | tuple[float, float],
) -> np.ndarray:
    """A map of cells at the image's resolution: linear between the cells' centres.

    Args:
        heat: `(rows, columns)`.
        image_shape: `(H, W, ...)`.
        stride: pixels from cell to cell, a number or `(y, x)`.
        offset: the pixel at which cell 0 is centred, likewise.

    Returns:
        float32 `(H, W)`; NaN further than half a stride beyond the outer centres, where no cell
        speaks for the pixels.
    """
    strides, offsets = np.broadcast_to(stride, 2), np.broadcast_to(offset, 2)
    for axis in (0, 1):
        pixels = np.arange(image_shape[axis])
        place = (pixels - offsets[axis]) / strides[axis]  # in cells
        last = heat.shape[axis] - 1
        low = np.clip(np.floor(place), 0, max(last - 1, 0)).astype(int)
        part = np.clip(place - low, 0, 1)
        part[(place < -0.5) | (place > last + 0.5)] = np.nan
        part = part[:, None] if axis == 0 else part
        high = np.minimum(low + 1, last)
        heat = (1 - part) * heat.take(low, axis) + part * heat.take(high, axis)
    return heat.astype(np.float32)
