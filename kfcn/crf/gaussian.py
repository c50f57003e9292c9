"""The CRF's smoothness kernel: a Gaussian over position alone, exact up to its truncation.

It is separable, so it needs no lattice: one convolution along the rows, one along the columns.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kfcn.crf.permutohedral import BUILTIN
from kfcn.machine import onednn_is_on


def gaussian_taps(theta: float) -> np.ndarray:
    """`exp(-i^2 / (2 theta^2))` for |i| <= 4 theta (rounded up): float32 (2 r + 1,), height 1."""
    radius = int(np.ceil(4 * theta))
    offsets = np.arange(-radius, radius + 1)
    return np.exp(-0.5 * (offsets / theta) ** 2).astype(np.float32)


def spatial_filter(values: tf.Tensor, theta: float) -> tf.Tensor:
    """`sum_j exp(-|p_i - p_j|^2 / (2 theta^2)) v_j` over the pixels j of the same image.

    Not normalised and zero outside of the image, so the filter is symmetric: it is its own
    transpose, the gradient included.

    Args:
        values: float32 (B, H, W, C), C static.
        theta: width in pixels.

    Returns:
        float32 (B, H, W, C).
    """
    taps = gaussian_taps(theta)
    channels: Any = values.shape[-1]
    kernel = np.repeat(taps[:, None, None, None], channels, 2)  # (2r + 1, 1, C, 1)
    ones = [1, 1, 1, 1]
    rows = tf.nn.depthwise_conv2d(values, kernel, ones, "SAME")
    return tf.nn.depthwise_conv2d(rows, kernel.transpose(1, 0, 2, 3), ones, "SAME")


class SpatialKernel(NamedTuple):
    """The filter for images of one size, its input and output multiplied by factors.

    Two depthwise convolutions where these are quick. Where oneDNN is off, TensorFlow's own took
    seven times as long at 6 classes, and two and a half times at 21, as products with the parts of
    the band matrices that are not zero. These hold the factors, too: they are separable.
    """

    theta: float
    before: tuple  # factors of the rows float32 (H,) and of the columns (W,) of its input; or none
    after: tuple  # of its output
    bands: tuple  # of H and of W; none where the filter is a convolution
    back: tuple | None  # of the transposed filter; None where it was not asked for

    @classmethod
    def build(
        cls,
        size: tf.Tensor,
        theta: float,
        before: bool = False,
        after: bool = False,
        transpose: bool = True,
    ) -> "SpatialKernel":
        """For images of a size int32 (2,): H, W.

        Args:
            size: see above.
            theta: width in pixels.
            before: divide the input by the sums of the filter's rows.
            after: divide its output by them; with `before`, each by the root.
            transpose: whether the transposed filter is wanted, too.
        """
        height, width = tf.unstack(size)
        # The sums are products of two; the tap in the centre is 1.
        sums = spatial_filter(tf.ones([1, height, 1, 1]), theta)[0, :, 0, 0]
        sums = sums, spatial_filter(tf.ones([1, 1, width, 1]), theta)[0, 0, :, 0]
        scale = tuple(tf.math.rsqrt(each) if before and after else 1.0 / each for each in sums)
        left, right = scale if after else (), scale if before else ()
        bands, back = (), () if transpose else None
        if _convolutions_are_slow():
            ones = tuple(tf.ones_like(each) for each in sums)
            sides = list(zip((height, width), left or ones, right or ones, strict=True))
            bands = tuple(_bands(n, theta, left, right) for n, left, right in sides)
            if transpose:
                back = tuple(_bands(n, theta, right, left) for n, left, right in sides)
        return cls(theta, right, left, bands, back)

    def filter(self, values: tf.Tensor, transpose: bool = False) -> tf.Tensor:
        """Float32 (B, H, W, C) -> (B, H, W, C), C static."""
        bands = self.back if transpose else self.bands
        assert bands is not None  # built for it
        if bands:
            return _banded(values, bands)
        before, after = (self.after, self.before) if transpose else (self.before, self.after)
        values = spatial_filter(_times(values, before), self.theta)
        return _times(values, after)


def _times(values, factors):
    return values * (factors[0][:, None, None] * factors[1][:, None]) if factors else values


def _convolutions_are_slow():
    builtin = BUILTIN.get()
    return not (builtin or onednn_is_on() or tf.config.list_physical_devices("GPU"))


def _bands(length, theta, left, right):
    """The filter along an axis of n pixels as blocks of a band matrix.

    Args:
        length: n.
        theta: width in pixels.
        left: float32 (n,), factors of the output.
        right: float32 (n,), factors of the input.

    Returns:
        The columns of each block's rows that are not zero, int32 (blocks, columns), and the block,
        float32 (blocks, rows, columns).
    """
    taps = gaussian_taps(theta)
    radius = len(taps) // 2
    size = max(4 * radius, 16)  # rows of a block: more are more zeros, fewer are more copies
    width = tf.minimum(size + 2 * radius, length)
    rows = tf.reshape(tf.range(-(-length // size) * size), [-1, size])  # some are beyond the end
    columns = tf.clip_by_value(rows[:, :1] - radius, 0, length - width) + tf.range(width)
    offsets = rows[:, :, None] - columns[:, None, :]
    within = tf.abs(offsets) <= radius
    block = tf.where(within, tf.gather(taps, tf.where(within, offsets + radius, 0)), 0.0)
    left = tf.gather(left, tf.minimum(rows, length - 1))
    return columns, left[:, :, None] * block * tf.gather(right, columns)[:, None, :]


def _banded(values, bands):
    """Filters (B, H, W, C) along H, then along W."""
    shape = tf.shape(values)
    batch, channels = shape[0], values.shape[-1]
    for axis, (columns, blocks) in enumerate(bands):  # the map is transposed each time
        length, other = shape[1 + axis], shape[2 - axis]
        lines = tf.reshape(values, [batch, length, other * channels])
        lines = tf.matmul(blocks, tf.gather(lines, columns, axis=1))  # (B, blocks, rows, other C)
        lines = tf.reshape(lines, [batch, -1, other, channels])[:, :length]
        values = tf.transpose(lines, [0, 2, 1, 3])
    return values
