"""The permutohedral lattice: Gaussian filtering in many dimensions at a cost linear in the pixels.

A. Adams, J. Baek and M. A. Davis, "Fast High-Dimensional Filtering Using the Permutohedral
Lattice", Eurographics 2010; sections and propositions below are that paper's. The dense CRF
filters the class probabilities with a Gaussian over position and colour, `sum_j k(f_i, f_j) v_j`
with `k = exp(-|f_i - f_j|^2 / 2)`, in three linear steps:

- splat: each pixel gives its value to the d + 1 corners of the simplex that it lies in;
- blur: the vertices are mixed with their two neighbours along each of the d + 1 axes in turn;
- slice: each pixel collects from the same d + 1 corners.

So the filter is `K = S' B_d ... B_0 S` with symmetric `B_j`: its transpose, which is what a
gradient needs, is the same filter with the blur axes in reverse order.

Only the vertices that a pixel touches exist. All images of a batch share one lattice (the image's
number is a part of a vertex's key) and the lattice serves all iterations and the backward pass.

The steps exist twice, for one reason: products with sparse matrices are much faster than gathers
and segment sums, but LiteRT has no such operation. `builtin_ops()` chooses the second kind.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

Neighbours = Sequence[tuple[tf.Tensor, tf.Tensor]]

_BUILTIN = contextvars.ContextVar("kfcn_crf_builtin_ops", default=False)


@contextlib.contextmanager
def builtin_ops() -> Iterator[None]:
    """Trace every CRF within this context with operations that LiteRT has built in.

    For export to `.tflite` alone: the CRF then takes about twice as long on a desktop.
    Wrap what traces the model::

        with kfcn.crf.builtin_ops():
            archive.add_endpoint("serve", model, input_signature=[spec])
            archive.write_out(folder)
    """
    token = _BUILTIN.set(True)
    try:
        yield
    finally:
        _BUILTIN.reset(token)


def bilateral_features(image: tf.Tensor, theta_alpha: float, theta_beta: float) -> tf.Tensor:
    """The features of the CRF's appearance kernel: position and colour in units of their widths.

    Args:
        image: float32 (B, H, W, 3), RGB in 0..255.
        theta_alpha: width in position, pixels.
        theta_beta: width in colour, in the image's units.

    Returns:
        float32 (5, B * H * W), pixels in the order of `tf.reshape(image, [-1, 3])`.
    """
    batch, height, width = tf.unstack(tf.shape(image)[:3])
    size = [batch, height, width]
    y = tf.cast(tf.range(height), tf.float32)[None, :, None] / theta_alpha
    x = tf.cast(tf.range(width), tf.float32)[None, None, :] / theta_alpha
    colour = tf.transpose(tf.reshape(image, [-1, 3])) / theta_beta
    position = [tf.reshape(tf.broadcast_to(axis, size), [1, -1]) for axis in (y, x)]
    return tf.concat([*position, colour], 0)


def build_lattice(
    features: tf.Tensor, batch: "int | tf.Tensor" = 1
) -> "SparseLattice | SegmentLattice":
    """The lattice of one batch of images.

    Args:
        features: float32 (d, N), each already divided by the width of its Gaussian. The N pixels
            are those of `batch` images of one size, image after image.
        batch: number of images, int or scalar tensor.

    Returns:
        SparseLattice, or within `builtin_ops()` SegmentLattice: a named tuple of tensors.

    Raises:
        tf.errors.InvalidArgumentError: when the features span so many cells that a vertex's key
            does not fit 63 bits (widths far too small). Not checked within `builtin_ops()`.
    """
    features = tf.stop_gradient(tf.cast(features, tf.float32))
    keys, weights, steps = _simplices(features, batch)
    vertices, corners = tf.unique(tf.reshape(keys, [-1]))
    corners = tf.reshape(corners, tf.shape(keys))  # (d + 1, N), rows of `vertices`
    if not _BUILTIN.get():
        vertices, corners = _in_order(vertices, corners)
    neighbours = [_neighbours(vertices, step) for step in steps]
    # The blur below has gain 2 an axis. This factor (that of the authors' code and of pydensecrf)
    # brings the response to a unit impulse near to the Gaussian's own height of 1. It cancels in
    # every normalised filter.
    weights = weights * math.sqrt(1 / (1 + 2.0 ** (1 - len(steps))))
    build = SegmentLattice.build if _BUILTIN.get() else SparseLattice.build
    return build(corners, weights, neighbours, tf.size(vertices))


def lattice_filter(
    lattice: "SparseLattice | SegmentLattice", values: tf.Tensor, transpose: bool = False
) -> tf.Tensor:
    """Filter values: float32 (N, C) -> (N, C), each column alone.

    No gradient should be taken through this (it would keep every step): DenseCRF defines it by the
    transposed filter, which needs the lattice and nothing else.

    Args:
        lattice: of `build_lattice`, M vertices.
        values: float32 (N, C), the pixels' values.
        transpose: apply the transposed filter: the blur axes reversed.

    Returns:
        float32 (N, C).
    """
    vertices = lattice.splat(values)  # (M, C)
    axes = range(len(lattice.blurs))
    for axis in reversed(axes) if transpose else axes:
        vertices = lattice.blur(vertices, axis)
    return lattice.slice(vertices)  # (N, C)


def _simplices(features, batch):
    """The enclosing simplex of every pixel (section 3.1 and 3.2, propositions of the appendix).

    Returns:
        keys int64 (d + 1, N), one number for each corner; barycentric weights float32 (d + 1, N);
        a list of d + 1 scalars, the step from a vertex's key to its neighbour's along each axis.
    """
    d, pixels = features.shape[0], tf.shape(features)[1]
    elevated = tf.matmul(tf.constant(_elevation(d)), features)  # (d + 1, N), columns sum to 0
    cell = tf.round(elevated / (d + 1))  # nearest point of remainder 0, where its sum is 0
    excess = tf.cast(tf.reduce_sum(cell, 0), tf.int32)
    delta = elevated - cell * (d + 1)

    # Rank of each coordinate's residual, 0 for the largest; ties go to the lower index.
    rows, rank = tf.unstack(delta), [0] * (d + 1)
    for i in range(d + 1):
        for j in range(i + 1, d + 1):
            less = tf.cast(rows[i] < rows[j], tf.int32)
            rank[i] = rank[i] + less
            rank[j] = rank[j] + (1 - less)
    # Where the rounded point is off the plane, the coordinates that were rounded furthest the wrong
    # way move by one cell, and the ranks turn with them.
    rank = tf.stack(rank) + excess
    turn = tf.cast(rank < 0, tf.int32) - tf.cast(rank > d, tf.int32)
    rank = rank + turn * (d + 1)
    turn = tf.cast(turn, tf.float32)
    cell, delta = cell + turn, delta / (d + 1) - turn

    # One int64 for a vertex: its first d coordinates (the last follows, their sum is 0) and the
    # image as digits of a mixed radix. Then a neighbour's key is this key plus a constant. The
    # margin keeps the digits of corners (up to d away) and of their neighbours (d more) from
    # carrying into one another.
    origin = tf.cast(cell[:d], tf.int64) * (d + 1)  # (d, N)
    margin = 2 * (d + 1)
    low = tf.reduce_min(origin, 1) - margin
    radix = tf.reduce_max(origin, 1) + margin + 1 - low
    place = [tf.ones([], tf.int64)]
    for i in range(d):  # not tf.cumprod: LiteRT does not have it
        place.append(place[-1] * radix[i])
    if not _BUILTIN.get():
        span = tf.reduce_prod(tf.cast(radix, tf.float64)) * tf.cast(batch, tf.float64)
        tf.debugging.assert_less(
            span,
            tf.constant(2.0**63, tf.float64),
            "The CRF's lattice has too many cells: expected larger kernel widths (theta).",
        )
    place = tf.stack(place)  # (d + 1,), the last one for the image
    image = tf.range(pixels) // (pixels // batch)
    key = tf.reduce_sum((origin - low[:, None]) * place[:d, None], 0)
    key = key + tf.cast(image, tf.int64) * place[d]

    # Corner k of the canonical simplex adds k to every coordinate, and takes d + 1 from those of
    # the last k ranks: from a corner to the next one, one coordinate more.
    whole = tf.reduce_sum(place[:d])
    digit = tf.concat([place[:d], [0]], 0)[:, None] * (d + 1)  # the last coordinate has no digit
    ranked, moved = [], []
    for r in range(d + 1):
        here = rank == r
        ranked.append(tf.reduce_sum(tf.where(here, delta, 0.0), 0))
        moved.append(tf.reduce_sum(tf.where(here, digit, tf.zeros([], tf.int64)), 0))
    keys, weights = [key], [1.0 + ranked[d] - ranked[0]]
    for k in range(d):
        keys.append(keys[-1] + whole - moved[d - k])
        weights.append(ranked[d - k - 1] - ranked[d - k])
    steps = [whole - digit[axis, 0] for axis in range(d + 1)]
    return tf.stack(keys), tf.stack(weights), steps


def _elevation(d):
    """The (d + 1, d) matrix that lays features on the plane `sum(x) = 0` (section 3.1).

    Its scale makes splat, blur and slice together a Gaussian of unit variance: the blur has
    variance `2 (d + 1)^2 / 3` in the lattice's units.
    """
    matrix = np.zeros((d + 1, d))
    for column in range(d):
        matrix[: column + 1, column] = 1
        matrix[column + 1, column] = -(column + 1)
        matrix[:, column] *= (d + 1) * math.sqrt(2 / 3) / math.sqrt((column + 1) * (column + 2))
    return matrix.astype(np.float32)


def _in_order(vertices, corners):
    """Number the vertices by their keys: neighbours are then found, and read, in memory's order."""
    order = tf.argsort(vertices)
    places = tf.scatter_nd(order[:, None], tf.range(tf.size(order)), tf.shape(order))
    return tf.gather(vertices, order), tf.gather(places, corners)


