"""Exported files against Keras, on images of two sizes, by the format's own runtime."""

from collections.abc import Sequence

import numpy as np

from kfcn.errors import KfcnError
from kfcn.inference.protocol import softmax
from kfcn_tools.export.net import Net, Run

# Another order of summation may decide for the other of two classes whose logits are so close, as
# a share of the largest logit.
TIE = 1e-4
MOST_TIES = 1e-3
CLOSE = 1e-3


def compare(run: Run, net: Net, batches: Sequence[np.ndarray]) -> list[dict]:
    """What an exported file gives beside what Keras gives.

    Args:
        run: the file, in its runtime.
        net: what it was made from.
        batches: uint8 (N, H, W, 3), each of another size.

    Returns:
        For each batch its `shape`, `pixels`, those whose label is `differing`, the most that the
        two logits in question are `apart` in Keras, the `largest` logit by magnitude, and for
        scores the largest `error` of a probability.
    """
    found = []
    for images, given in zip(batches, run(batches), strict=True):
        logits = net.logits(images)
        wanted = logits.shape if net.scores else logits.shape[:3]
        dtype = np.float32 if net.scores else np.uint8
        if given.shape != wanted or given.dtype != dtype:
            raise KfcnError(
                f"the exported file returns {given.dtype} {given.shape} for images of "
                f"{images.shape}; expected {np.dtype(dtype).name} {wanted}"
            )
        for numbers, whose in ((logits, "the net"), (given, "the exported file")):
            if not np.isfinite(numbers).all():
                raise KfcnError(
                    f"{whose} returns values that are not numbers for images of {images.shape}; "
                    "nothing was written"
                )
        labels = given.argmax(-1) if net.scores else given
        expected = logits.argmax(-1)
        differ = labels != expected
        theirs = np.take_along_axis(logits, labels[..., None].astype(int), -1)[..., 0]
        result = {
            "shape": list(images.shape),
            "pixels": int(expected.size),
            "differing": int(differ.sum()),
            "apart": float((logits.max(-1) - theirs)[differ].max(initial=0)),
            "largest": float(np.abs(logits).max()),
        }
        if net.scores:
            result["error"] = float(np.abs(given - softmax(logits)).max())
        found.append(result)
    return found


def require_equal(found: Sequence[dict], what: str) -> None:
    """Makes sure that nothing differs but by rounding.

    Raises:
        KfcnError: something does.
    """
    for result in found:
        height, width = result["shape"][1:3]
        share = result["differing"] / result["pixels"]
        if share > MOST_TIES or result["apart"] > TIE * result["largest"]:
            raise KfcnError(
                f"{what} labels {result['differing']} of {result['pixels']} pixels of "
                f"{height}x{width} images differently from Keras (logits up to "
                f"{result['apart']:.2g} apart); nothing was written"
            )
        if result.get("error", 0) > CLOSE:
            raise KfcnError(
                f"{what} gives probabilities up to {result['error']:.2g} from Keras' on"
                f" {height}x{width} images; nothing was written"
            )
