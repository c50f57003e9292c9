"""Masks in which a class is a colour."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kfcn.data.formats.images import contents, open_image, reason
from kfcn.data.formats.label_maps import no_mask, read_labels
from kfcn.errors import DataError, shortlist

Colour = tuple[int, int, int]
_GREY = ("L", "1", "F")


def read_colours(
    file: str | Path | bytes,
    label_of: Mapping[Colour, int],
    source: str = "labelmap.txt",
    page: int | None = None,
) -> np.ndarray:
    """A mask in colours as labels.

    A mask in grey is read by its greys where all of them are colours of `label_of`; else it holds
    the class indices themselves.

    Args:
        file: an image file in RGB, palette or grey.
        label_of: colour -> label.
        source: the file that gives the colours, for errors.
        page: which page of a file of several; None where there must be one.

    Returns:
        uint8 `(H, W)`.

    Raises:
        DataError: the file cannot be read, or holds a colour that is not in `label_of`.
    """
    try:
        content = contents(file)
        if fault := no_mask(content):
            raise ValueError(fault)
        with open_image(content, page) as image:
            grey = image.mode in _GREY or image.mode.startswith("I")
            black_and_white = image.mode == "1"
            values = None if grey else np.asarray(image.convert("RGB")).astype(np.int32)
    except Exception as error:  # Pillow raises whatever its decoder meets
        raise DataError(f"{file}: cannot be read as a mask ({reason(error)})") from error
    if values is None:
        return _by_greys(read_labels(content, str(file), page), label_of, black_and_white)
    code = values @ np.array([1 << 16, 1 << 8, 1], np.int32)  # (H, W)
    colours, inverse = np.unique(code, return_inverse=True)
    labels = np.zeros(len(colours), np.uint8)
    for index, number in enumerate(colours.tolist()):
        colour = (number >> 16, number >> 8 & 255, number & 255)
        if colour not in label_of:
            raise DataError(
                f"{file}: found the colour {colour}; expected one of {shortlist(label_of)} "
                f"({source})"
            )
        labels[index] = label_of[colour]
    return labels[inverse].reshape(code.shape)


def _by_greys(
    stored: np.ndarray, label_of: Mapping[Colour, int], black_and_white: bool
) -> np.ndarray:
    greys = stored * np.uint8(255) if black_and_white else stored
    found = np.flatnonzero(np.bincount(greys.ravel(), minlength=256)).tolist()
    if not all((grey, grey, grey) in label_of for grey in found):
        return stored
    labels = np.zeros(256, np.uint8)
    for grey in found:
        labels[grey] = label_of[(grey, grey, grey)]
    return labels[greys]