def _neighbours(vertices, step):
    """Row numbers of the two neighbours along an axis: int32 (M,) each, M where there is none."""
    count = tf.size(vertices)
    if _BUILTIN.get():
        # LiteRT has no tf.searchsorted. tf.unique serves as a hash table: it numbers the M vertices
        # first, in their own order, so a neighbour's number is below M exactly if it exists.
        after = tf.unique(tf.concat([vertices, vertices + step], 0))[1][count:]
        after = tf.minimum(after, count)
    else:
        after = tf.minimum(tf.searchsorted(vertices, vertices + step), count - 1)
        after = tf.where(tf.gather(vertices, after) == vertices + step, after, count)
    # "i is followed by j" says "j is preceded by i"; row M takes those that nothing follows.
    before = tf.scatter_nd(after[:, None], tf.range(count) - count, [count + 1])[:count] + count
    return after, before


class SparseLattice(NamedTuple):
    """Splat, blur and slice as products with sparse matrices, made once.

    Not tf.linalg's CSR matrices: their product is as fast when it runs eagerly, where oneDNN takes
    it, and four times slower within a tf.function, where oneDNN does not.
    """

    slices: tf.SparseTensor  # (N, M); splat is its transpose
    blurs: tuple  # of d + 1 (M, M), without the diagonal of ones

    @classmethod
    def build(
        cls, corners: tf.Tensor, weights: tf.Tensor, neighbours: Neighbours, count: tf.Tensor
    ) -> "SparseLattice":
        """From corners and weights (d + 1, N) and for each axis two rows of neighbours (M,)."""
        rows, pixels = tf.unstack(tf.shape(corners))
        pixel = tf.repeat(tf.range(pixels), rows)
        corner = tf.reshape(tf.transpose(corners), [-1])
        weight = tf.reshape(tf.transpose(weights), [-1])
        slices = _matrix(pixel, corner, weight, [pixels, count])
        return cls(slices, tuple(_blur_matrix(after, count) for after, _ in neighbours))

    def splat(self, values: tf.Tensor) -> tf.Tensor:
        """(N, C) -> (M, C)."""
        return tf.sparse.sparse_dense_matmul(self.slices, values, adjoint_a=True)

    def blur(self, vertices: tf.Tensor, axis: int) -> tf.Tensor:
        """(M, C) -> (M, C)."""
        return vertices + tf.sparse.sparse_dense_matmul(self.blurs[axis], vertices)

    def slice(self, vertices: tf.Tensor) -> tf.Tensor:
        """(M, C) -> (N, C)."""
        return tf.sparse.sparse_dense_matmul(self.slices, vertices)


