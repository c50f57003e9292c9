"""Masks in which a class is a colour."""

import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from kfcn.data.formats.label_maps import StoredMask, labels_of, open_mask
from kfcn.errors import DataError, shortlist
from kfcn.labels import IGNORE

Colour = tuple[int, int, int]
_NO_COLOUR = 1 << 24


def read_colours(
    file: str | Path | bytes,
    label_of: Mapping[Colour, int],
    source: str = "labelmap.txt",
    page: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """A mask in colours as labels.

    A mask in grey, of however many bits, is read by its greys where all of them are colours of
    `label_of`; else it holds the class indices themselves.

    Args:
        file: an image file in RGB, palette or grey.
        label_of: colour -> label.
        source: the file that gives the colours, for errors.
        page: which page of a file of several; None where there must be one.
        name: what an error calls it; None for the file's own path.

    Returns:
        uint8 `(H, W)`.

    Raises:
        DataError: the file cannot be read, or holds a colour that is not in `label_of`.
    """
    name = name or str(file)
    stored = open_mask(file, name, page, "a mask")
    values = _colours(stored)
    if values is None:
        found = _by_greys(stored, label_of)
        return labels_of(stored, name) if found is None else found
    labels = _looked_up([values[..., channel] for channel in range(3)], label_of)
    if (unknown := labels < 0).any():
        colour = tuple(values[unknown][0].tolist())
        raise DataError(
            f"{name}: found the colour {colour}; expected one of {shortlist(label_of)} ({source})"
        )
    return labels.astype(np.uint8)


def read_indices(
    file: Path,
    label_of: Mapping[Colour, int],
    source: str,
    page: int | None = None,
    stored_labels: Collection[int] = (),
) -> np.ndarray:
    """A mask in grey or with a palette as its numbers, unless its colours say others are meant.

    A program that makes files smaller gives colours the indices that it likes: those of classes,
    and the greys of a map of labels.

    Args:
        file: the mask.
        label_of: colour -> label; empty where classes have none.
        source: the file that gives the colours, for errors.
        page: which page of a file of several; None where there must be one.
        stored_labels: the numbers that masks may hold.

    Raises:
        DataError: the file cannot be read, or its colours are those of other classes than its
            numbers.
    """
    stored = open_mask(file, str(file), page)
    labels = labels_of(stored, str(file))
    found = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()
    if stored.palette is None:
        _refuse_greys(stored, label_of, source, file)
        return labels
    shown = [tuple(stored.palette[index].tolist()) for index in found]
    meant = [label_of.get(colour) for colour in shown]
    what = f"has the colour of class {{}} ({source})"
    if None in meant and not np.ptp(stored.palette, axis=1).any():
        meant, what = [grey for grey, _, _ in shown], "is shown as the grey {}"
        # Indices 0 and 1 in black and white are a map of two classes, as many programs write it.
        if not {*meant} <= {*stored_labels, IGNORE} or {*meant} <= {0, IGNORE}:
            return labels
    if None not in meant and meant != found and len({*meant}) == len(found):
        index, label = next(pair for pair in zip(found, meant, strict=True) if pair[0] != pair[1])
        raise DataError(
            f"{file}: the index {index} of its palette {what.format(label)}, so it is unclear "
            "which is meant; save it as RGB if the colours are right, or as grey if the indices are"
        )
    return labels


def _refuse_greys(
    stored: StoredMask, label_of: Mapping[Colour, int], source: str, file: Path
) -> None:
    """Raises a DataError for a mask in white and other greys that are colours of classes.

    A picture of classes in black and white alone is made grey by programs that make files smaller.
    """
    if stored.numbers.ndim != 2 or (255, 255, 255) not in label_of:
        return
    found = np.unique(stored.numbers)
    greys = _in_eight_bits(found, stored.white).tolist()
    meant = [label_of.get((grey, grey, grey)) for grey in greys]
    if 255 in greys and None not in meant and meant != found.tolist():
        raise DataError(
            f"{file}: is in grey, and its {shortlist(greys)} are colours of classes ({source}), so "
            "it is unclear whether they or the numbers are meant; save it as RGB if the colours "
            "are right, or give the white class another colour there if the numbers are"
        )


def _colours(stored: StoredMask) -> np.ndarray | None:
    """The colours of a mask, `(H, W, 3)`; None for a mask in grey."""
    if stored.palette is not None:
        return stored.palette[stored.numbers]
    if stored.numbers.ndim == 2:
        return None
    values = (
        stored.numbers[..., :3] if stored.numbers.shape[2] > 2 else stored.numbers[..., [0] * 3]
    )
    return _in_eight_bits(values, stored.white)


def _in_eight_bits(values: np.ndarray, white: int) -> np.ndarray:
    """Numbers of which `white` is white as 0 to 255, where that is exact; else as they are."""
    if white == 255 or not white:
        return values
    scaled, rest = np.divmod(values.astype(np.int64) * 255, white)
    return values if rest.any() else scaled


def _by_greys(stored: StoredMask, label_of: Mapping[Colour, int]) -> np.ndarray | None:
    """The labels of a mask by its greys, as they are shown or as numbers; None where both fail."""
    numbers = stored.numbers
    if numbers.dtype.kind == "f":  # what is not whole is no grey of a class
        whole = np.where(numbers == np.floor(numbers), numbers, -1)
        numbers = whole.clip(-1, 256).astype(np.int64)
    for greys in (_in_eight_bits(numbers, stored.white), numbers):
        labels = _looked_up([greys] * 3, label_of)
        if (labels >= 0).all():
            return labels.astype(np.uint8)
        if stored.inverted:  # its numbers are not those that are shown
            break
    return None


def _looked_up(channels: Sequence[np.ndarray], label_of: Mapping[Colour, int]) -> np.ndarray:
    """The labels of colours.

    By a table of all colours: sorting those of a picture took fifteen times as long as decoding it.

    Args:
        channels: red, green and blue, whole numbers `(H, W)` each.
        label_of: colour -> label.

    Returns:
        int16 `(H, W)`; -1 where a colour has none.
    """
    code = np.zeros(channels[0].shape, np.uint32)
    beyond = np.zeros(code.shape, bool)
    for channel in channels:
        value = channel.astype(np.uint32)  # below 0 it becomes a large number
        beyond |= value > 255
        code = code << 8 | value
    code[beyond] = _NO_COLOUR
    return _labels_by_code(tuple(label_of.items()))[code]


@functools.lru_cache(maxsize=2)
def _labels_by_code(label_of: tuple[tuple[Colour, int], ...]) -> np.ndarray:
    """Labels by the 24 bits of a colour, and of `_NO_COLOUR`; int16, -1 where there is none."""
    labels = np.full(_NO_COLOUR + 1, -1, np.int16)
    for (red, green, blue), label in label_of:
        labels[red << 16 | green << 8 | blue] = label
    return labels
