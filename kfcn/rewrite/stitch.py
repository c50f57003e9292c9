"""Shift-and-stitch: dense output from a coarse net by running it on every shift of the image.

Section 3.2 of the FCN paper (arXiv 1411.4038), after Sermanet et al., "OverFeat" (arXiv
1312.6229). It needs factor² runs; `kfcn.to_atrous` at an output stride of 1 gives the same cells in
one, where they see no padding. It stays as the slow, obviously right form of it.
"""

import itertools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from kfcn.errors import KfcnError, UsageError

if TYPE_CHECKING:
    import keras


def shift_and_stitch(
    model: "keras.Model",
    images: ArrayLike,
    factor: int,
    batch_size: int = 16,
    progress: bool = True,
) -> np.ndarray:
    """The output of `model` on all factor² shifts of the images, interleaved.

    Cell `(y, x)` of the result is the model's cell `(y // factor, x // factor)` on the image moved
    up by `y % factor` and left by `x % factor` pixels. The zeros that move in from the bottom and
    the right are seen by the last cells; nothing else differs from running the model there.

    Args:
        model: a Keras model of maps, `(B, H, W, C)` to `(B, H', W', classes)`, whose stride is
            `factor`.
        images: `(B, H, W, C)` or one image `(H, W, C)`, in the units that the model takes.
        factor: the model's output stride in pixels.
        batch_size: shifted images in one run.
        progress: show a progress bar on stderr.

    Returns:
        float32 `(B, rows, columns, classes)`, or without B for one image, with
        `rows = min(H, factor * H')`: the image's resolution for a net with 'same' padding.

    Raises:
        UsageError: if the images have another rank or are none, or `factor` is not the model's
            stride (where that can be told, by `kfcn.receptive_field`).
    """
    images = np.asarray(images)
    if images.ndim not in (3, 4) or not images.size:
        raise UsageError(f"expected images (B, H, W, C) or (H, W, C), received {images.shape}")
    if not isinstance(factor, int | np.integer) or factor < 1 or batch_size < 1:
        raise UsageError(
            "expected a stride of at least 1 pixel and a batch of at least 1, received "
            f"factor={factor}, batch_size={batch_size}"
        )
    _check_stride(model, factor)
    single = images.ndim == 3
    if single:
        images = images[None]
    count, height, width, _ = images.shape

    runs = list(itertools.product(range(count), range(factor), range(factor)))
    stitched = None
    for start in _progress(range(0, len(runs), batch_size), progress):
        batch = runs[start : start + batch_size]
        shifted = np.zeros((len(batch), *images.shape[1:]), images.dtype)
        for target, (index, down, right) in zip(shifted, batch, strict=True):
            target[: height - down, : width - right] = images[index, down:, right:]
        # Called, not predict(): predict() would compile anew for every size of image.
        coarse = np.asarray(model(shifted, training=False))  # (batch, H', W', classes)
        if stitched is None:
            rows, columns, classes = coarse.shape[1:]
            stitched = np.empty((count, rows * factor, columns * factor, classes), np.float32)
        for cells, (index, down, right) in zip(coarse, batch, strict=True):
            stitched[index, down::factor, right::factor] = cells
    assert stitched is not None  # there is at least one run
    stitched = stitched[:, :height, :width]
    return stitched[0] if single else stitched


def _check_stride(model, factor):
    """Cells interleaved at another factor would be a map of nothing."""
    from kfcn.rewrite.field import receptive_fields

    try:
        strides = {field.stride for field in receptive_fields(model)}
    except KfcnError:  # no graph, or layers of unknown geometry: the caller's word
        return
    if strides != {factor}:
        found = " and ".join(map(str, strides))
        raise UsageError(
            f"expected factor to be the stride of model '{model.name}', {found}; received {factor}"
        )


def _progress(batches, shown: bool):
    from tqdm import tqdm

    return tqdm(batches, desc="shift-and-stitch", unit="batch", disable=not shown)
