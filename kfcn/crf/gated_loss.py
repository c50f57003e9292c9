"""A loss on pixels without labels: near and alike in colour, they should have one class."""

from typing import Any

from keras import ops

from kfcn.collectives import sum_over_replicas

SIGMA_XY = 6.0
"""Of the places, in steps of the grid."""
SIGMA_RGB = 0.1
"""Of the colours, 0..1."""
_FAR = 1e3
"""The colour beyond the picture's edge: like none within."""


def gated_crf_loss(images: Any, logits: Any, radius: int = 5, step: int = 4) -> Any:
    """The gated CRF loss, for labels of a few points or strokes.

    A. Obukhov, S. Georgoulis, D. Dai and L. Van Gool, "Gated CRF Loss for Weakly Supervised
    Semantic Image Segmentation" (2019), with Potts' compatibility, their widths, and all gates open
    but those at the edges of the picture. With p the probabilities and I the colours, both averaged
    over squares of `step` pixels, it is

        mean over i of sum over j near i of k(i, j) (1 - p_i . p_j),
        k(i, j) = exp(-|i - j|^2 / (2 SIGMA_XY^2) - |I_i - I_j|^2 / (2 SIGMA_RGB^2)).

    The mean is over the *global* batch; over replicas each gives its share, as `SegmentationLoss`
    does. The colours have no gradient.

    Args:
        images: `(B, H, W, 3)`, RGB 0..255.
        logits: `(B, H, W, C)`.
        radius: j is at most so many steps of the grid from i, in rows and in columns.
        step: pixels to a step of the grid; the paper's net has a quarter of the picture's sides.

    Returns:
        A float32 number of at least 0.
    """
    share = _averaged(ops.softmax(ops.cast(logits, "float32")), step)
    colours = _averaged(ops.cast(images, "float32"), step) / 255
    message, mass = _messages(ops.stop_gradient(share), ops.stop_gradient(colours), radius)
    pull = ops.sum(share * message)
    # The kernel is symmetric: a probability pulls as i and is pulled as j, twice the gradient.
    energy = mass - (2 * pull - ops.stop_gradient(pull))
    places = ops.stop_gradient(ops.sum(ops.ones_like(share[..., 0])))
    return energy / ops.maximum(sum_over_replicas(places), 1.0)


def _averaged(maps, step):
    return maps if step == 1 else ops.average_pool(maps, step, step, padding="same")


def _messages(share, colours, radius):
    """The sums over j of k(i, j) p_j, `(B, h, w, C)`, and the sum over i and j of k(i, j)."""
    edges = [[0, 0], [radius, radius], [radius, radius], [0, 0]]
    wide_share = ops.pad(share, edges)
    wide_colours = ops.pad(colours, edges, constant_values=_FAR)
    height, width = ops.shape(share)[1:3]
    message, mass = ops.zeros_like(share), 0.0
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy == dx == 0:
                continue
            rows = slice(radius + dy, radius + dy + height)
            columns = slice(radius + dx, radius + dx + width)
            apart = ops.sum(ops.square(colours - wide_colours[:, rows, columns]), -1, keepdims=True)
            place = (dy * dy + dx * dx) / (2 * SIGMA_XY**2)
            kernel = ops.exp(-apart / (2 * SIGMA_RGB**2) - place)
            message = message + kernel * wide_share[:, rows, columns]
            mass = mass + ops.sum(kernel)
    return message, mass
