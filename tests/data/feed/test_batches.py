"""Batches: exact repeats, exact resuming, and labels that stay with their pixels."""

import dataclasses

import numpy as np
import pytest

from kfcn.data import IGNORE, Classes, Dataset, Sample
from kfcn.data.feed import batches as P  # noqa: N812
from kfcn.data.feed import buckets
from kfcn.data.feed.batches import Augmentation, training_batches
from kfcn.data.feed.strong import BOX, COLOURS, cutmix_box, strongly_changed
from kfcn.data.feed.views import Memory
from kfcn.data.formats.images import ImageHead
from kfcn.errors import DataError, UsageError

PLAIN = Augmentation(scale=(1.0, 1.0), flip=False, brightness=0, contrast=0, saturation=0)
GEOMETRY = Augmentation(brightness=0, contrast=0, saturation=0)


class Painted(Dataset):
    """Random blocks; channel 0 is the label times 20, channel 1 the index, channel 2 grows right.

    Blocks of 8 pixels, so that most pixels keep a pure value when they are resized.
    """

    name = "painted"
    classes = Classes(tuple("abcdefg"), ((0, 0, 0),) * 7)

    def __init__(self, count=7, sizes=((48, 64),), broken=None):
        self.split = "train"
        self.count, self.sizes, self.broken = count, sizes, broken
        self.decoded = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.broken:
            raise DataError(f"train/{index}.png: cannot be read as an image (truncated)")
        self.decoded.append(index)
        h, w = self.sizes[index % len(self.sizes)]
        rng = np.random.default_rng(index)
        blocks = rng.integers(0, 7, (-(-h // 8), -(-w // 8)), np.uint8)
        labels = blocks.repeat(8, 0).repeat(8, 1)[:h, :w]
        image = np.stack(
            [labels * 20, np.full_like(labels, index), np.arange(w) + np.zeros((h, 1))], -1
        )
        return Sample(image.astype(np.uint8), labels, self.file_name(index))

    def file_name(self, index):
        return f"train/{index}.png"

    def head(self, index):
        return ImageHead(self.sizes[index % len(self.sizes)], 1, False)


def arrays(stream, count=None):
    stream = stream.take(count) if count else stream
    return [(images.numpy(), labels.numpy()) for images, labels in stream]


def same(a, b):
    return len(a) == len(b) and all(
        x.shape == u.shape and (x == u).all() and (y == v).all()
        for (x, y), (u, v) in zip(a, b, strict=True)
    )


def indices(images):
    return [int(image[..., 1].max()) for image in images]


@pytest.mark.parametrize("crop", [(40, 40), None])
def test_the_stream_from_step_k_equals_the_undisturbed_one(crop):
    dataset = Painted(7, sizes=((48, 64), (30, 70)))
    whole = arrays(training_batches(dataset, 2, crop, seed=3), 12)  # 4 steps an epoch
    for first in (1, 3, 4, 6, 11):
        part = training_batches(dataset, 2, crop, seed=3, first_step=first)
        assert same(arrays(part, 12 - first), whole[first:])
    assert not same(arrays(training_batches(dataset, 2, crop, seed=4), 12), whole)


def test_an_epoch_shows_every_picture_once_in_its_own_order():
    dataset = Painted(7)
    stream = arrays(training_batches(dataset, 2, (48, 64), 0, augmentation=PLAIN), 12)
    assert P.steps_per_epoch(dataset, 2) == 4
    assert [len(images) for images, _ in stream] == [1, 2, 2, 2] * 3  # none shorter by two
    epochs = [
        [i for images, _ in stream[e * 4 : e * 4 + 4] for i in indices(images)] for e in range(3)
    ]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_is_a_golden_one():
    """A change of NumPy's generators would break the resuming of runs: be told of it."""
    assert P.order(0, 0, 8).tolist() == GOLDEN_ORDER
    assert P.order(0, 1, 8).tolist() != GOLDEN_ORDER


GOLDEN_ORDER = [3, 6, 4, 0, 7, 5, 2, 1]


def test_the_change_of_a_picture_depends_on_epoch_and_index_and_not_on_the_batch():
    dataset = Painted(6)
    by_two = arrays(training_batches(dataset, 2, (32, 32), 0), 6)
    by_three = arrays(training_batches(dataset, 3, (32, 32), 0), 4)
    for a, b in zip(
        *(np.concatenate([images for images, _ in s]) for s in (by_two, by_three)), strict=True
    ):
        assert (a == b).all()
    first, second = np.split(np.concatenate([images for images, _ in by_two]), 2)
    order = [P.order(0, e, 6).tolist() for e in (0, 1)]
    for i in range(6):
        assert not (first[order[0].index(i)] == second[order[1].index(i)]).all()


def test_nothing_to_change_gives_the_picture_itself():
    dataset = Painted(3)
    for augmentation in (PLAIN, None):
        for crop in ((48, 64), None):
            stream = training_batches(dataset, 1, crop, 0, augmentation=augmentation)
            for images, labels in arrays(stream, 3):
                image, truth, _ = dataset[indices(images)[0]]
                assert images.dtype == np.float32 and labels.dtype == np.uint8
                assert (images[0] == image).all() and (labels[0] == truth).all()


def test_a_crop_is_a_part_of_the_picture():
    dataset = Painted(4)
    corners = set()
    for images, labels in arrays(training_batches(dataset, 1, (40, 24), 5, augmentation=None), 8):
        image, truth, _ = dataset[indices(images)[0]]
        left = int(images[0, 0, 0, 2])
        (top,) = {
            t
            for t in range(48 - 40 + 1)
            if (truth[t : t + 40, left : left + 24] == labels[0]).all()
        }
        assert (image[top : top + 40, left : left + 24] == images[0]).all()
        corners.add((top, left))
    assert len(corners) > 4


def test_a_smaller_picture_is_padded_with_255_and_grey():
    dataset = Painted(4, sizes=((20, 30),))
    for images, labels in arrays(training_batches(dataset, 1, (40, 50), 0, augmentation=PLAIN), 4):
        valid = labels[0] != IGNORE
        assert valid.sum() == 20 * 30  # the whole picture is in it
        assert (images[0][~valid] == P.PAD).all()
        rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
        part = images[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (part == dataset[int(part[0, 0, 1])].image).all()


@pytest.mark.parametrize("crop", [(40, 48), (80, 100), None])
def test_scale_crop_and_flip_move_labels_with_their_pixels(crop):
    """Nearly every valid pixel has the colour of its label; not so if the labels are shifted."""
    agree, shifted = [], []
    for images, labels in arrays(
        training_batches(Painted(8), 4, crop, 1, augmentation=GEOMETRY), 8
    ):
        valid = labels != IGNORE
        painted = np.abs(images[..., 0] - labels * 20.0) < 10
        agree.append(painted[valid].mean())
        wrong = np.abs(images[..., 0] - np.roll(labels, 3, 2) * 20.0) < 10
        shifted.append(wrong[valid].mean())
    assert np.mean(agree) > 0.88  # shrinking mixes the pixels at the edges of the blocks
    assert np.mean(shifted) < 0.75  # the control


def test_the_scale_covers_its_range_and_half_are_mirrored():
    """Channel 2 grows by one a pixel of the source: its slope tells the scale and the flip."""
    slopes = []
    for images, labels in arrays(
        training_batches(Painted(40), 8, (24, 24), 2, augmentation=GEOMETRY), 20
    ):
        for image, label in zip(images, labels, strict=True):
            row = image[12, :, 2][label[12] != IGNORE]
            slopes.append((row[-3] - row[2]) / (len(row) - 5))
    scales = 1 / np.abs(slopes)
    assert 0.72 < scales.min() < 0.85 and 1.6 < scales.max() < 1.82
    assert 0.35 < np.mean(np.array(slopes) < 0) < 0.65


def test_the_colour_change_by_value():
    """Brightness alone shifts all pixels alike; saturation alone keeps the grey of each."""
    dataset = Painted(4)

    def change(**strength):
        augmentation = dataclasses.replace(PLAIN, **strength)
        for images, _ in arrays(
            training_batches(dataset, 1, None, 0, augmentation=augmentation), 4
        ):
            source = min(
                (dataset[i].image.astype(np.float32) for i in range(4)),
                key=lambda image: np.abs(image - image.mean() - images[0] + images[0].mean()).sum(),
            )
            inside = (images[0] > 0) & (images[0] < 255) & (source > 0)
            yield source, images[0], inside

    for source, image, inside in change(brightness=0.2):
        shift = (image - source)[inside]
        assert np.ptp(shift) == 0 and 0 < abs(shift.mean()) <= 0.2 * 255
    for source, image, inside in change(saturation=0.5):
        whole = inside.all(-1)
        np.testing.assert_allclose(image.mean(-1)[whole], source.mean(-1)[whole], atol=0.51)
        assert np.abs(image - source).max() > 1
    for source, image, inside in change(contrast=0.5):
        mean = source.mean((0, 1))
        inside &= np.abs(source - mean) > 5
        ratio = np.median((image - mean)[inside] / (source - mean)[inside])
        expected = mean + ratio * (source - mean)
        # Rounded to 8 bits, and the ratio itself is known from rounded values.
        np.testing.assert_allclose(image[inside], expected[inside], atol=1.5)
        assert 0.5 <= ratio <= 1.5 and abs(ratio - 1) > 0.01


def test_values_stay_in_range_and_shapes_are_static():
    strong = Augmentation(brightness=1.0, contrast=1.0, saturation=1.0)
    stream = training_batches(Painted(4), 4, (32, 40), 0, augmentation=strong)
    assert stream.element_spec[0].shape.as_list() == [None, 32, 40, 3]
    assert stream.element_spec[1].shape.as_list() == [None, 32, 40]
    ((images, _),) = arrays(stream, 1)
    assert images.min() == 0 and images.max() <= 255


def test_whole_pictures_of_other_sizes_are_padded_at_the_bottom_and_right():
    dataset = Painted(4, sizes=((48, 64), (30, 70)))
    stream = training_batches(dataset, 4, None, 0, augmentation=PLAIN)
    ((images, labels),) = arrays(stream, 1)
    assert images.shape == (4, 48, 70, 3) and images.dtype == np.float32
    assert sorted(indices_of(labels, images)) == [0, 1, 2, 3]
    for found, marked, index in zip(images, labels, indices_of(labels, images), strict=True):
        image, truth, _ = dataset[index]
        h, w = truth.shape
        assert (found[:h, :w] == image).all() and (marked[:h, :w] == truth).all()
        assert (marked != IGNORE).sum() == h * w
        assert (found[h:] == P.PAD).all() and (found[:, w:] == P.PAD).all()


def test_decoded_samples_are_kept_when_they_fit():
    dataset = Painted(5)
    arrays(training_batches(dataset, 5, (16, 16), 0), 3)
    # Two threads may come to the same one at the same time.
    assert set(dataset.decoded) == {0, 1, 2, 3, 4} and len(dataset.decoded) < 15
    dataset = Painted(5)
    arrays(training_batches(dataset, 5, (16, 16), 0, cache=False), 3)
    assert len(dataset.decoded) >= 15
    dataset = Painted(5)
    size = 5 * 48 * 64 * 4
    assert P.cached(dataset, Memory(size)) is not dataset
    assert P.cached(dataset, Memory(size - 1)) is dataset
    kept = P.cached(dataset)
    assert P.cached(kept) is kept
    assert kept.file_name(2) == "train/2.png" and len(kept) == 5


def test_pictures_from_all_over_say_whether_they_fit():
    """A small first one said so of a thousand large ones."""
    sizes = [(8, 8), *[(80, 80)] * 99]
    dataset = Painted(100, sizes)
    whole = sum(4 * h * w for h, w in sizes)
    assert P.cached(dataset, Memory(whole // 2)) is dataset
    assert P.cached(dataset, Memory(whole)) is not dataset
    assert not dataset.decoded  # the heads of the files say it


def test_several_data_sets_share_one_memory():
    memory = Memory(6 * 48 * 64 * 4)
    kept = [P.cached(Painted(4), memory), P.cached(Painted(4), memory)]
    for _ in range(2):
        for dataset in kept:
            for index in range(4):
                dataset[index]
    assert [dataset._dataset.decoded for dataset in kept] == [[0, 1, 2, 3], [0, 1, 2, 3, 2, 3]]
    assert memory.left == 0


def test_a_file_that_fails_in_the_stream_is_named():
    import tensorflow as tf

    with pytest.raises(tf.errors.OpError, match=r"DataError: train/3\.png: cannot") as caught:
        arrays(training_batches(Painted(5, broken=3), 2, (16, 16), 0), 5)
    error = P.data_error(caught.value)
    assert isinstance(error, DataError)
    assert str(error) == "train/3.png: cannot be read as an image (truncated)"
    assert P.data_error(ValueError("something else")) is None


# Sizes as VOC has them: 500 on the long side, the other as the camera had it.
VOC_SIZES = np.array(
    [(375, 500)] * 55 + [(500, 375)] * 14 + [(333, 500)] * 15 + [(500, 333)] * 6
    + [(500, 500), (335, 500), (281, 500), (400, 500), (500, 281), (357, 500), (374, 500)]
    + [(332, 500)] * 3
)  # fmt: skip


def padding_share(order, sizes, lengths):
    """Share of the pixels of all batches that are padding, 0 to 1."""
    padded, start = 0, 0
    for length in lengths:
        batch = sizes[order[start : start + length]]
        padded += length * int(batch[:, 0].max()) * int(batch[:, 1].max())
        start += length
    return 1 - int((sizes[:, 0] * sizes[:, 1]).sum()) / padded


def test_buckets_keep_padding_below_a_fifth_where_chance_does_not():
    rng = np.random.default_rng(0)
    order = rng.permutation(len(VOC_SIZES))
    lengths = [8] * 12 + [4]
    found = buckets.arrange(order, VOC_SIZES, lengths, rng)
    assert sorted(found.tolist()) == list(range(100))
    assert padding_share(found, VOC_SIZES, lengths) < 0.1
    assert padding_share(order, VOC_SIZES, lengths) > 0.2  # the control
    again = buckets.arrange(rng.permutation(100), VOC_SIZES, lengths, rng)
    assert not (found == again).all()
    # By hand: two batches of 2x10 and 2x30 in place of 30x10 twice.
    sizes = np.array([(2, 10), (2, 30), (2, 10), (2, 30)])
    assert padding_share(np.array([0, 1, 2, 3]), sizes, [2, 2]) == pytest.approx(1 / 3)
    assert padding_share(np.array([0, 2, 1, 3]), sizes, [2, 2]) == 0


def test_whole_pictures_of_like_size_share_a_batch_and_a_scale():
    dataset = Painted(9, sizes=((48, 64), (30, 70), (64, 48)))
    augmentation = dataclasses.replace(GEOMETRY, scale=(0.5, 2.0))
    stream = arrays(training_batches(dataset, 3, None, 0, augmentation=augmentation), 6)
    heights = set()
    for images, labels in stream:
        assert len({dataset.size(i) for i in indices_of(labels, images)}) == 1
        assert (labels != IGNORE).all()  # of one size and scale: nothing is padded
        heights.add(images.shape[1])
    assert len(heights) > 3
    epochs = [[i for images, labels in stream[e : e + 3] for i in indices_of(labels, images)]
              for e in (0, 3)]  # fmt: skip
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)


def test_replicas_see_whole_pictures_as_one_device_does():
    """Each share is padded like the whole batch, whatever its own pictures measure."""
    dataset = Painted(11, sizes=((48, 64), (30, 70), (64, 48), (20, 21)))
    augmentation = dataclasses.replace(GEOMETRY, scale=(0.5, 2.0))

    def read(shares, count):
        stream = training_batches(dataset, 4, None, 0, 1, augmentation=augmentation, shares=shares)
        return arrays(stream, count)

    mixed = 0
    halves = read(P.Shares(2, 2, 0), 12)
    for step, (images, labels) in enumerate(read(P.Shares(), 6)):
        pair = halves[2 * step : 2 * step + 2]
        assert abs(len(pair[0][0]) - len(pair[1][0])) <= 1
        for k, whole in enumerate((images, labels)):
            np.testing.assert_array_equal(np.concatenate([share[k] for share in pair]), whole)
        lowest = [np.flatnonzero((share[1] != IGNORE).any((0, 2))).max() for share in pair]
        mixed += lowest[0] != lowest[1]
    assert mixed  # the control: some shares alone would have been padded to less
    (second,) = read(P.Shares(2, 1, 1), 1)  # of another worker
    np.testing.assert_array_equal(second[0], halves[1][0])


STRONG = Augmentation(strong=True)


def test_strong_crops_are_the_usual_ones_in_other_colours_with_a_part_of_the_one_before():
    """Worked out again from the random numbers, for three epochs of batches of 2, 2 and 3."""
    dataset, crop = Painted(7), (32, 40)
    usual = arrays(training_batches(dataset, 3, crop, 5), 9)
    pasted = 0
    for step, (images, labels) in enumerate(
        arrays(training_batches(dataset, 3, crop, 5, augmentation=STRONG), 9)
    ):
        epoch, begin, size = P._batch_place(7, 3, step)
        numbers = [
            P.uniform(5, epoch * 7 + index, 3, COLOURS + BOX)
            for index in P.order(5, epoch, 7)[begin : begin + size].tolist()
        ]
        crops = [
            strongly_changed(image.astype(np.uint8), n[:COLOURS])
            for image, n in zip(usual[step][0], numbers, strict=True)
        ]
        for place, n in enumerate(numbers):
            box, image, truth = cutmix_box(crop, n[COLOURS:]), crops[place], usual[step][1][place]
            if box:
                image, truth = image.copy(), truth.copy()
                image[box], truth[box] = crops[place - 1][box], usual[step][1][place - 1][box]
                pasted += (truth != usual[step][1][place]).any()
            np.testing.assert_array_equal(images[place], image)
            np.testing.assert_array_equal(labels[place], truth)
    assert 7 <= pasted <= 14  # of 21, one half by chance


@pytest.mark.parametrize("total", [2, 3])
def test_shares_of_strong_crops_are_those_of_the_whole_batch(total):
    """The first crop of a share has a part of the last of the share before."""
    dataset = Painted(7)

    def read(shares, count):
        stream = training_batches(dataset, 3, (32, 40), 0, 2, STRONG, shares=shares)
        return arrays(stream, count)

    if total == 3:  # the epoch's batches of 2 cannot be divided by 3
        dataset = Painted(6)
    whole, shares = read(P.Shares(), 4), [read(P.Shares(total, 1, k), 4) for k in range(total)]
    for step, pair in enumerate(whole):
        for k in (0, 1):
            parts = np.concatenate([share[step][k] for share in shares])
            np.testing.assert_array_equal(parts, pair[k])


def test_strong_changes_of_whole_pictures_are_refused():
    with pytest.raises(UsageError, match="strong augmentation needs crops of one size"):
        training_batches(Painted(7), 2, None, 0, augmentation=STRONG)


def indices_of(labels, images):
    """Channel 1 holds the picture's number, wherever there is no padding."""
    return [
        round(float(np.median(i[..., 1][m != IGNORE]))) for i, m in zip(images, labels, strict=True)
    ]
