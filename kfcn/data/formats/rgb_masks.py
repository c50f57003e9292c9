"""Label maps whose classes are colours."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from kfcn.data.formats.images import reason
from kfcn.errors import DataError, shortlist


def read_colours(path: Path, label_of: Mapping[tuple[int, int, int], int]) -> np.ndarray:
    """A mask in colours as labels, uint8 `(H, W)`.

    A mask in grey holds the indices themselves.

    Raises:
        DataError: the file cannot be read, or holds a colour that is not in `label_of`.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("L", "1"):
                return np.array(image, np.uint8)
            values = np.asarray(image.convert("RGB")).astype(np.int32)
    except Exception as error:  # Pillow raises whatever its decoder meets
        raise DataError(f"{path}: cannot be read as a mask ({reason(error)})") from error
    code = values @ np.array([1 << 16, 1 << 8, 1], np.int32)  # (H, W)
    colours, inverse = np.unique(code, return_inverse=True)
    labels = np.zeros(len(colours), np.uint8)
    for index, number in enumerate(colours.tolist()):
        colour = (number >> 16, number >> 8 & 255, number & 255)
        if colour not in label_of:
            raise DataError(
                f"{path}: found the colour {colour}; expected one of {shortlist(label_of)} "
                "(labelmap.txt)"
            )
        labels[index] = label_of[colour]
    return labels[inverse].reshape(code.shape)
