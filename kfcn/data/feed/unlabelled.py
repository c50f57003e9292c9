"""Batches of pictures without labels, whose crops are labelled as they are and learned otherwise.

Everything random is a function of (seed, step, place in the batch), as in `kfcn.data.feed.batches`.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from kfcn.data.dataset import Dataset
from kfcn.data.feed.augment import PAD, Augmentation, augment
from kfcn.data.feed.batches import WHOLE, Shares, order, stack, uniform
from kfcn.data.feed.strong import BOX, COLOURS, Box, cutmix_box, pasted, strongly_changed
from kfcn.data.feed.views import cached
from kfcn.labels import IGNORE

if TYPE_CHECKING:
    import tensorflow as tf

OWN, PASTED = 0, 1
"""Where a pixel of a strongly changed crop is from: the crop itself, or its partner."""
_STREAM = 2
"""Of the random numbers; 0 and 1 are those of the labelled batches."""


class Unlabelled(NamedTuple):
    """A share of a batch of pictures without labels.

    Attributes:
        weak: float32 `(M, h, w, 3)`, 0 to 255: the crops, scaled and mirrored; the N of this share
            first, then those that are partners only.
        strong: float32 `(N, h, w, 3)`: the same crops in other colours, blurred, with a part of the
            partner's pasted in (CutMix).
        source: uint8 `(N, h, w)`: `OWN`, `PASTED`, or 255 beyond the picture.
        partner: int32 `(N,)`, where the partner is among the M.
    """

    weak: Any
    strong: Any
    source: Any
    partner: Any


def unlabelled_batches(
    dataset: Dataset,
    batch_size: int,
    crop: tuple[int, int],
    seed: int,
    first_step: int = 0,
    scale: tuple[float, float] = Augmentation.scale,
    shares: Shares = WHOLE,
) -> "tf.data.Dataset":
    """An endless stream of shuffled batches, from any step on; bit for bit the same each time.

    The pictures come epoch after epoch, each in its own order, without regard to where a batch
    ends: there may be fewer of them than a batch has places. The partner of a crop is the one
    before it in the batch, and that of the first is the last.

    Args:
        dataset: `kfcn.data.pictures.Pictures`, seen through whatever.
        batch_size: crops in a batch.
        crop: height and width; a smaller picture is padded.
        seed: of the order and of every change.
        first_step: step at which the stream starts.
        scale: range of the random scale.
        shares: the parts of each batch that are wanted here.

    Returns:
        tf.data.Dataset of `Unlabelled`, one element for each wanted share of each step.
    """
    import tensorflow as tf

    dataset = cached(dataset)
    weakly = Augmentation(scale, brightness=0.0, contrast=0.0, saturation=0.0)
    cv2.setNumThreads(0)

    def changed(number):
        image, labels, _ = dataset[picture_at(len(dataset), seed, number)]
        numbers = uniform(seed, number, _STREAM, 7 + COLOURS + BOX)
        weak, inside = augment(image, labels, numbers[:7], crop, weakly)
        strong = strongly_changed(weak, numbers[7 : 7 + COLOURS])
        strong[inside == IGNORE] = PAD
        return _Crop(weak, strong, inside, cutmix_box(crop, numbers[7 + COLOURS :]))

    def read(element):
        step, share = shares.place(int(element))
        step += first_step
        own = range(*shares.bounds(share, batch_size))
        before = [(place - 1) % batch_size for place in own]
        places = list(dict.fromkeys([*own, *before]))
        crops = [changed(step * batch_size + place) for place in places]
        partner = np.array([places.index(place) for place in before], np.int32)
        mixed = [
            pasted(crop.of(OWN), crops[other].of(PASTED), crop.box)
            for crop, other in zip(crops, partner.tolist(), strict=False)
        ]
        weak, _ = stack([(made.weak, made.inside) for made in crops])
        return weak, *stack(mixed), partner

    def batch(number):
        types = (tf.float32, tf.float32, tf.uint8, tf.int32)
        found = Unlabelled(*tf.numpy_function(read, [number], types))
        found.weak.set_shape((None, *crop, 3))
        found.strong.set_shape((None, *crop, 3))
        found.source.set_shape((None, *crop))
        found.partner.set_shape((None,))
        return found

    counter = tf.data.Dataset.counter()
    return counter.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def picture_at(count: int, seed: int, number: int) -> int:
    """Which of `count` pictures is the `number`-th of the stream."""
    epoch, place = divmod(number, count)
    return int(order(seed, epoch, count, _STREAM)[place])


def unlabelled_names(dataset: Dataset, batch_size: int, seed: int, step: int) -> list[str]:
    """The files of the batch of a step, in its order."""
    numbers = range(step * batch_size, (step + 1) * batch_size)
    return [dataset.file_name(picture_at(len(dataset), seed, number)) for number in numbers]


class _Crop(NamedTuple):
    """A crop before its partner's part is pasted in; `inside` is 255 beyond the picture, else 0."""

    weak: np.ndarray
    strong: np.ndarray
    inside: np.ndarray
    box: Box | None

    def of(self, source: int) -> tuple[np.ndarray, np.ndarray]:
        """The strongly changed crop, and `source` for each pixel, 255 beyond the picture."""
        return self.strong, np.where(self.inside == IGNORE, IGNORE, source).astype(np.uint8)
