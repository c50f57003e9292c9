"""From a data set to batches for `model.fit`, by tf.data.

Everything random is a function of (seed, epoch, index): which picture comes when, and how it is
changed. So a run can be repeated exactly, and a run that was stopped at step k goes on with the
batches that it would have seen.
"""

import functools
import math
import re
from typing import TYPE_CHECKING

import numpy as np

from kfcn.data import buckets
from kfcn.data.augment import PAD, USUAL, Augmentation, augment
from kfcn.data.dataset import IGNORE, Dataset, Sample
from kfcn.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf

CACHE_BYTES = 2 << 30


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Batches in an epoch; the last one holds the remainder."""
    return math.ceil(len(dataset) / batch_size)


def training_batches(
    dataset: Dataset,
    batch_size: int,
    crop: tuple[int, int] | None,
    seed: int,
    first_step: int = 0,
    augmentation: Augmentation | None = USUAL,
    cache: bool | None = None,
) -> "tf.data.Dataset":
    """An endless stream of shuffled, augmented batches, from any step on.

    Epoch e has its own order of the whole data set. With S = `steps_per_epoch`, step s is batch
    `s % S` of epoch `s // S`; the stream from step k on equals the whole stream without its first
    k batches, bit for bit.

    Args:
        dataset: the training split.
        batch_size: images in a batch.
        crop: height and width of the random crop; a smaller picture is padded (image `PAD`,
            labels 255). None takes whole pictures, padded at the bottom and right to the
            greatest of the batch; those of like size share a batch (`kfcn.data.buckets`), and
            one random scale.
        seed: of the order and of every change.
        first_step: global step at which the stream starts.
        augmentation: the random changes; None for none. The place of the crop is random anyway.
        cache: keep decoded pictures in memory; None for "if they fit" (`cached`).

    Returns:
        tf.data.Dataset of (images float32 `(B, h, w, 3)`, 0 to 255; labels uint8 `(B, h, w)`).

    Raises:
        DataError: by way of TensorFlow's own error while the stream is read (`data_error`).
    """
    import tensorflow as tf

    if cache is not False:
        dataset = cached(dataset, None if cache else CACHE_BYTES)
    count, steps = len(dataset), steps_per_epoch(dataset, batch_size)
    whole = crop is None and batch_size > 1
    sizes = buckets.all_sizes(dataset) if whole else None
    lengths = [min(batch_size, count - step * batch_size) for step in range(steps)]

    @functools.lru_cache(maxsize=2)
    def order_of(epoch):
        order = _order(seed, epoch, count)
        if not whole:
            return order
        return buckets.arrange(order, sizes, lengths, np.random.default_rng([seed, epoch]))

    def read(position):
        # Every epoch is laid out in S * B places, so that batches never cross its end. The
        # places beyond the last sample hold a dot that is cut off after batching.
        epoch, place = divmod(int(position), steps * batch_size)
        if place >= count:
            size = crop or (1, 1)
            return np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
        index = int(order_of(epoch)[place])
        uniform = _uniform(seed, epoch * count + index)
        if whole:  # pictures of one batch grow and shrink together, or padding would fill it
            uniform[0] = _uniform(seed, int(position) // batch_size, stream=1)[0]
        return augment(*_arrays(dataset, index), uniform, crop, augmentation)

    def sample(position):
        # One call of Python for each picture: each costs a copy and a turn of Python's lock.
        image, labels = tf.numpy_function(read, [position], (tf.uint8, tf.uint8))
        image.set_shape((*(crop or (None, None)), 3))
        labels.set_shape(crop or (None, None))
        return image, labels

    def cut(images, labels, step):
        size = tf.minimum(count - (step % steps) * batch_size, batch_size)
        return images[:size], labels[:size]

    stream = tf.data.Dataset.counter(first_step * batch_size)
    stream = stream.map(sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    stream = _batch(stream, batch_size)
    if count % batch_size:
        stream = tf.data.Dataset.zip(stream, tf.data.Dataset.counter(first_step))
        stream = stream.map(lambda batch, step: cut(*batch, step))
    return stream.prefetch(2)


def evaluation_batches(dataset: Dataset, batch_size: int = 1) -> "tf.data.Dataset":
    """All pictures in order, unchanged and at full size; the last batch may be short.

    Args:
        dataset: the split.
        batch_size: images in a batch; pictures of other sizes in it are padded at the bottom and
            right (image `PAD`, labels 255).

    Returns:
        tf.data.Dataset, of known cardinality, of (images float32 `(B, H, W, 3)`, 0 to 255;
        labels uint8 `(B, H, W)`).
    """
    import tensorflow as tf

    def sample(index):
        image, labels = tf.numpy_function(
            lambda i: _arrays(dataset, int(i)), [index], (tf.uint8, tf.uint8)
        )
        image.set_shape((None, None, 3))
        labels.set_shape((None, None))
        return image, labels

    stream = tf.data.Dataset.range(len(dataset))
    stream = stream.map(sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return _batch(stream, batch_size).prefetch(2)


def data_error(error: Exception) -> DataError | None:
    """The DataError inside TensorFlow's error about a failed stream; None if it holds none."""
    found = re.search(r"\bDataError: (.+)", str(error))
    return DataError(found[1]) if found else None


