"""Batches of whole pictures: those of like size together, so that little is padding."""

from collections.abc import Sequence

import numpy as np


def arrange(
    order: np.ndarray, sizes: np.ndarray, lengths: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Another order of an epoch, in which the pictures of a batch have about the same size.

    Pictures are sorted by height and width (those of one size stay in their random order) and cut
    into batches, and the batches come in random order.

    Args:
        order: a permutation of the N pictures, int64 `(N,)`.
        sizes: height and width of each picture, `(N, 2)`.
        lengths: pictures in each batch of the epoch; they add up to N.
        rng: decides which batch comes when.

    Returns:
        The permutation, int64 `(N,)`.
    """
    height, width = sizes[order].T
    by_size = order[np.lexsort((width, height))]  # lexsort is stable
    batches: list[np.ndarray] = [order] * len(lengths)
    start = 0
    for batch in rng.permutation(len(lengths)):
        batches[batch] = by_size[start : start + lengths[batch]]
        start += lengths[batch]
    return np.concatenate(batches)


def all_sizes(dataset) -> np.ndarray:
    """Height and width of every picture, int64 `(N, 2)`, from the files' headers where it can."""
    return np.array([dataset.size(index) for index in range(len(dataset))], np.int64)
