"""Labels that a net which has not seen them contradicts.

V. Lad and J. Mueller, "Estimating label quality and errors in semantic segmentation data via any
model" (2023): the score of a picture is the soft minimum of its pixels' own probabilities, those of
the labels that they have. A few pixels that are surely something else weigh more than many that are
a little unsure.
"""

import dataclasses

import cv2
import numpy as np

from kfcn.inference.protocol import softmax
from kfcn.labels import IGNORE

TEMPERATURE = 0.1
"""Of the soft minimum; the paper's."""

LEAST_PIXELS = 16
"""A smaller region is a ragged border, not an object."""

SURE = 0.5
"""How probable another class must be for a pixel to contradict its label."""


@dataclasses.dataclass(frozen=True)
class Region:
    """A connected part of a picture whose pixels have one label and are seen as one other class.

    Attributes:
        picture: index of the picture in its data set.
        label: the label that the pixels have.
        seen: the class that the net sees there.
        pixels: how many.
        box: left, top, right and bottom in pixels, right and bottom excluded.
        own: mean probability of the label, 0..1.
        score: what it is ranked by: the evidence against the label, in nats, over all its pixels,
            divided by the square root of their number; higher is more suspicious.
    """

    picture: int
    label: int
    seen: int
    pixels: int
    box: tuple[int, int, int, int]
    own: float
    score: float


def own_probabilities(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What the net gives to the label that each pixel has.

    Args:
        logits: float32 `(H, W, C)`.
        labels: uint8 `(H, W)`, 0..C-1 or 255.

    Returns:
        float32 `(H, W)` in 0..1; 1 where the label is 255.
    """
    shares = softmax(logits)
    known = labels != IGNORE
    own = np.take_along_axis(shares, np.where(known, labels, 0)[..., None], axis=-1)[..., 0]
    return np.where(known, own, np.float32(1))


def picture_score(own: np.ndarray, temperature: float = TEMPERATURE) -> float:
    """The soft minimum of a picture's own probabilities: the lower, the more suspicious.

    sum_j s_j w_j with w the softmax of (1 - s) / temperature over all pixels j.

    Args:
        own: `(H, W)` in 0..1.
        temperature: towards 0 it becomes the minimum, towards infinity the mean.
    """
    values = np.asarray(own, np.float64).ravel()
    weights = np.exp((values.min() - values) / temperature)  # the largest exponent is 0
    return float((values * weights).sum() / weights.sum())


def regions(picture: int, logits: np.ndarray, labels: np.ndarray) -> list[Region]:
    """The contradicted regions of a picture, the most suspicious first.

    A pixel contradicts its label where another class is more than `SURE` probable; contradicting
    pixels of one label and one other class that touch (also at corners) are a region.

    Args:
        picture: index, which the regions carry.
        logits: float32 `(H, W, C)`.
        labels: uint8 `(H, W)`, 0..C-1 or 255.
    """
    shares = softmax(logits)
    seen = shares.argmax(-1)
    top = np.take_along_axis(shares, seen[..., None], -1)[..., 0]
    wrong = (labels != IGNORE) & (seen != labels) & (top > SURE)
    own = own_probabilities(logits, labels)
    evidence = np.log(np.maximum(top, 1e-6)) - np.log(np.maximum(own, 1e-6))
    classes, found = logits.shape[-1], []
    pairs = np.where(wrong, labels.astype(np.int64) * classes + seen, -1)
    for pair in np.unique(pairs[wrong]).tolist():
        mask = (pairs == pair).astype(np.uint8)
        count, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        label, other = divmod(pair, classes)
        for part in range(1, count):
            left, top_row, width, height, pixels = stats[part].tolist()
            if pixels < LEAST_PIXELS:
                continue
            window = (slice(top_row, top_row + height), slice(left, left + width))
            inside = parts[window] == part
            found.append(
                Region(
                    picture,
                    label,
                    other,
                    pixels,
                    (left, top_row, left + width, top_row + height),
                    float(own[window][inside].mean()),
                    float(evidence[window][inside].sum() / np.sqrt(pixels)),
                )
            )
    return ranked(found)


def average_precision(scores: np.ndarray, wrong: np.ndarray) -> float:
    """Average precision of a ranking, for planted errors.

    Args:
        scores: `(N,)`, higher is more suspicious.
        wrong: bool `(N,)`, what really is.

    Returns:
        The mean, over the wrong ones, of the share of wrong ones among those ranked at least as
        high; NaN where nothing is wrong.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    hits = np.asarray(wrong, bool)[order]
    if not hits.any():
        return float("nan")
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def ranked(found: list[Region]) -> list[Region]:
    """Regions, the most suspicious first."""
    return sorted(found, key=lambda region: -region.score)