def _blur_matrix(after, count):
    """1/2 for each vertex and the one after it, both ways."""
    here = tf.cast(tf.where(after < count)[:, 0], tf.int32)
    after = tf.gather(after, here)
    half = tf.fill([2 * tf.size(here)], 0.5)
    rows, columns = tf.concat([here, after], 0), tf.concat([after, here], 0)
    return _matrix(rows, columns, half, [count, count])


def _matrix(rows, columns, values, shape):
    indices = tf.cast(tf.stack([rows, columns], 1), tf.int64)
    return tf.SparseTensor(indices, values, tf.cast(tf.stack(shape), tf.int64))


class SegmentLattice(NamedTuple):
    """Splat, blur and slice as segment sums and gathers, which LiteRT has."""

    corners: tf.Tensor  # int32 (d + 1, N)
    weights: tf.Tensor  # float32 (d + 1, N)
    blurs: tuple  # of d + 1 pairs of int32 (M,)
    vertices: tf.Tensor  # int32 scalar, M

    @classmethod
    def build(
        cls, corners: tf.Tensor, weights: tf.Tensor, neighbours: Neighbours, count: tf.Tensor
    ) -> "SegmentLattice":
        """From corners and weights (d + 1, N) and for each axis two rows of neighbours (M,)."""
        return cls(corners, weights, tuple(neighbours), count)

    def _corners(self):
        weights = self.weights[..., None]  # pyright: ignore[reportArgumentType]: not in its stubs
        return zip(tf.unstack(self.corners), tf.unstack(weights), strict=True)

    def splat(self, values: tf.Tensor) -> tf.Tensor:
        """(N, C) -> (M, C)."""
        total = tf.math.unsorted_segment_sum
        return tf.add_n([total(w * values, corner, self.vertices) for corner, w in self._corners()])

    def blur(self, vertices: tf.Tensor, axis: int) -> tf.Tensor:
        """(M, C) -> (M, C)."""
        padded = tf.pad(vertices, [[0, 1], [0, 0]])  # row M: the absent neighbour
        after, before = self.blurs[axis]
        return vertices + 0.5 * (tf.gather(padded, after) + tf.gather(padded, before))

    def slice(self, vertices: tf.Tensor) -> tf.Tensor:
        """(M, C) -> (N, C)."""
        return tf.add_n([w * tf.gather(vertices, corner) for corner, w in self._corners()])
