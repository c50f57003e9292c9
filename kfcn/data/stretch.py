"""How pictures of more than 8 bits become 0 to 255: by one rule for a whole data set.

A microscope or an industrial camera stores 10, 12 or 14 bits in files of 16: taken as 16 bits
their pictures are nearly black. Stretched one by one, what is bright in one is dark in another.
"""

from collections.abc import Sequence

from kfcn.data.catalog import Source
from kfcn.data.dataset import Dataset, map_samples
from kfcn.data.formats.images import value_range
from kfcn.errors import DataError, shortlist


def open_splits(source: Source, splits: Sequence[str], progress: bool = False) -> list[Dataset]:
    """Opens splits of one data set, with the stretch that `train`, or else the first, asks for.

    A stretch that the source gives is kept. The split that was asked says it in its notes.

    Raises:
        DataError: the splits have different classes.
    """
    opened = [source.open(split) for split in splits]
    for other in opened[1:]:
        _same_classes(opened[0], other)
    if source.as_read.stretch is not None or not opened:
        return opened
    asked = splits.index("train") if "train" in splits else 0
    stretch = choose_stretch(opened[asked], progress)
    if stretch is None or stretch == opened[asked].stretch:
        return opened
    source = source.stretched(stretch)
    opened = [source.open(split) for split in splits]
    opened[asked].notes += (
        f"pictures of more than 8 bits: the stored {stretch[0]} to {stretch[1]} become 0 to 255",
    )
    return opened


def _same_classes(one: Dataset, other: Dataset) -> None:
    ours, theirs = one.classes.names, other.classes.names
    if ours != theirs:
        raise DataError(
            f"{one.name}: the classes of {one.split} are {shortlist(ours)}, those of {other.split} "
            f"{shortlist(theirs)}; expected the same ones in the same order, because labels are "
            "numbers"
        )


def choose_stretch(dataset: Dataset, progress: bool = False) -> tuple[int, int] | None:
    """The stored numbers that become 0 and 255 in a data set's pictures of more than 8 bits.

    The greatest is the least 2^n - 1 that no pixel exceeds, such as 4095 of 12 bits. Where there
    are negative numbers, the range is that of the pixels themselves.

    Args:
        dataset: the training split.
        progress: show a progress bar.

    Returns:
        The pair; None where all pictures have 8 bits.
    """
    if dataset.counts is not None:  # prepared: its pictures were stretched when it was written
        return dataset.stretch
    low, high = 0, -1
    for found in map_samples(dataset, _range, "measuring", progress):
        if found is not None:
            low, high = min(low, found[0]), max(high, found[1])
    if high < 0 <= low:
        return None
    return (low, max(high, low + 1)) if low < 0 else (0, max(2 ** high.bit_length() - 1, 255))


def _range(dataset: Dataset, index: int) -> tuple[int, int] | None:
    stored = dataset.stored_image(index)
    if stored is None:
        return None
    try:
        return value_range(stored, dataset.file_name(index), dataset.page(index))
    except DataError:  # it is named when it is read
        return None
