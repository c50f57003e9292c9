"""What the tensors of a float32 `.tflite` file hold while it runs: ranges and channel means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfcn.errors import UsageError
from kfcn_tools.litert import open_interpreter, run_once

METHODS = ("min-max", "percentile", "least-squares")
PERCENTILE = 99.99
# Values kept of each tensor and image for the methods that need a distribution.
SAMPLES = 4096
SHRINK = np.linspace(1.0, 0.5, 26)


@dataclass(frozen=True)
class Statistics:
    """Of each float tensor that the file computes, by name.

    Attributes:
        ranges: (low, high) with low <= 0 <= high; int8 step sizes follow from it.
        means: float64 (C,), the mean of each channel (last axis) over images and positions.
    """

    ranges: dict[str, tuple[float, float]]
    means: dict[str, np.ndarray]


def tensor_statistics(
    content: bytes, images: Sequence[np.ndarray], method: str = "min-max", seed: int = 0
) -> Statistics:
    """Runs a float32 file on images.

    Args:
        content: the `.tflite` file.
        images: uint8 (H, W, 3), from the training split.
        method: how ranges are found. "min-max" takes the smallest and largest value of all;
            "percentile" leaves 0.01 % out at each end; "least-squares" shrinks the range of
            min-max until the squared error of rounding and clipping is least.
        seed: of the values that the last two look at.
    """
    if method not in METHODS:
        raise UsageError(f"calibration {method!r}: expected one of {', '.join(METHODS)}")
    interpreter = open_interpreter(content, xnnpack=False, keep_tensors=True)
    computed = {t for op in interpreter._get_ops_details() for t in op["outputs"]}
    tensors = [
        detail
        for detail in interpreter.get_tensor_details()
        if detail["index"] in computed and detail["dtype"] == np.float32
    ]
    rng = np.random.default_rng(seed)
    extremes = {detail["name"]: (0.0, 0.0) for detail in tensors}
    means: dict[str, Any] = {detail["name"]: 0.0 for detail in tensors}
    samples = {detail["name"]: [] for detail in tensors}
    for image in images:
        run_once(interpreter, image)
        for detail in tensors:
            name, values = detail["name"], interpreter.get_tensor(detail["index"])
            low, high = extremes[name]
            extremes[name] = (min(low, float(values.min())), max(high, float(values.max())))
            channels = values.reshape(-1, values.shape[-1])
            means[name] = means[name] + channels.mean(0, dtype=np.float64) / len(images)
            if method != "min-max":
                samples[name].append(values.ravel()[rng.integers(0, values.size, SAMPLES)])
    if method == "min-max":
        return Statistics(extremes, means)
    choose = _percentile if method == "percentile" else least_squares_range
    ranges = {n: choose(np.concatenate(samples[n]), *extremes[n]) for n in sorted(extremes)}
    return Statistics(ranges, means)


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
            tried = (best[0], high * factor) if end else (low * factor, best[1])
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
