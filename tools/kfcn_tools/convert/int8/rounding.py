"""Weights rounded to int8 so that their errors cancel in what the convolution gives.

Rounded one by one to the nearest step, each weight is as near as can be, and their sum is not: the
inputs of a convolution go together, and so do the errors they are multiplied with. Here the
weights of a row are rounded one after another, and those still to come are moved so that they take
up the error of those done, as far as the covariance of the inputs lets them (Optimal Brain
Surgeon; Frantar et al. 2023, *GPTQ*, arXiv 2210.17323). What is left of the mean goes into the bias
(Nagel et al. 2019, arXiv 1906.04721, section 4.2).
"""

from collections.abc import Callable, Iterable

import numpy as np

from kfcn_tools.convert.int8.graph import Convolution, convolutions
from kfcn_tools.convert.int8.weights import steps

# Positions looked at in all images together: some times as many as most rows have weights.
POSITIONS = 16384
DEPTHWISE_POSITIONS = 4096
# Rows of more weights are rounded to the nearest: a covariance of this side has 200 MB, and the
# errors of so many weights cancel by themselves.
LARGEST_ROW = 5120
# Of the mean variance, added to each input's, so that inputs that never vary decide nothing.
DAMPING = 0.01
# Columns whose errors are passed on one by one; those behind get them in one product.
BLOCK = 128

Rounded = tuple[np.ndarray, np.ndarray]


