"""From a data set to the batches of a training run, by tf.data.

Everything random is a function of (seed, epoch, index): which picture comes when, and how it is
changed. So a run can be repeated exactly, and a run that was stopped at step k goes on with the
batches that it would have seen.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from kfcn.data.dataset import Dataset
from kfcn.data.feed import buckets
from kfcn.data.feed.augment import PAD, USUAL, Augmentation, augment, whole_size
from kfcn.data.feed.strong import BOX, COLOURS, cutmix_box, pasted, strongly_changed
from kfcn.data.feed.views import Memory, cached
from kfcn.errors import DataError, UsageError, counted
from kfcn.labels import IGNORE

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Shares:
    """Which parts of each batch are read here, of the parts that the replicas divide it into.

    Attributes:
        total: replicas in all.
        here: how many of them belong to this process.
        first: number of the first of them.
    """

    total: int = 1
    here: int = 1
    first: int = 0

    def place(self, element: int) -> tuple[int, int]:
        """Steps since the start of a stream, and the part, of an element of it."""
        step, part = divmod(element, self.here)
        return step, self.first + part

    def bounds(self, part: int, size: int) -> tuple[int, int]:
        """The first of a part's pictures among `size`, and the one after its last."""
        return size * part // self.total, size * (part + 1) // self.total