class _Cached(Dataset):
    """A data set that keeps what it has decoded."""

    def __init__(self, dataset: Dataset):
        self.name, self.split, self.classes = dataset.name, dataset.split, dataset.classes
        self.notes, self.counts = dataset.notes, dataset.counts
        self._dataset = dataset
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self._samples.get(index)
        if sample is None:
            sample = self._samples[index] = self._dataset[index]
        return sample

    def file_name(self, index: int) -> str:
        return self._dataset.file_name(index)

    def label_name(self, index: int) -> str:
        return self._dataset.label_name(index)

    def size(self, index: int) -> tuple[int, int]:
        return self._dataset.size(index)


def cached(dataset: Dataset, budget: int | None = CACHE_BYTES) -> Dataset:
    """The data set with a memory for decoded samples, if they fit.

    The size is estimated from the first sample. A data set that has a memory is given back as it
    is, so that `check`, training and evaluation can share one.

    Args:
        dataset: any data set.
        budget: bytes that the decoded samples may take; None for no limit.
    """
    if isinstance(dataset, _Cached) or not len(dataset):
        return dataset
    kept = _Cached(dataset)
    if budget is not None:
        first = kept[0]
        if (first.image.nbytes + first.labels.nbytes) * len(dataset) > budget:
            return dataset
    return kept


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch: a permutation of `range(count)`."""
    return np.random.Generator(np.random.Philox([seed, epoch])).permutation(count)


def _uniform(seed: int, key: int, stream: int = 0) -> np.ndarray:
    """Seven random numbers in [0, 1), float32 `(7,)`, that belong to a key for good."""
    bits = np.random.Philox(key=[seed, key], counter=[0, 0, 0, stream])
    return np.random.Generator(bits).random(7, np.float32)


def _arrays(dataset: Dataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, labels, name = dataset[index]
    if image.shape[:2] != labels.shape:
        raise DataError(f"{name}: image {image.shape[:2]} and labels {labels.shape} differ in size")
    return image, labels


def _batch(stream, batch_size: int):
    """Batches, padded where sizes differ; images become float32 last, as the bytes are fewer."""
    import tensorflow as tf

    if stream.element_spec[1].shape.is_fully_defined():
        stream = stream.batch(batch_size)
    else:
        padding = (tf.constant(PAD, tf.uint8), tf.constant(IGNORE, tf.uint8))
        stream = stream.padded_batch(batch_size, padding_values=padding)
    return stream.map(lambda images, labels: (tf.cast(images, tf.float32), labels))
