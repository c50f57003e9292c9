"""Which range of values int8 is to hold of each tensor of a float32 `.tflite` file."""

from collections.abc import Callable

import numpy as np

from kfcn.errors import UsageError
from kfcn_tools.convert.int8.observe import computed_tensors
from kfcn_tools.convert.options import RANGES

PERCENTILE = 99.99
# Values kept of each tensor and image for the methods that need a distribution.
SAMPLES = 4096
SHRINK = np.linspace(1.0, 0.5, 26)


class TensorRanges:
    """An observer (`kfcn_tools.convert.int8.observe`) of the values of all tensors.

    Args:
        content: the `.tflite` file.
        method: how ranges are found. "min-max" takes the smallest and largest value of all;
            "percentile" leaves 0.01 % out at each end; "least-squares" shrinks the range of
            min-max until the squared error of rounding and clipping is least.
        seed: of the values that the last two look at.
    """

    def __init__(self, content: bytes, method: str = "min-max", seed: int = 0):
        if method not in RANGES:
            raise UsageError(f"ranges {method!r}: expected one of {', '.join(RANGES)}")
        self._method = method
        self._random = np.random.default_rng(seed)
        self._extremes = dict.fromkeys(computed_tensors(content), (0.0, 0.0))
        self._samples = {name: [] for name in self._extremes}

    def see(self, values: Callable[[str], np.ndarray]) -> None:
        """One image."""
        for name, (low, high) in self._extremes.items():
            seen = values(name)
            self._extremes[name] = (min(low, float(seen.min())), max(high, float(seen.max())))
            if self._method != "min-max":
                drawn = self._random.integers(0, seen.size, SAMPLES)
                self._samples[name].append(seen.ravel()[drawn])

    def ranges(self) -> dict[str, tuple[float, float]]:
        """(low, high) by tensor name, low <= 0 <= high; int8 step sizes follow from it."""
        if self._method == "min-max":
            return dict(self._extremes)
        choose = _percentile if self._method == "percentile" else least_squares_range
        return {
            name: choose(np.concatenate(self._samples[name]), *extremes)
            for name, extremes in self._extremes.items()
        }


def _percentile(values, low, high) -> tuple[float, float]:
    return (
        min(0.0, float(np.percentile(values, 100 - PERCENTILE))),
        max(0.0, float(np.percentile(values, PERCENTILE))),
    )


def least_squares_range(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The part of (low, high), each end shrunk on its own, with the least squared int8 error.

    Args:
        values: float32 (N,), drawn from the tensor.
        low: its smallest value, <= 0.
        high: its largest value, >= 0.
    """
    best, least = (low, high), np.inf
    # Twice over both ends: each is searched with the other held.
    for end in (1, 0, 1, 0):
        for factor in SHRINK:
            tried = (best[0], float(high * factor)) if end else (float(low * factor), best[1])
            error = _rounding_error(values, *tried)
            if error < least:
                best, least = tried, error
    return best


def _rounding_error(values, low, high) -> float:
    step = (high - low) / 255
    if step <= 0:
        return np.inf
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return float(np.square(values - rounded).mean())
