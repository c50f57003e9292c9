import gc
import weakref

import keras
import numpy as np
import pytest
from small_nets import TINY, fit_statistics, randomize

from kfcn.crf import add_crf
from kfcn.inference import tiling
from kfcn.inference.runtime.net import KerasNet, quickest
from kfcn.inference.segment import segment
from kfcn.nets.fcn import fcn8s


@pytest.fixture(scope="module")
def net():
    return randomize(fit_statistics(fcn8s(5, **TINY)))


def picture(height, width):
    """Noise at two scales, so that labels change everywhere."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (-(-height // 24), -(-width // 24), 3))
    noise = rng.normal(0, 20, (height, width, 3))
    return (coarse.repeat(24, 0).repeat(24, 1)[:height, :width] + noise).clip(0, 255).astype("u1")


def test_tiles_cover_each_pixel_once_and_begin_where_cells_do():
    counts = np.zeros((700, 450), int)
    for tile in tiling.tiles(700, 450, side=512, margin=128):
        counts[tile.target] += 1
        for window, inside, target in zip(*tile, strict=True):
            assert window.start % tiling.ALIGNMENT == 0 and window.stop - window.start <= 512
            assert (window.stop - window.start) % tiling.ALIGNMENT in (700 % 64, 450 % 64)
            assert (window.start + inside.start, window.start + inside.stop) == (
                target.start,
                target.stop,
            )
    assert (counts == 1).all()


@pytest.mark.slow
def test_tiles_give_the_labels_of_one_piece(net, monkeypatch):
    image = picture(750, 717)  # even, and odd: a strided 'same' layer treats them differently
    whole = segment(net, image)
    assert len(np.unique(whole)) > 2
    monkeypatch.setattr(tiling, "LARGE", 1000)
    calls = []
    labels = KerasNet.labels
    monkeypatch.setattr(KerasNet, "labels", lambda s, x: calls.append(x.shape) or labels(s, x))
    tiled = tiling.segment_tiled(KerasNet(net), image, side=64)
    assert len(calls) == 9 and calls[0] == (1, 640 + 750 % 64, 640 + 717 % 64, 3)
    np.testing.assert_array_equal(tiled, whole)
    np.testing.assert_array_equal(segment(net, image), whole)
    quick = quickest(net)
    assert quick.name == "litert" and quick.margin == tiling.margin(net)
    assert (segment(quick, image) != whole).mean() < 1e-4  # ties within rounding
    # Control: without a margin the seams show.
    monkeypatch.setattr(tiling, "margin", lambda model: 0)
    assert (tiling.segment_tiled(KerasNet(net), image, side=256) != whole).mean() > 0.001


def test_a_net_that_sees_the_whole_image_is_not_tiled(net, monkeypatch):
    model = add_crf(net, test_iterations=1)
    assert tiling.margin(model) is None
    monkeypatch.setattr(tiling, "LARGE", 1000)
    assert segment(model, picture(40, 50)).shape == (40, 50)
    with pytest.raises(ValueError, match="looks at the whole image"):
        tiling.segment_tiled(KerasNet(model), picture(40, 50))


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