class ConvolutionInputs:
    """An observer (`kfcn_tools.convert.int8.observe`) of what the kernels of a file are laid upon.

    Args:
        content: the float32 `.tflite` file.
        images: how many it will see.
        seed: of the positions that it looks at.
        largest_row: no covariance is kept of rows of more weights.
    """

    def __init__(self, content: bytes, images: int, seed: int = 0, largest_row: int = LARGEST_ROW):
        self.convolutions = list(convolutions(content))
        self._images, self._largest = images, largest_row
        self._random = np.random.default_rng(seed)
        self._origins: dict[str, np.ndarray] = {}
        self._sums: dict[str, list] = {}

    def see(self, values: Callable[[str], np.ndarray]) -> None:
        """One image."""
        for convolution in self.convolutions:
            total = DEPTHWISE_POSITIONS if convolution.depthwise else POSITIONS
            seen = _patches(
                convolution, values(convolution.source)[0], -(-total // self._images), self._random
            )
            # From near the mean: of inputs that hardly vary the squares' difference would be noise.
            origin = self._origins.setdefault(convolution.output, seen.mean(-2))
            seen = seen - origin[..., None, :]
            sums = self._sums.setdefault(convolution.output, [0, 0.0, 0.0])
            sums[0] += seen.shape[-2]
            sums[1] += seen.sum(-2, dtype=np.float64)
            if seen.shape[-1] <= self._largest:
                sums[2] += np.swapaxes(seen, -1, -2) @ seen

    def moments(self, convolution: Convolution) -> tuple[np.ndarray, np.ndarray | None]:
        """Mean (n,) and covariance (n, n) of the inputs of a row, the latter None of long rows.

        Of a depthwise convolution (row, n) and (row, n, n).
        """
        origin = self._origins[convolution.output]
        count, total, products = self._sums[convolution.output]
        if convolution.depthwise:  # with a depth multiplier several rows read one channel
            rows = convolution.kernel.shape[-1] // len(total)
            origin, total = np.repeat(origin, rows, 0), np.repeat(total, rows, 0)
            products = np.repeat(products, rows, 0)
        mean = total / count
        if mean.shape[-1] > self._largest:
            return origin + mean, None
        return origin + mean, products / count - mean[..., :, None] * mean[..., None, :]


def _patches(convolution, x, limit, random) -> np.ndarray:
    """What the kernel is laid upon at some positions: (position, n), or (channel, position, n)."""
    _, *size, _ = convolution.kernel.shape
    reach = [(k - 1) * d + 1 for k, d in zip(size, convolution.dilations, strict=True)]
    places, before = [], []
    for side, k, stride in zip(x.shape[:2], reach, convolution.strides, strict=True):
        places.append(-(-side // stride) if convolution.same else (side - k) // stride + 1)
        missing = max((places[-1] - 1) * stride + k - side, 0) if convolution.same else 0
        before.append((missing // 2, missing - missing // 2))
    if np.any(before):
        x = np.pad(x, (*before, (0, 0)))
    chosen = random.permutation(places[0] * places[1])[:limit]
    down, right = convolution.dilations
    rows = chosen // places[1] * convolution.strides[0]
    columns = chosen % places[1] * convolution.strides[1]
    taps = np.stack(
        [x[rows + i * down, columns + j * right] for i in range(size[0]) for j in range(size[1])],
        axis=1,
    )
    return taps.transpose(2, 0, 1) if convolution.depthwise else taps.reshape(len(taps), -1)


def round_weights(inputs: ConvolutionInputs) -> dict[str, Rounded]:
    """Rounds the weights of all convolutions that were observed.

    Args:
        inputs: after it has seen the images.

    Returns:
        The kernel's rows (`Convolution.rows`), float64, and the bias, float64 (out,), by the name
        of the convolution's output tensor.
    """
    done = {}
    for convolution in inputs.convolutions:
        mean, covariance = inputs.moments(convolution)
        weights = convolution.rows()
        rounded = round_rows(weights, covariance)
        error = rounded - weights
        shift = (error * mean).sum(-1) if convolution.depthwise else error @ mean
        done[convolution.output] = rounded, convolution.bias - shift
    return done


def round_rows(weights: np.ndarray, covariance: np.ndarray | None) -> np.ndarray:
    """Rounds each row to multiples of its step, 1/127 of its largest weight.

    Args:
        weights: float64 (rows, n).
        covariance: float64 of what the weights are multiplied with, (n, n) for all rows or
            (rows, n, n); None rounds to the nearest.

    Returns:
        float64 (rows, n), -127 to 127 times the row's step. The largest weight stays as it is: the
        step is found again from it.
    """
    step = steps(weights, axis=0)
    if covariance is None:
        return np.round(weights / step) * step
    largest = np.abs(weights).argmax(1)
    variances = np.diagonal(covariance, axis1=-2, axis2=-1)
    damping = np.maximum(DAMPING * variances.mean(-1), 1e-12)
    # Those that weigh most first, while there are many left to take up their error.
    order = np.argsort(-variances.reshape(-1, weights.shape[1]).mean(0))
    damped = covariance + damping[..., None, None] * np.eye(weights.shape[1])
    inverse = np.linalg.inv(damped[..., order, :][..., order])
    # Row i of the upper triangular factor says how the columns after i answer for an error in i.
    upper = np.swapaxes(np.linalg.cholesky(inverse), -1, -2)
    left, rounded = weights[:, order], np.empty_like(weights)
    for start in range(0, weights.shape[1], BLOCK):
        stop = min(start + BLOCK, weights.shape[1])
        errors = np.empty((len(weights), stop - start))
        for i in range(start, stop):
            multiples = np.clip(np.round(left[:, i] / step[:, 0]), -127, 127)
            kept = largest == order[i]
            rounded[:, order[i]] = np.where(kept, weights[:, order[i]], multiples * step[:, 0])
            error = (left[:, i] - rounded[:, order[i]]) / upper[..., i, i]
            left[:, i + 1 : stop] -= error[:, None] * upper[..., i, i + 1 : stop]
            errors[:, i - start] = error
        behind = upper[..., start:stop, stop:]
        if behind.ndim == 2:
            left[:, stop:] -= errors @ behind
        else:
            left[:, stop:] -= np.einsum("rb,rbn->rn", errors, behind)
    return rounded


def with_rounded(
    content: bytes, rounded: dict[str, Rounded], leave: Iterable[str] = ()
) -> bytearray:
    """A copy of a float32 `.tflite` file with rounded weights, and the biases that go with them.

    Args:
        content: the file.
        rounded: what `round_weights` gave.
        leave: output tensors of convolutions that stay in float32 and keep their weights.
    """
    copy, leave = bytearray(content), set(leave)
    for convolution in convolutions(copy):
        if convolution.output in rounded and convolution.output not in leave:
            rows, bias = rounded[convolution.output]
            convolution.write(rows)
            convolution.bias[...] = bias
    return copy