WHOLE = Shares()
_OF_STEP, _STRONG = 1, 3
"""Streams of random numbers; 0 is of the usual changes, 2 of pictures without labels."""


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Batches in an epoch; their sizes differ by one picture at most.

    So no batch is left with a remainder of one or two, of which batch normalisation would learn
    its statistics and which many replicas could not divide.
    """
    return math.ceil(len(dataset) / batch_size)


def check_shares(count: int, batch_size: int, replicas: int) -> None:
    """Raises a UsageError unless each of the replicas has a picture of every batch.

    (Convolutions of an empty share are not reliable: oneDNN gives them a wrong shape.)
    """
    smallest = count // math.ceil(count / batch_size)
    if smallest < replicas:
        raise UsageError(
            f"batches of {counted(smallest, 'picture')} cannot be divided over {replicas} "
            f"replicas; received batch size {batch_size}, choose a larger one"
        )


def training_batches(
    dataset: Dataset,
    batch_size: int,
    crop: tuple[int, int] | None,
    seed: int,
    first_step: int = 0,
    augmentation: Augmentation | None = USUAL,
    cache: bool | None = None,
    shares: Shares = WHOLE,
) -> "tf.data.Dataset":
    """An endless stream of shuffled, augmented batches, from any step on.

    Epoch e has its own order of the whole data set. With S = `steps_per_epoch`, step s is batch
    `s % S` of epoch `s // S`; the stream from step k on equals the whole stream without its first
    k batches, bit for bit. A worker of several reads its own rows of each batch and no others.

    Args:
        dataset: the training split.
        batch_size: greatest number of images in a batch.
        crop: height and width of the random crop; a smaller picture is padded (image `PAD`,
            labels 255). None takes whole pictures, padded at the bottom and right to the
            greatest of the batch; those of like size share a batch (`kfcn.data.feed.buckets`), and
            one random scale.
        seed: of the order and of every change.
        first_step: global step at which the stream starts.
        augmentation: the random changes; None for none. The place of the crop is random anyway.
            Strong ones need crops: the part that is pasted is from the crop before in the batch,
            for the first from the last.
        cache: keep decoded pictures in memory; None for "if they fit" (`cached`).
        shares: the parts of each batch that are wanted here; by default the whole batch.

    Returns:
        tf.data.Dataset of (images float32 `(B, h, w, 3)`, 0 to 255; labels uint8 `(B, h, w)`),
        one element for each wanted share of each step.

    Raises:
        UsageError: more shares than pictures in a batch, or strong changes without a crop.
        DataError: by way of TensorFlow's own error while the stream is read (`data_error`).
    """
    import tensorflow as tf

    if cache is not False:
        dataset = cached(dataset, Memory(math.inf) if cache else None)
    count = len(dataset)
    check_shares(count, batch_size, shares.total)
    strong = augmentation is not None and augmentation.strong
    if strong and crop is None:
        raise UsageError("strong augmentation needs crops of one size; received whole pictures")
    order_of = _orders(dataset, batch_size, crop, seed)
    # Pictures are read side by side; threads of OpenCV's own would only get in their way.
    cv2.setNumThreads(0)

    def changed(index, epoch, scale):
        numbers = uniform(seed, epoch * count + index)
        if scale is not None:
            numbers[0] = scale
        return augment(*_arrays(dataset, index), numbers, crop, augmentation)

    def mixed(batch, epoch, first, end):
        def chances(place):
            return uniform(seed, epoch * count + batch[place], _STRONG, COLOURS + BOX)

        made = {}
        for place in {place % len(batch) for place in range(first - 1, end)}:
            image, labels = changed(batch[place], epoch, None)
            made[place] = strongly_changed(image, chances(place)[:COLOURS]), labels
        for place in range(first, end):
            _, labels = made[place]
            box = cutmix_box(labels.shape, chances(place)[COLOURS:])
            yield pasted(made[place], made[(place - 1) % len(batch)], box)

    def read(element):
        step, share = shares.place(int(element))
        step += first_step
        epoch, begin, size = _batch_place(count, batch_size, step)
        batch = order_of(epoch)[begin : begin + size].tolist()
        first, end = shares.bounds(share, size)
        if strong:
            return stack(list(mixed(batch, epoch, first, end)))
        if crop is not None or batch_size == 1:
            return stack([changed(index, epoch, None) for index in batch[first:end]])
        # Pictures of one batch grow and shrink together, or padding would fill it. Every share
        # is padded like the whole batch, so that the replicas see what one device would see.
        numbers = uniform(seed, step, _OF_STEP)
        sizes = [whole_size(dataset.size(index), numbers, augmentation) for index in batch]
        pairs = [changed(index, epoch, numbers[0]) for index in batch[first:end]]
        return stack(pairs, np.max(sizes, axis=0))

    return _batches(tf.data.Dataset.counter(), read, crop)


def batch_names(
    dataset: Dataset, batch_size: int, crop: tuple[int, int] | None, seed: int, step: int
) -> list[str]:
    """The files of the training batch of a step, in its order."""
    epoch, begin, size = _batch_place(len(dataset), batch_size, step)
    order = _orders(dataset, batch_size, crop, seed)(epoch)
    return [dataset.file_name(int(index)) for index in order[begin : begin + size]]


def _orders(dataset: Dataset, batch_size: int, crop, seed: int):
    """The function that gives the order of an epoch; whole pictures are put into buckets."""
    count = len(dataset)
    if crop is not None or batch_size == 1:
        return lambda epoch: order(seed, epoch, count)
    sizes = buckets.all_sizes(dataset)
    steps = steps_per_epoch(dataset, batch_size)
    lengths = [_batch_place(count, batch_size, step)[2] for step in range(steps)]

    @functools.lru_cache(maxsize=2)
    def bucketed(epoch):
        rng = np.random.default_rng([seed, epoch])
        return buckets.arrange(order(seed, epoch, count), sizes, lengths, rng)

    return bucketed


def _batch_place(count: int, batch_size: int, step: int) -> tuple[int, int, int]:
    """Epoch of a step, place of its first sample in the epoch's order, number of its samples."""
    steps = math.ceil(count / batch_size)
    epoch, batch = divmod(step, steps)
    begin, end = (count * b // steps for b in (batch, batch + 1))
    return epoch, begin, end - begin


def data_error(error: Exception) -> DataError | None:
    """The DataError inside TensorFlow's error about a failed stream; None if it holds none."""
    found = re.search(r"\bDataError: (.+)", str(error))
    return DataError(found[1]) if found else None


@functools.lru_cache(maxsize=8)
def order(seed: int, epoch: int, count: int, *stream: int) -> np.ndarray:
    """The order of an epoch: a permutation of `range(count)`; each stream has its own."""
    return np.random.Generator(np.random.Philox([seed, epoch, *stream])).permutation(count)


def uniform(seed: int, key: int, stream: int = 0, count: int = 7) -> np.ndarray:
    """Random numbers in [0, 1), float32 `(count,)`, that belong to a key for good."""
    bits = np.random.Philox(key=[seed, key], counter=[0, 0, 0, stream])
    return np.random.Generator(bits).random(count, np.float32)


def _arrays(dataset: Dataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, labels, name = dataset[index]
    if image.shape[:2] != labels.shape:
        raise DataError(f"{name}: image {image.shape[:2]} and labels {labels.shape} differ in size")
    return image, labels


def stack(pairs, least: Sequence[int] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
    """One array of images and one of labels, padded at the bottom and right to a common size.

    Args:
        pairs: images uint8 `(h, w, 3)` and labels uint8 `(h, w)`.
        least: height and width of the result, if no picture is larger.

    Returns:
        Images float32 `(B, H, W, 3)` and labels uint8 `(B, H, W)`.
    """
    height, width = np.max([least, *(labels.shape for _, labels in pairs)], axis=0).tolist()
    all_images = _empty((len(pairs), height, width, 3), np.float32)
    all_labels = _empty((len(pairs), height, width), np.uint8)
    for place, (image, labels) in enumerate(pairs):
        h, w = labels.shape
        for target, source, padding in (
            (all_images[place], image, PAD),
            (all_labels[place], labels, IGNORE),
        ):
            target[:h, :w] = source
            target[h:] = target[:h, w:] = padding
    return all_images, all_labels


def _empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An array that TensorFlow takes as it is; it copies what does not begin at 64 bytes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size].view(dtype).reshape(shape)


def _batches(numbers, read: Callable, crop: tuple[int, int] | None = None):
    """The batches that `read` gives for a stream of numbers, several at a time, in order.

    A batch is one call of Python, whose lock decoders and OpenCV leave to others meanwhile.
    """
    import tensorflow as tf

    def batch(number):
        types = (tf.float32, tf.uint8)
        images, labels = tf.numpy_function(lambda n: read(int(n)), [number], types)
        images.set_shape((None, *(crop or (None, None)), 3))
        labels.set_shape((None, *(crop or (None, None))))
        return images, labels

    return numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)
