"""The CRF's smoothness kernel: a Gaussian over position alone, exact up to its truncation.

It is separable, so it needs no lattice: one convolution along the rows, one along the columns.
"""

from typing import Any

import numpy as np
import tensorflow as tf


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
