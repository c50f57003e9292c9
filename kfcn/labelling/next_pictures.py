"""Which pictures to label next: those that the net is unsure of and that are unlike each other.

Uncertainty alone chooses many frames of one difficult street; unlikeness alone (the core-set of
O. Sener and S. Savarese, "Active Learning for Convolutional Neural Networks", ICLR 2018) chooses
outliers. Here each picture's uncertainty is multiplied by its distance to what is labelled or
chosen already, and the greatest product is next.
"""

from collections.abc import Sequence

import keras
import numpy as np

from kfcn.errors import KfcnError
from kfcn.fused import run_net
from kfcn.inference.protocol import softmax

SIDE = 256
"""Long side, in pixels, of the picture that is described: what it shows, not how sharp it is."""


def pixel_uncertainty(logits: np.ndarray) -> np.ndarray:
    """The entropy of each pixel's probabilities by its greatest possible one.

    Args:
        logits: float32 `(H, W, C)`.

    Returns:
        float32 `(H, W)` in 0..1: 0 where the net is sure, 1 where all classes are alike to it.
    """
    shares = softmax(logits)
    terms = np.maximum(shares, 1e-12)
    np.log(terms, out=terms)
    terms *= shares
    entropy = -terms.sum(-1)
    return (entropy / np.log(logits.shape[-1])).astype(np.float32)


def picture_uncertainty(logits: np.ndarray) -> float:
    """How unsure the net is of a picture, 0..1: the mean over the classes that it sees there.

    Of each class its own pixels' mean uncertainty; over pixels alone a doubtful cyclist would
    weigh nothing beside a sure road.
    """
    uncertainty = pixel_uncertainty(logits)
    seen = logits.argmax(-1).ravel()
    pixels = np.bincount(seen)
    sums = np.bincount(seen, uncertainty.ravel())
    return float((sums[pixels > 0] / pixels[pixels > 0]).mean())


def describer(model: keras.Model) -> keras.Model:
    """The part of a net up to its deepest features: `(B, H, W, 3)` to `(B, h, w, D)`.

    Raises:
        KfcnError: the net has no layer `score_fr`, which every net of kfcn but `convnet` has.
    """
    names = {layer.name: layer for layer in model.layers}
    if "score_fr" not in names:
        raise KfcnError(
            f"{model.name} has no layer score_fr, whose input describes the pictures; expected a "
            "kfcn net with a backbone"
        )
    return keras.Model(model.inputs[0], names["score_fr"].input)


def description(body: keras.Model, image: np.ndarray) -> np.ndarray:
    """What a picture shows: the mean of its deepest features, of length 1.

    Args:
        body: `describer(model)`.
        image: uint8 `(H, W, 3)`.

    Returns:
        float32 `(D,)`.
    """
    import cv2

    scale = min(1.0, SIDE / max(image.shape[:2]))
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    pooled = run_net(body, small[None].astype(np.float32))[0].mean((0, 1))
    return (pooled / max(float(np.linalg.norm(pooled)), 1e-12)).astype(np.float32)


def choose(
    uncertainty: Sequence[float],
    descriptions: np.ndarray,
    count: int,
    labelled: np.ndarray | None = None,
) -> list[int]:
    """The pictures to label next, the most useful first.

    Args:
        uncertainty: of each of the N pictures, 0..1.
        descriptions: float32 `(N, D)`, of length 1 each.
        count: how many are wanted; all N where there are fewer.
        labelled: float32 `(M, D)`, of the pictures that have labels already.

    Returns:
        Indices 0..N-1. Of equal ones the first comes first.
    """
    unsure = np.asarray(uncertainty, np.float64)
    descriptions = np.asarray(descriptions, np.float64)
    distance = np.full(len(unsure), 2.0)  # the greatest between vectors of length 1
    for start in range(0, 0 if labelled is None else len(labelled), 1024):
        block = np.asarray(labelled[start : start + 1024], np.float64)  # type: ignore[index]
        distance = np.minimum(distance, _distances(descriptions, block).min(1))
    chosen: list[int] = []
    while len(chosen) < min(count, len(unsure)):
        worth = unsure * distance
        worth[chosen] = -1.0
        best = int(worth.argmax())
        chosen.append(best)
        distance = np.minimum(
            distance, _distances(descriptions, descriptions[best : best + 1])[:, 0]
        )
    return chosen


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances `(N, M)` of vectors of length 1."""
    return np.sqrt(np.maximum(2.0 - 2.0 * a @ b.T, 0.0))
