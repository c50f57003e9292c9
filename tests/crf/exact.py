"""The pairwise filter by its definition, O(N^2): the reference that the lattice is tested against.

P. Kraehenbuehl and V. Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011, equations 2 and 3 and algorithm 1. NumPy, double precision; small images.
"""

import numpy as np
from numpy.typing import ArrayLike


def exact_filter(features: ArrayLike, values: ArrayLike, block: int = 1024) -> np.ndarray:
    """`sum_j exp(-|f_i - f_j|^2 / 2) v_j`, the pixel itself (j = i) included.

    Args:
        features: (d, N), each divided by the width of its Gaussian.
        values: (N, C).
        block: rows of the kernel matrix held at once.

    Returns:
        float64 (N, C).
    """
    points = np.asarray(features, np.float64).T  # (N, d)
    values = np.asarray(values, np.float64)
    squares = (points**2).sum(1)
    filtered = np.empty_like(values)
    for start in range(0, len(points), block):
        rows = slice(start, start + block)
        distance = squares[rows, None] + squares[None] - 2 * points[rows] @ points.T
        filtered[rows] = np.exp(-0.5 * np.maximum(distance, 0)) @ values
    return filtered
