"""One picture as an array in, its label map as an array out."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kfcn.errors import UsageError
from kfcn.inference.runtime.net import KerasNet, Net, open_net
from kfcn.inference.segment import segment as segment_by
from kfcn.saved import check_net, described, model_path

if TYPE_CHECKING:
    import keras

_KEPT = 4
"""Nets that stay open, the last used; each holds its weights in memory."""


def segment(model: "keras.Model | Path | str", image: np.ndarray) -> np.ndarray:
    """The class of each pixel of one image.

    A file or a name is opened once, on the quickest runtime of the machine, and again only where
    the file has changed; the last four stay open. A shipped net needs neither TensorFlow nor Keras.
    An image above 8 megapixels is computed in tiles (`kfcn.inference.tiling`).

    Args:
        model: a `.keras` file, a run folder, or the name of a shipped net; or a Keras model, which
            computes on TensorFlow with the weights that it has at each call.
        image: uint8 `(H, W, 3)`, RGB, of any height and width.

    Returns:
        uint8 `(H, W)`, class indices.

    Raises:
        UsageError: another kind of array, or no such model.
        KfcnError: a file that cannot be read, or a model without scores for each pixel.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UsageError(
            f"received an image of {image.dtype} {image.shape}; expected uint8 (H, W, 3), RGB"
        )
    if isinstance(model, (str, Path)):
        file = model_path(model).absolute()
        status = file.stat()
        net = _opened(str(model), file, status.st_mtime_ns, status.st_size)
    else:
        check_net(model, described(model))
        net = KerasNet(model)
    return segment_by(net, np.ascontiguousarray(image))


@functools.lru_cache(maxsize=_KEPT)
def _opened(model: str, _file: Path, _changed: int, _size: int) -> Net:
    return open_net(model)[0]
