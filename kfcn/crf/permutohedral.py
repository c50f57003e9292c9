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
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

# Sparse products of 32 columns and more take ten times as long: TensorFlow then goes through Eigen
# once for every entry of the matrix (kNumVectorize in sparse_tensor_dense_matmul_op.cc).
_WIDEST = 24
BUILTIN = contextvars.ContextVar("kfcn_crf_builtin_ops", default=False)


@contextlib.contextmanager
def builtin_ops() -> Iterator[None]:
    """Trace every CRF within this context with operations that LiteRT has built in.

    For export to `.tflite` alone: the CRF then takes about twice as long on a desktop.
    Wrap what traces the model::

        with kfcn.crf.builtin_ops():
            archive.add_endpoint("serve", model, input_signature=[spec])
            archive.write_out(folder)
    """
    token = BUILTIN.set(True)
    try:
        yield
    finally:
        BUILTIN.reset(token)


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
        features: float32 (d, N), d < 8, each already divided by the width of its Gaussian. The N
            pixels are those of `batch` images of one size, image after image.
        batch: number of images, int or scalar tensor.

    Returns:
        SparseLattice, or within `builtin_ops()` SegmentLattice: a named tuple of tensors.

    Raises:
        tf.errors.InvalidArgumentError: when the features span so many cells that a vertex's key
            does not fit 63 bits (widths far too small), are not finite, or are those of no pixel.
            Not checked within `builtin_ops()`.
    """
    features = tf.stop_gradient(tf.cast(features, tf.float32))
    simplices = _simplices(features)
    if BUILTIN.get():
        corners, count, after = _numbered(simplices, batch, tf.int64)
    else:
        span = tf.debugging.assert_all_finite(
            _span(simplices, batch),
            "The CRF expected pictures of finite numbers, and at least one pixel.",
        )
        tf.debugging.assert_less(
            span,
            tf.constant(2.0**63, tf.float64),
            "The CRF's lattice has too many cells: expected larger kernel widths (theta).",
        )
        # Nearly always; keys of half the bytes are numbered in a third of the time.
        corners, count, after = tf.cond(
            span < 2.0**31,
            lambda: _numbered(simplices, batch, tf.int32),
            lambda: _numbered(simplices, batch, tf.int64),
        )
    # The blur below has gain 2 an axis. This factor (that of the authors' code and of pydensecrf)
    # brings the response to a unit impulse near to the Gaussian's own height of 1. It cancels in
    # every normalised filter.
    weights = simplices.weights * math.sqrt(1 / (1 + 2.0 ** (1 - len(after))))
    build = SegmentLattice.build if BUILTIN.get() else SparseLattice.build
    return build(corners, weights, after, count)


def lattice_filter(
    lattice: "SparseLattice | SegmentLattice", values: tf.Tensor, transpose: bool = False
) -> tf.Tensor:
    """Filter values: float32 (N, C) -> (N, C), each column alone.

    No gradient should be taken through this (it would keep every step): DenseCRF defines it by the
    transposed filter, which needs the lattice and nothing else.

    Args:
        lattice: of `build_lattice`, M vertices.
        values: float32 (N, C), C static: the pixels' values.
        transpose: apply the transposed filter: the blur axes reversed.

    Returns:
        float32 (N, C).
    """
    channels: Any = values.shape[1]
    if channels > _WIDEST and not BUILTIN.get():
        parts = -(-channels // _WIDEST)
        sizes = [channels // parts + (part < channels % parts) for part in range(parts)]
        columns = tf.split(values, sizes, 1)
        return tf.concat([lattice_filter(lattice, each, transpose) for each in columns], 1)
    vertices = lattice.splat(values, transpose)  # (M, C)
    axes = range(len(lattice.blurs))
    for axis in reversed(axes) if transpose else axes:
        vertices = lattice.blur(vertices, axis)
    return lattice.slice(vertices, transpose)  # (N, C)


class _Simplices(NamedTuple):
    """Where each of N pixels lies: its cell, the way through it from corner to corner, weights.

    A vertex of the lattice is the projection of a point z of whole numbers in d + 1 dimensions
    along (1, ..., 1), and its neighbours are those of z + e_j and z - e_j. So the differences
    between z's coordinates are what counts: `z_i - z_(i+1)`, i < d. (These, rather than
    `z_i - z_d`, depend on no more than two of the features: they span few numbers, and keys are
    short.)
    """

    cells: tf.Tensor  # float32 (d, N), whole numbers: the differences of corner 0's coordinates
    moves: tf.Tensor  # int32 (d, N): corner k + 1 is corner k + e_j, with j = moves[k]
    weights: tf.Tensor  # float32 (N, d + 1), barycentric, of corners 0 to d


def _simplices(features):
    """The enclosing simplex of every pixel of features (d, N) (section 3.1 and 3.2).

    The pixel's elevated place y, in units of d + 1, is `floor(y) + f`. With f's coordinates in
    falling order, `f = sum_k (f_(k) - f_(k+1)) (e_(1) + ... + e_(k))`: a walk from `floor(y)` along
    one axis after the other passes the corners (the last one is the first again, one up on every
    axis), and the differences are their weights.
    """
    d = features.shape[0]
    place = tf.matmul(tf.constant(_elevation(d) / (d + 1)), features)  # (d + 1, N)
    cells = tf.floor(place)
    # Sorted as whole numbers of 28 bits with the axis in the last three of 31: finer than float32
    # knows the places, and a sort without branches, ties included.
    ranked = tf.cast((place - cells) * 2.0**27, tf.int32) * 8
    ranked = tf.unstack(ranked + (d - tf.range(d + 1))[:, None])  # ties: the lower axis first
    for i in range(d + 1):
        for j in range(i + 1, d + 1):
            a, b = ranked[i], ranked[j]
            ranked[i], ranked[j] = tf.maximum(a, b), tf.minimum(a, b)
    ranked = tf.stack(ranked)
    # LiteRT has no bitwise_and; floormod takes longer.
    low = tf.math.floormod(ranked, 8) if BUILTIN.get() else tf.bitwise.bitwise_and(ranked, 7)
    moves = d - low[:d]
    sizes = tf.cast(ranked, tf.float32) * 2.0**-30  # the axis adds less than float32's rounding
    weights = tf.concat([1.0 - sizes[:1] + sizes[d:], sizes[:d] - sizes[1:]], 0)
    return _Simplices(cells[:d] - cells[1:], moves, tf.transpose(weights))


def _digits(simplices):
    """Lowest values and numbers of values of the differences: float32 (d,) each.

    They differ by at most one between the corners of a simplex, and by one more to their
    neighbours: the margin of 2 keeps the digits of a key from carrying into one another.
    """
    low = tf.reduce_min(simplices.cells, 1) - 2
    return low, tf.reduce_max(simplices.cells, 1) + 3 - low


def _span(simplices, batch):
    """All keys are below this: float64 scalar."""
    radix = tf.cast(_digits(simplices)[1], tf.float64)
    return tf.reduce_prod(radix) * tf.cast(batch, tf.float64)


def _numbered(simplices, batch, dtype):
    """The simplices' corners as rows of a table of vertices.

    A vertex's key is one number, of the given dtype: its differences and its image as digits of a
    mixed radix. Then a neighbour's key is this key plus a constant.

    Returns:
        corners int32 (N, d + 1); number of vertices M; for each axis the row of a vertex's
        neighbour ahead, int32 (M,), M where there is none.
    """
    d, pixels = simplices.cells.shape[0], tf.shape(simplices.cells)[1]
    low, radix = _digits(simplices)
    radix = tf.cast(radix, dtype)
    place = [tf.ones([], dtype)]
    for i in range(d):  # not tf.cumprod, and no tf.unstack of int64: LiteRT does not have them
        place.append(place[-1] * radix[i])
    # One up on axis j: the difference j grows by one, the difference before it shrinks by one.
    up, down = [*place[:d], tf.zeros([], dtype)], [tf.zeros([], dtype), *place[:d]]
    steps = tf.stack(up) - tf.stack(down)

    digits = tf.cast(simplices.cells - low[:, None], dtype)
    image = tf.cast(tf.range(pixels) // (pixels // batch), dtype)
    keys = [tf.add_n([image * place[d], *(digits[i] * place[i] for i in range(d))])]
    moves = tf.gather(steps, simplices.moves)
    for k in range(d):
        keys.append(keys[-1] + moves[k])
    keys = tf.transpose(tf.stack(keys))  # (N, d + 1)
    vertices, corners = tf.unique(tf.reshape(keys, [-1]))
    count = tf.size(vertices)
    # tf.unique as a hash table again: it numbers the vertices first, in their own order, so a
    # neighbour's number is below M exactly if it exists.
    sought = tf.concat([vertices, *(vertices + steps[axis] for axis in range(d + 1))], 0)
    found = tf.reshape(tf.minimum(tf.unique(sought)[1], count), [d + 2, count])
    return tf.reshape(corners, tf.shape(keys)), count, tuple(tf.unstack(found)[1:])


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


class SparseLattice(NamedTuple):
    """Splat, blur and slice as products with sparse matrices, made once.

    Not tf.linalg's CSR matrices: their product is as fast when it runs eagerly, where oneDNN takes
    it, and four times slower within a tf.function, where oneDNN does not. Not SparseSegmentSum or
    tf.gather: two to four times slower (docs/benchmarks.md).
    """

    slices: tf.SparseTensor  # (N, M), with the scale of the filter's output
    splats: tf.SparseTensor  # (N, M), with the scale of its input; splat is its transpose
    blurs: tuple  # of d + 1 (M, M), without the diagonal of ones

    @classmethod
    def build(
        cls, corners: tf.Tensor, weights: tf.Tensor, after: Sequence[tf.Tensor], count: tf.Tensor
    ) -> "SparseLattice":
        """From corners and weights (N, d + 1) and for each axis the neighbours ahead (M,)."""
        pixels, rows = tf.unstack(tf.shape(corners))
        pixel = tf.broadcast_to(tf.range(pixels, dtype=tf.int64)[:, None], [pixels, rows])
        pixel, corner = tf.reshape(pixel, [-1]), tf.reshape(tf.cast(corners, tf.int64), [-1])
        slices = _matrix([pixel, corner], tf.reshape(weights, [-1]), [pixels, count])
        return cls(slices, slices, tuple(_blur_matrix(each, count) for each in after))

    def scaled(self, before: tf.Tensor | None, after: tf.Tensor | None) -> "SparseLattice":
        """The filter with its input and its output multiplied by scales (N, 1)."""

        def times(matrix, scale):
            if scale is None:
                return matrix
            values = scale * tf.reshape(matrix.values, [tf.shape(scale)[0], -1])
            return tf.SparseTensor(matrix.indices, tf.reshape(values, [-1]), matrix.dense_shape)

        return self._replace(slices=times(self.slices, after), splats=times(self.splats, before))

    def splat(self, values: tf.Tensor, transpose: bool = False) -> tf.Tensor:
        """(N, C) -> (M, C)."""
        matrix = self.slices if transpose else self.splats
        return tf.sparse.sparse_dense_matmul(matrix, values, adjoint_a=True)

    def blur(self, vertices: tf.Tensor, axis: int) -> tf.Tensor:
        """(M, C) -> (M, C)."""
        return vertices + tf.sparse.sparse_dense_matmul(self.blurs[axis], vertices)

    def slice(self, vertices: tf.Tensor, transpose: bool = False) -> tf.Tensor:
        """(M, C) -> (N, C)."""
        return tf.sparse.sparse_dense_matmul(self.splats if transpose else self.slices, vertices)


def _blur_matrix(after, count):
    """1/2 for each vertex and the one after it, both ways."""
    here = tf.where(after < count)[:, 0]
    after = tf.cast(tf.gather(after, here), tf.int64)
    half = tf.fill([2 * tf.size(here)], 0.5)
    both_ways = tf.reshape(tf.concat([here, after, after, here], 0), [2, -1])
    return _matrix(both_ways, half, [count, count])


def _matrix(indices, values, shape):
    """From rows and columns, int64 (2, n); tf.stack(..., 1) takes twice as long."""
    return tf.SparseTensor(tf.transpose(indices), values, tf.cast(tf.stack(shape), tf.int64))


class SegmentLattice(NamedTuple):
    """Splat, blur and slice as segment sums and gathers, which LiteRT has."""

    corners: tf.Tensor  # int32 (N, d + 1)
    slices: tf.Tensor  # float32 (N, d + 1): weights with the scale of the filter's output
    splats: tf.Tensor  # float32 (N, d + 1): weights with the scale of its input
    blurs: tuple  # of d + 1 pairs of int32 (M,): the neighbours ahead and behind
    vertices: tf.Tensor  # int32 scalar, M

    @classmethod
    def build(
        cls, corners: tf.Tensor, weights: tf.Tensor, after: Sequence[tf.Tensor], count: tf.Tensor
    ) -> "SegmentLattice":
        """From corners and weights (N, d + 1) and for each axis the neighbours ahead (M,)."""
        return cls(corners, weights, weights, tuple((a, _behind(a, count)) for a in after), count)

    def scaled(self, before: tf.Tensor | None, after: tf.Tensor | None) -> "SegmentLattice":
        """The filter with its input and its output multiplied by scales (N, 1)."""
        return self._replace(
            slices=self.slices if after is None else after * self.slices,
            splats=self.splats if before is None else before * self.splats,
        )

    def _corners(self, weights):
        each = weights[..., None]
        return zip(tf.unstack(self.corners, axis=1), tf.unstack(each, axis=1), strict=True)

    def splat(self, values: tf.Tensor, transpose: bool = False) -> tf.Tensor:
        """(N, C) -> (M, C)."""
        total = tf.math.unsorted_segment_sum
        corners = self._corners(self.slices if transpose else self.splats)
        return tf.add_n([total(w * values, corner, self.vertices) for corner, w in corners])

    def blur(self, vertices: tf.Tensor, axis: int) -> tf.Tensor:
        """(M, C) -> (M, C)."""
        padded = tf.pad(vertices, [[0, 1], [0, 0]])  # row M: the absent neighbour
        after, before = self.blurs[axis]
        return vertices + 0.5 * (tf.gather(padded, after) + tf.gather(padded, before))

    def slice(self, vertices: tf.Tensor, transpose: bool = False) -> tf.Tensor:
        """(M, C) -> (N, C)."""
        corners = self._corners(self.splats if transpose else self.slices)
        return tf.add_n([w * tf.gather(vertices, corner) for corner, w in corners])


def _behind(after, count):
    """The neighbours behind: "i is followed by j" says "j is preceded by i"."""
    rows = tf.range(count) - count  # row M takes those that nothing follows
    return tf.scatter_nd(after[:, None], rows, [count + 1])[:count] + count
