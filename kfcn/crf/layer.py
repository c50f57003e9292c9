"""DenseCRF: mean-field inference in a fully connected CRF, as a layer (CRF-RNN).

S. Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015
(arXiv 1502.03240), on the model of P. Kraehenbuehl and V. Koltun, "Efficient Inference in Fully
Connected CRFs with Gaussian Edge Potentials", NIPS 2011. Called "Zheng" and "Kraehenbuehl" below.
"""

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kfcn.crf.gaussian import SpatialKernel
from kfcn.crf.permutohedral import (
    BUILTIN,
    SegmentLattice,
    SparseLattice,
    bilateral_features,
    build_lattice,
    lattice_filter,
)
from kfcn.errors import UsageError
from kfcn.options import Range

# Of the class matrices' and filter weights' variables: see DenseCRF on weight decay.
NO_WEIGHT_DECAY = ("crf_spatial_weights", "crf_bilateral_weights", "crf_compatibility")
Shapes = Sequence[Sequence[int | None]]
"""Of `[logits, image]`."""
NORMALIZATIONS = ("after", "before", "symmetric", "none")


@keras.saving.register_keras_serializable("kfcn")
class DenseCRF(keras.layers.Layer):
    """Sharpens logits by the image: mean-field iterations of a dense CRF.

    Called on `[logits, image]`, logits (B, H, W, C) and image (B, H, W, 3) as RGB in 0..255 (the
    widths are in these units: do not normalise it first), each of any number type, uint8 too.
    Returns float32 logits (B, H, W, C): the last softmax is left to the loss.

    The energy of a labelling x (Kraehenbuehl eq. 1 to 3) is the sum of the unaries `-logits` and,
    over all pairs of pixels, `mu(x_i, x_j)` times two Gaussians of position p and colour I:

        w1 exp(-|p_i - p_j|^2 / 2 theta_alpha^2 - |I_i - I_j|^2 / 2 theta_beta^2)    (appearance)
        w2 exp(-|p_i - p_j|^2 / 2 theta_gamma^2)                                     (smoothness)

    One iteration (Zheng algorithm 1): softmax, both filters (message passing), a weight for each
    filter and class, the compatibility transform, subtraction from the unaries. The pixel's message
    to itself is included, as in the published implementations.

    Trained are `bilateral_weights` (C,), `spatial_weights` (C,) and `compatibility_matrix` (C, C),
    row l holding `mu(l, l')`; the widths are fixed (Zheng section 5). No gradient goes to the
    image. Everything is computed in float32, whatever the policy.

    Weight decay draws these weights to zero, which switches the CRF off. Before training with an
    optimizer that has `weight_decay`, and again after an optimizer was loaded from a file, say

        optimizer.exclude_from_weight_decay(var_names=kfcn.crf.NO_WEIGHT_DECAY)

    Args:
        iterations: mean-field iterations in training (Zheng section 7.1: 5).
        test_iterations: mean-field iterations otherwise (Zheng section 7.1: 10).
        theta_alpha: width of the appearance kernel in pixels.
        theta_beta: width of the appearance kernel in colour (0..255).
        theta_gamma: width of the smoothness kernel in pixels.
        spatial_weight: initial w2, for every class. (The widths and weights are those of the
            authors' released model, torrvision/crfasrnn.)
        bilateral_weight: initial w1, for every class.
        compatibility: initial mu: "potts" for [l != l'], or a (C, C) matrix.
        normalization: of each filter K, with D the diagonal of the sums of K's rows: "after" for
            D^-1 K (CRF-RNN), "before" for K D^-1, "symmetric" for D^-1/2 K D^-1/2 (Kraehenbuehl's
            code and pydensecrf by default), "none" for K.
        **kwargs: of `keras.layers.Layer`; the dtype is always float32.

    Raises:
        UsageError: for a bad argument, a wrong number of inputs or shapes that do not fit.
        tf.errors.InvalidArgumentError: in a graph of open sizes, for shapes that do not fit; for a
            picture of values that are not finite, an empty batch, or widths far too small.
    """

    def __init__(
        self,
        iterations: int = 5,
        test_iterations: int = 10,
        theta_alpha: float = 160.0,
        theta_beta: float = 3.0,
        theta_gamma: float = 3.0,
        spatial_weight: float = 3.0,
        bilateral_weight: float = 5.0,
        compatibility: str | Sequence[Sequence[float]] = "potts",
        normalization: str = "after",
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        for name, count in (("iterations", iterations), ("test_iterations", test_iterations)):
            if not isinstance(count, numbers.Integral) or isinstance(count, bool) or count < 0:
                raise UsageError(f"Expected {name} to be an integer >= 0. Received: {count!r}.")
        widths = {"theta_alpha": theta_alpha, "theta_beta": theta_beta, "theta_gamma": theta_gamma}
        weights = {"spatial_weight": spatial_weight, "bilateral_weight": bilateral_weight}
        for name, value in (widths | weights).items():
            allowed = Range(above=0) if name in widths else Range()
            if not isinstance(value, numbers.Real) or value not in allowed:
                expected = f"a number {allowed}" if name in widths else "a finite number"
                raise UsageError(f"Expected {name} to be {expected}. Received: {value!r}.")
        if normalization not in NORMALIZATIONS:
            known = ", ".join(NORMALIZATIONS)
            raise UsageError(f"Expected a normalization of {known}. Received: {normalization!r}.")
        if isinstance(compatibility, str) and compatibility != "potts":
            raise UsageError(
                f"Expected compatibility 'potts' or a (C, C) matrix. Received: {compatibility!r}."
            )
        self.iterations = int(iterations)
        self.test_iterations = int(test_iterations)
        self.theta_alpha = float(theta_alpha)
        self.theta_beta = float(theta_beta)
        self.theta_gamma = float(theta_gamma)
        self.spatial_weight = float(spatial_weight)
        self.bilateral_weight = float(bilateral_weight)
        self.compatibility = (
            compatibility if isinstance(compatibility, str) else np.asarray(compatibility).tolist()
        )
        self.normalization = normalization
        self.supports_jit = False  # XLA has no tf.unique: the number of vertices is data

    def build(self, input_shape: Shapes) -> None:
        """Create the weights for the number of classes."""
        classes = _checked_shapes(input_shape)[-1]
        potts = 1.0 - np.eye(classes)
        given = self.compatibility
        matrix = potts if isinstance(given, str) else np.asarray(given)
        if matrix.shape != (classes, classes):
            raise UsageError(
                f"Expected a compatibility matrix of shape {(classes, classes)} for logits of "
                f"{classes} classes. Received: {matrix.shape}."
            )

        self.spatial_weights = self._weight("spatial_weights", [self.spatial_weight] * classes)
        self.bilateral_weights = self._weight(
            "bilateral_weights", [self.bilateral_weight] * classes
        )
        self.compatibility_matrix = self._weight("compatibility", matrix)

    def _weight(self, name, value):
        # The prefix keeps NO_WEIGHT_DECAY, which Keras searches for in names, from other weights.
        value = np.asarray(value, np.float32)
        return self.add_weight(
            name=f"crf_{name}", shape=value.shape, initializer=lambda *_, **__: value
        )

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Logits (B, H, W, C) from `[logits, image]`."""
        # Keras casts floats to the layer's type, and pictures are often uint8.
        logits, image = (tf.cast(each, tf.float32) for each in inputs)
        # `build` has seen the first shapes alone; maps of other sizes would mix their pixels.
        _checked_shapes([logits.shape, image.shape])
        size = tf.shape(logits)
        if not BUILTIN.get():
            tf.debugging.assert_equal(
                size[:3],
                tf.shape(image)[:3],
                "Expected logits and an image of the same batch, height and width.",
            )
        classes: Any = logits.shape[-1]
        unary = tf.reshape(logits, [-1, classes])  # (N, C), N = B H W
        kernels = self._kernels(image, training)
        # Weight and compatibility in one (C, C) matrix for each filter: a filter acts on each class
        # alone, so it commutes with them.
        compatibility = -tf.transpose(tf.convert_to_tensor(self.compatibility_matrix))
        spatial = tf.convert_to_tensor(self.spatial_weights)[:, None] * compatibility
        bilateral = tf.convert_to_tensor(self.bilateral_weights)[:, None] * compatibility
        # A SavedModel would have to hold the gradient of this call, too, and with it the lattice.
        # Out of training the gradient is TensorFlow's own: the same values, more memory.
        update = _update_with_gradient if training else _update
        # A sparse product of 6 columns takes longer than one of 8, two whole vectors: a few classes
        # that no pixel has.
        spare = -classes % 4 if classes < 16 and not BUILTIN.get() else 0
        unary = tf.pad(unary, [[0, 0], [0, spare]], constant_values=-1e30)
        spatial, bilateral = (
            tf.pad(each, [[0, spare], [0, spare]]) for each in (spatial, bilateral)
        )
        refined = unary
        for _ in range(self.iterations if training else self.test_iterations):
            refined = update(kernels, unary, tf.nn.softmax(refined), spatial, bilateral)
        return tf.reshape(refined[:, :classes], size)

    def _kernels(self, image, training):
        """The batch's two filters, of every iteration; in training with their transposes."""
        shape = tf.shape(image)[:3]
        features = bilateral_features(image, self.theta_alpha, self.theta_beta)
        lattice = build_lattice(features, shape[0])
        # A kernel is symmetric up to the order of the blur: its row sums serve both of its sides.
        before, after = _sides(self.normalization)
        if before or after:
            ones = tf.ones([tf.reduce_prod(shape), 1])
            sums = lattice_filter(lattice, ones)  # (N, 1)
            scale = tf.math.rsqrt(sums) if before and after else 1.0 / sums
            lattice = lattice.scaled(scale if before else None, scale if after else None)
        spatial = SpatialKernel.build(shape[1:], self.theta_gamma, before, after, training)
        return _Kernels(shape, lattice, spatial)

    def compute_output_spec(
        self, inputs: Sequence[keras.KerasTensor], training: bool = False
    ) -> keras.KerasTensor:
        """The logits' shape, float32; saves a trial run of the lattice for each symbolic call."""
        shapes = [tensor.shape for tensor in inputs]
        return keras.KerasTensor(_checked_shapes(shapes), "float32")

    def compute_output_shape(self, input_shape: Shapes) -> tuple[int | None, ...]:
        """The logits' shape."""
        return tuple(_checked_shapes(input_shape))

    def get_config(self) -> dict[str, Any]:
        """Every argument of the constructor."""
        return {
            **super().get_config(),
            "iterations": self.iterations,
            "test_iterations": self.test_iterations,
            "theta_alpha": self.theta_alpha,
            "theta_beta": self.theta_beta,
            "theta_gamma": self.theta_gamma,
            "spatial_weight": self.spatial_weight,
            "bilateral_weight": self.bilateral_weight,
            "compatibility": self.compatibility,
            "normalization": self.normalization,
        }


def _sides(normalization):
    """Whether a kernel's input and its output are scaled."""
    return normalization in ("before", "symmetric"), normalization in ("after", "symmetric")


class _Kernels(NamedTuple):
    """Both filters of a batch of images, normalised."""

    shape: tf.Tensor  # int32 (3,): B, H, W
    lattice: SparseLattice | SegmentLattice
    spatial: SpatialKernel

    def filter(self, values, transpose=False):
        """Smoothness and appearance: (N, C) -> two of (N, C)."""
        channels = values.shape[1]
        maps = tf.reshape(values, tf.concat([self.shape, [channels]], 0))
        maps = self.spatial.filter(maps, transpose)
        return tf.reshape(maps, [-1, channels]), lattice_filter(self.lattice, values, transpose)


def _update(kernels, unary, q, spatial, bilateral):
    """The mean field's next logits U + F1(Q) A1 + F2(Q) A2: (N, C), with two (C, C)."""
    return tf.add_n([unary, *_mixed(kernels.filter(q), spatial, bilateral)])


def _update_with_gradient(kernels, unary, q, spatial, bilateral) -> Any:
    """`_update` with a gradient that keeps nothing but Q.

    With G the gradient in the result and a prime for the transpose: dU = G,
    dQ = F1'(G) A1' + F2'(G) A2' and dA = Q' F'(G).
    """

    @tf.custom_gradient
    def run(unary, q, spatial, bilateral):
        def gradient(upstream):
            back = kernels.filter(upstream, transpose=True)
            in_q = tf.add_n(_mixed(back, tf.transpose(spatial), tf.transpose(bilateral)))
            return upstream, in_q, *(tf.matmul(q, each, transpose_a=True) for each in back)

        return _update(kernels, unary, q, spatial, bilateral), gradient

    return run(unary, q, spatial, bilateral)


def _mixed(parts, spatial, bilateral):
    return [tf.matmul(parts[0], spatial), tf.matmul(parts[1], bilateral)]


def _checked_shapes(shapes):
    """The logits' shape, after checking that logits and image go together."""
    if not isinstance(shapes, (list, tuple)) or len(shapes) != 2 or isinstance(shapes[0], int):
        raise UsageError(f"Expected DenseCRF to be called on [logits, image]. Received: {shapes}.")
    logits, image = (tuple(shape) for shape in shapes)
    fits = len(logits) == len(image) == 4 and image[3] == 3 and logits[3] is not None
    fits = fits and all(
        a is None or b is None or a == b for a, b in zip(logits[:3], image[:3], strict=True)
    )
    if not fits:
        raise UsageError(
            "Expected logits (B, H, W, C) and an RGB image (B, H, W, 3) of the same size. "
            f"Received: {logits} and {image}."
        )
    return logits
