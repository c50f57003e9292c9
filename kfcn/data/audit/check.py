"""Looks at every pair of a data set once: is it sound, and how often is each class seen?"""

import numpy as np

from kfcn.data.dataset import Counts, Dataset, Sample, map_samples
from kfcn.errors import DataError, UsageError, counted
from kfcn.labels import IGNORE


def check(dataset: Dataset, progress: bool = False, training: bool | None = None) -> Counts:
    """Opens every pair once, before a training run relies on it, and counts its labels.

    Prepared data were looked at when they were written; their counts are given at once.

    Args:
        dataset: the split to look at.
        progress: show a progress bar.
        training: whether it is trained on, which one class alone does not allow; None for what
            its name says.

    Returns:
        The counts, from which `class_weights` follow without a second pass.

    Raises:
        DataError: the split is empty, wholly ignored, or for training and of one class alone; a
            file cannot be read, image and labels differ in size, or a label is neither a class
            nor 255; the message names the file and what was found.
    """
    if error := nothing_in(dataset):
        raise DataError(error)
    counts = dataset.counts
    if counts is None:
        counts = Counts.nothing(len(dataset.classes))
        for histogram in map_samples(dataset, _sound_histogram, "checking", progress):
            counts = counts.add(histogram)
    if error := unfit(dataset, counts, training):
        raise DataError(error)
    return counts


def checked_sample(dataset: Dataset, index: int) -> Sample:
    """A pair whose labels have the image's size and are classes or 255.

    Raises:
        DataError: they are not, or a file cannot be read.
    """
    return counted_sample(dataset, index)[0]


def _sound_histogram(dataset: Dataset, index: int) -> np.ndarray:
    return counted_sample(dataset, index)[1]


def counted_sample(dataset: Dataset, index: int) -> tuple[Sample, np.ndarray]:
    """`checked_sample`, and how often each of the 256 labels is in it."""
    sample = dataset[index]
    found = label_histogram(sample.labels)
    error = size_error(dataset, index, sample) or label_error(dataset, index, found)
    if error:
        raise DataError(error)
    return sample, found


def label_histogram(labels: np.ndarray) -> np.ndarray:
    """How often each of the 256 labels occurs, int64 `(256,)`."""
    return np.bincount(labels.ravel(), minlength=256)


# What makes data unfit for training, in words; None where nothing is wrong. The audit tells them
# all, `check` raises the first.


def nothing_in(dataset: Dataset) -> str | None:
    """A split without images."""
    if len(dataset):
        return None
    return (
        f"{dataset.name}: split {dataset.split!r} is empty; expected at least one image "
        "with its label map"
    )


def nothing_to_learn(dataset: Dataset, counts: Counts) -> str | None:
    """A split of which every pixel is ignored."""
    if counts.pixels.any():
        return None
    return (
        f"{dataset.name}: split {dataset.split!r} has no labelled pixel: all {counts.ignored} are "
        f"{IGNORE} (ignore); expected some of 0 to {len(dataset.classes) - 1}"
    )


def one_class_alone(dataset: Dataset, counts: Counts) -> str | None:
    """A split of which every labelled pixel is of one class: whatever is learned is right."""
    names, seen = dataset.classes.names, np.flatnonzero(counts.pixels)
    if len(names) == 1:
        (name,) = names
        return (
            f"{dataset.name}: its only class is {name}; expected at least two: pixels that are not "
            f"{name} need their own class, such as background"
        )
    if len(seen) != 1:
        return None
    total = counts.ignored + int(counts.pixels.sum())
    share = 100 * counts.ignored / total
    other = next(index for index in range(len(names)) if index != seen[0])
    message = (
        f"{dataset.name}: split {dataset.split!r} holds one class of {len(names)}: "
        f"{100 - share:.1f} % of its pixels are {names[seen[0]]}"
    )
    if not counts.ignored:
        return f"{message}; expected pixels of {names[other]} (stored as {other}) as well"
    return (
        f"{message}, {share:.1f} % are {IGNORE} = ignore; a second class is stored as {other}: if "
        f"{IGNORE} stands for {names[-1]}, pass --ignore none, or write `{names[-1]} = {IGNORE}` "
        "into classes.txt"
    )


def unfit(dataset: Dataset, counts: Counts, training: bool | None = None) -> str | None:
    """What makes a split unfit as a whole."""
    if training is None:
        training = dataset.split.startswith(("train", "fit"))
    return nothing_to_learn(dataset, counts) or (
        one_class_alone(dataset, counts) if training else None
    )


def size_error(dataset: Dataset, index: int, sample: Sample) -> str | None:
    """An image and a label map of different size."""
    (h, w), (lh, lw) = sample.image.shape[:2], sample.labels.shape
    if (h, w) == (lh, lw):
        return None
    turned = ""
    if (orientation := dataset.head(index).orientation) != 1:
        turned = (
            f": the image is turned upright by its EXIF orientation {orientation}, the label map "
            "is not"
        )
    return (
        f"{sample.name}: the image is {h}x{w} and its label map {dataset.label_name(index)} is "
        f"{lh}x{lw} (height x width); expected the same size{turned}"
    )


def label_error(dataset: Dataset, index: int, histogram: np.ndarray) -> str | None:
    """A label that is neither a class nor 255."""
    classes = len(dataset.classes)
    wrong = np.flatnonzero(histogram[classes:IGNORE]) + classes
    if not wrong.size:
        return None
    found = ", ".join(map(str, wrong[:5])) + (", ..." if wrong.size > 5 else "")
    # Four bits cannot hold 255; programs that choose the bits by the palette cut it off.
    hint = f"; 15 is what {IGNORE} becomes in a PNG of 4 bits" if wrong.max() == 15 else ""
    return (
        f"{dataset.label_name(index)}: found label {found}; expected 0 to {classes - 1} "
        f"({counted(classes, 'class', 'classes')}) or {IGNORE} (ignore){hint}"
    )


def class_weights(counts: Counts, kind: str) -> np.ndarray:
    """Weights of the classes in the loss, so that rare classes are not drowned by common ones.

    Median frequency balancing (Eigen and Fergus 2015, section 5; SegNet, section 4): with
    `freq(c) = pixels(c) / image_pixels(c)`, the weight is `median(freq) / freq(c)`.

    Args:
        counts: what `check` saw of the training split.
        kind: "median", or "sqrt" for its square root, which is gentler with very rare classes.

    Returns:
        float32 `(C,)`. A class that never occurs is left out of the median and has weight 1: no
        pixel of the training split will meet it.

    Raises:
        UsageError: an unknown kind.
    """
    if kind not in ("median", "sqrt"):
        raise UsageError(f"Expected class weights 'median' or 'sqrt'. Received: {kind!r}")
    weights = np.ones(len(counts.pixels), np.float64)
    seen = counts.pixels > 0
    frequency = counts.pixels[seen] / counts.image_pixels[seen]
    if frequency.size:
        weights[seen] = np.median(frequency) / frequency
    return (np.sqrt(weights) if kind == "sqrt" else weights).astype(np.float32)
