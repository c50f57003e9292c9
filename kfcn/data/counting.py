"""Looks at every pair of a data set once: is it sound, and how often is each class seen?"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kfcn.data.dataset import IGNORE, Dataset
from kfcn.errors import DataError, UsageError


@dataclass(frozen=True)
class Counts:
    """What `check` saw.

    Attributes:
        pixels: int64 `(C,)`, labelled pixels of each class.
        image_pixels: int64 `(C,)`, labelled pixels of all images in which the class occurs.
        ignored: pixels with the ignore label.
        images: number of images.
    """

    pixels: np.ndarray
    image_pixels: np.ndarray
    ignored: int
    images: int


def check(dataset: Dataset, progress: bool = False) -> Counts:
    """Opens every pair once, before a training run relies on it, and counts its labels.

    Args:
        dataset: the split to look at.
        progress: show a progress bar.

    Returns:
        The counts, from which `class_weights` follow without a second pass.

    Raises:
        DataError: the split is empty, a file cannot be read, image and labels differ in size, or
            a label is neither a class nor 255; the message names the file and what was found.
    """
    images = len(dataset)
    if not images:
        raise DataError(
            f"{dataset.name}: split {dataset.split!r} is empty; expected at least one image "
            "with its label map"
        )
    classes = len(dataset.classes)
    pixels = np.zeros(classes, np.int64)
    image_pixels = np.zeros(classes, np.int64)
    ignored = 0
    # Pillow decodes outside of Python's lock, so that threads do share the work.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        histograms = pool.map(lambda index: _histogram(dataset, index), range(images))
        if progress:
            from tqdm import tqdm

            title = f"checking {dataset.name}/{dataset.split}"
            histograms = tqdm(histograms, desc=title, total=images, unit="image", leave=False)
        for histogram in histograms:
            counts = histogram[:classes]
            pixels += counts
            image_pixels += np.where(counts > 0, counts.sum(), 0)
            ignored += int(histogram[IGNORE])
    return Counts(pixels, image_pixels, ignored, images)


def _histogram(dataset: Dataset, index: int) -> np.ndarray:
    """Counts of the 256 labels of one sample, int64 `(256,)`, after looking at its soundness."""
    image, labels, name = dataset[index]
    if image.shape[:2] != labels.shape:
        (h, w), (lh, lw) = image.shape[:2], labels.shape
        raise DataError(
            f"{name}: the image is {h}x{w} and its label map {dataset.label_name(index)} is "
            f"{lh}x{lw} (height x width); expected the same size"
        )
    histogram = np.bincount(labels.ravel(), minlength=256)
    classes = len(dataset.classes)
    wrong = np.flatnonzero(histogram[classes:IGNORE]) + classes
    if wrong.size:
        found = ", ".join(map(str, wrong[:5])) + (", ..." if wrong.size > 5 else "")
        raise DataError(
            f"{dataset.label_name(index)}: found label {found}; expected 0 to {classes - 1} "
            f"({classes} classes) or {IGNORE} (ignore)"
        )
    return histogram


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
