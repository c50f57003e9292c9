"""Finding the widths and weights of a dense CRF for a trained net.

The widths of the filters do not learn (Zheng et al. 2015, section 7.1: found by cross-validation),
and what suits one camera ruins the labels of another. `tune` tries values one parameter at a time,
keeps what gives the best mean IoU, and goes round again, starting from the published ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np

from kfcn import metrics
from kfcn.crf.layer import DenseCRF

_TUNED = ("theta_alpha", "theta_beta", "theta_gamma", "spatial_weight", "bilateral_weight")
# Of PASCAL VOC, as `DenseCRF` has them by default. These are all that `crf.json` may hold.
PUBLISHED = {name: signature(DenseCRF).parameters[name].default for name in _TUNED}
# In the order of their effect. A weight of 0 switches a filter off.
GRID = {
    "theta_beta": (3.0, 5.0, 8.0, 13.0, 20.0),
    "bilateral_weight": (0.0, 0.5, 1.0, 2.0, 5.0),
    "theta_alpha": (20.0, 40.0, 80.0, 160.0),
    "spatial_weight": (0.0, 0.5, 1.0, 3.0),
    "theta_gamma": (1.0, 3.0),
}


@dataclass(frozen=True)
class Trial:
    """What one choice of values gave on the samples.

    Attributes:
        values: arguments of `DenseCRF`; None for the net alone.
        mean_iou: 0..1.
        boundary_iou: 0..1.
    """

    values: dict[str, float] | None
    mean_iou: float
    boundary_iou: float


def tune(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    logits: Sequence[np.ndarray],
    grid: Mapping[str, Iterable[float]] | None = None,
    progress: Callable[[Trial], None] = lambda trial: None,
) -> tuple[Trial, Trial]:
    """Searches the values with which a CRF on a net's logits gives the best mean IoU.

    Args:
        images: uint8 `(H, W, 3)`, of any sizes.
        labels: uint8 `(H, W)`, of each image, 255 where none is known.
        logits: float32 `(H, W, C)`, the net's for each image. It runs once, before this: only the
            CRF is tried again and again.
        grid: the values to try, by argument of `DenseCRF`; `GRID` when None.
        progress: gets every trial, the net alone first.

    Returns:
        The net alone, and the best: a CRF, or the net alone where none of them gives more.
    """
    num_classes = logits[0].shape[-1]

    def trial(values):
        matrix = np.zeros((num_classes, num_classes), np.int64)
        boundary = np.zeros((2, num_classes), np.int64)
        for image, truth, scores in zip(images, labels, logits, strict=True):
            refined = scores if values is None else refine(scores, image, values)
            found = refined.argmax(-1)
            matrix = matrix + metrics.confusion_matrix(truth, found, num_classes)
            boundary = boundary + metrics.boundary_counts(truth, found, num_classes)
        result = Trial(values, metrics.scores(matrix)["mean_iou"], metrics.boundary_iou(boundary))
        progress(result)
        return result

    alone, tried = trial(None), []

    def score(values):
        tried.append(trial(values))
        return tried[-1].mean_iou

    coordinate_search(score, PUBLISHED, GRID if grid is None else grid)
    return alone, max([alone, *tried], key=lambda found: found.mean_iou)  # of equals the first


def coordinate_search(
    score: Callable[[dict[str, float]], float],
    start: Mapping[str, float],
    grid: Mapping[str, Iterable[float]],
    rounds: int = 2,
) -> list[tuple[dict[str, float], float]]:
    """Tries the values of one parameter at a time and keeps the best; ends where nothing gains.

    Args:
        score: of values; the higher the better. It is asked once for the same values.
        start: the first values.
        grid: what to try, by parameter.
        rounds: over all parameters, at most.

    Returns:
        Everything tried, in order, with its score.
    """
    best, tried = dict(start), {}

    def value(candidate):
        key = tuple(sorted(candidate.items()))
        if key not in tried:
            tried[key] = score(candidate)
        return tried[key]

    value(best)
    for _ in range(rounds):
        before = dict(best)
        for name, values in grid.items():
            best = max([best, *({**best, name: v} for v in values)], key=value)
        if best == before:
            break
    return [(dict(key), figure) for key, figure in tried.items()]


def refine(logits: np.ndarray, image: np.ndarray, values: Mapping[str, float]) -> np.ndarray:
    """A net's logits float32 `(H, W, C)` after a CRF with these values on the uint8 image."""
    options: Mapping[str, Any] = values
    layer = DenseCRF(**options)
    return np.asarray(layer([logits[None], image[None].astype("float32")]))[0]
