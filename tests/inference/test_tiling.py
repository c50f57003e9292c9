import gc
import weakref

import keras
import numpy as np
import pytest
from small_nets import TINY, fit_statistics, randomize

from kfcn.crf import add_crf
from kfcn.errors import KfcnError
from kfcn.inference import tiling
from kfcn.inference.runtime.net import KerasNet, quickest
from kfcn.inference.segment import image_logits, segment
from kfcn.nets.fcn import fcn8s


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    return randomize(fit_statistics(fcn8s(5, **TINY)))


def picture(height, width):
    """Noise at two scales, so that labels change everywhere."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (-(-height // 24), -(-width // 24), 3))
    noise = rng.normal(0, 20, (height, width, 3))
    return (coarse.repeat(24, 0).repeat(24, 1)[:height, :width] + noise).clip(0, 255).astype("u1")


def shape(tile):
    return tuple(part.stop - part.start for part in tile.window)


@pytest.mark.parametrize("margin", (0, 128, 704))
def test_tiles_cover_each_pixel_once_and_begin_where_cells_do(margin):
    counts = np.zeros((1700, 2450), int)
    tiles = tiling.tiles(1700, 2450, most=1_000_000, margin=margin)
    assert len(tiles) > 1
    for tile in tiles:
        counts[tile.target] += 1
        for window, inside, target, length in zip(*tile, (1700, 2450), strict=True):
            assert window.start % tiling.ALIGNMENT == 0
            assert (window.stop - window.start) % tiling.ALIGNMENT == length % tiling.ALIGNMENT
            start, stop = window.start + inside.start, window.start + inside.stop
            assert (start, stop) == (target.start, target.stop)
            assert start == 0 or inside.start >= margin
            assert stop == length or window.stop - stop >= margin
    assert (counts == 1).all()


@pytest.mark.parametrize(
    ("size", "margin", "times"),
    (
        ((3000, 4000), 128, 1.07),
        ((3000, 4000), 576, 1.30),
        ((3000, 4000), 704, 1.72),  # 5.2 in windows of 2112 each way
        ((8661, 11548), 704, 3.10),  # and 7.4
        ((30000, 400), 704, 1.05),
    ),
)
def test_a_window_has_the_pixels_of_one_piece_and_few_are_computed_twice(size, margin, times):
    areas = [np.prod(shape(tile)) for tile in tiling.tiles(*size, tiling.LARGE, margin)]
    assert max(areas) <= tiling.LARGE
    assert sum(areas) / np.prod(size) == pytest.approx(times, abs=0.01)


def test_windows_of_a_net_that_looks_far_are_no_larger_than_three_margins():
    """Smaller ones would be margin almost alone; `LARGE` is exceeded then."""
    tiles = tiling.tiles(9000, 9000, tiling.LARGE, 1472)
    assert max(max(shape(tile)) for tile in tiles) <= 3 * 1472 + 63
    assert sum(np.prod(shape(tile)) for tile in tiles) < 9 * 9000 * 9000


@pytest.mark.slow
def test_tiles_give_the_labels_and_logits_of_one_piece(net, monkeypatch):
    image = picture(1070, 1037)  # even, and odd: a strided 'same' layer treats them differently
    whole, logits = segment(net, image), image_logits(net, image)
    assert len(np.unique(whole)) > 2
    monkeypatch.setattr(tiling, "LARGE", 1000)
    calls = []
    compute = KerasNet.logits
    monkeypatch.setattr(KerasNet, "logits", lambda s, x: calls.append(x.shape) or compute(s, x))
    np.testing.assert_array_equal(segment(net, image), whole)
    assert len(calls) == 4 and (1, 1070, 1037, 3) not in calls
    found = image_logits(net, image)
    assert found.dtype == np.float32 and len(calls) == 8
    np.testing.assert_allclose(found, logits, atol=1e-4 * np.abs(logits).max())
    quick = quickest(net)
    assert quick.name == "litert" and quick.margin == tiling.margin(net)
    assert (segment(quick, image) != whole).mean() < 1e-4  # ties within rounding
    # Control: without a margin the seams show.
    monkeypatch.setattr(tiling, "margin", lambda model: 0)
    assert (segment(net, image) != whole).mean() > 0.001


def test_a_net_that_sees_the_whole_image_is_not_tiled(net, monkeypatch):
    model = add_crf(net, test_iterations=1)
    assert tiling.margin(model) is None
    monkeypatch.setattr(tiling, "LARGE", 1000)
    monkeypatch.setattr(tiling, "in_tiles", None)
    assert segment(model, picture(40, 50)).shape == (40, 50)


def test_a_map_of_another_size_is_refused_in_tiles_too(monkeypatch):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 1, strides=2)(image))
    monkeypatch.setattr(tiling, "LARGE", 1000)
    with pytest.raises(KfcnError, match="a map of 32x25 for a picture of 64x50; expected one of"):
        segment(model, picture(64, 50))


def test_a_net_whose_margin_was_asked_for_does_not_stay_in_the_memory(monkeypatch):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 129)(image))
    assert tiling.margin(model) == 128
    monkeypatch.setattr("kfcn.rewrite.field.reach", None)  # it is not asked for again
    assert tiling.margin(model) == 128
    alive = weakref.ref(model)
    del model, image
    gc.collect()
    assert alive() is None
