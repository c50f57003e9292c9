"""The range in which classes compete."""

import dataclasses

import keras
import numpy as np
import pytest
from kfcn_tools.convert.int8 import quantize, ranges, scores
from kfcn_tools.convert.int8.observe import observe
from kfcn_tools.convert.tflite import export_tflite
from shipping import computed, picture, tiny_files, tiny_scores

SIZE = (12, 15)
IMAGES = [picture(seed, SIZE) for seed in range(6)]


@pytest.fixture(scope="module")
def summed():
    """A file whose label is that of the sum of three convolutions, at one resolution."""
    image = keras.Input(batch_shape=(1, *SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    gains = {"first": 9.0, "second": 3.0, "third": 1.0}
    parts = [keras.layers.Conv2D(6, 1, name=name)(x) for name in gains]
    sums = keras.layers.Add(name="two")(parts[:2])
    model = keras.Model(image, keras.layers.Add(name="three")([sums, parts[2]]))
    rng = np.random.default_rng(0)
    for name, gain in gains.items():
        model.get_layer(name).set_weights([gain * rng.normal(size=(1, 1, 3, 6)), np.zeros(6)])
    return export_tflite(model)


def named(names, layer):
    (name,) = [name for name in names if f"/{layer}_1/" in name.split(";")[0]]
    return name


def narrowed(content, images):
    found, competing = ranges.TensorRanges(content), scores.CompetingScores(content)
    observe(content, images, found, competing)
    return found.ranges(), competing.narrowed(found.ranges())


def behind(sums, labels):
    """How far the class of a label lies behind the largest sum at most: 0 where it is that."""
    own = np.take_along_axis(sums, labels[..., None], -1)[..., 0]
    return (sums.max(-1) - own).max()


def test_clipped_scores_give_the_same_labels(summed):
    wide, narrow = narrowed(summed, IMAGES)
    first, second, third, two, three = (
        named(wide, layer) for layer in ("first", "second", "third", "two", "three")
    )
    assert {name for name in wide if wide[name] != narrow[name]} >= {two, three}
    tighter = 0.0
    for image in IMAGES:
        values = computed(summed, image)
        labels = values[three].argmax(-1)
        # Each clipped where it stands, what is added later as it is.
        later = {
            first: values[second] + values[third],
            two: values[third],
            three: 0.0,
        }
        for name, added in later.items():
            assert behind(np.clip(values[name], *narrow[name]) + added, labels) < 1e-5
        # Without room for what is added later labels change.
        clipped = np.clip(values[two], *narrow[three])
        tighter = max(tighter, behind(clipped + values[third], labels))
    assert tighter > 0.1


def test_ranges_by_hand(summed):
    _, narrow = narrowed(summed, IMAGES)
    third, two, three = (named(narrow, layer) for layer in ("third", "two", "three"))
    values = [computed(summed, image) for image in IMAGES]
    spread = max(np.ptp(v[third], axis=-1).max() for v in values)
    for name, room in ((three, 0.0), (two, spread)):
        ordered = [np.sort(v[name], axis=-1) for v in values]
        low = min(v[..., -1].min() for v in ordered) - room
        high = max(v[..., -2].max() for v in ordered) + room
        seen = min(v[..., 0].min() for v in ordered), max(v[..., -1].max() for v in ordered)
        expected = max(seen[0], min(0.0, low)), min(seen[1], max(0.0, high))
        assert narrow[name] == pytest.approx(expected, rel=1e-5)


def test_the_sums_of_a_skip_net():
    content = tiny_files()["float32"][0]
    found = {name.split("/")[1] for name in scores.summing(content)}
    assert {"fuse_pool4_1", "fuse_pool3_1"} <= found
    assert not any(name.startswith(("score", "block")) for name in found)
    competing = scores.CompetingScores(content)
    names = [name for each in competing.scores for name in each.tensors]
    assert named(names, "fuse_pool3")
    assert not any("block" in name for name in names)


def test_a_tensor_that_is_cut_out_has_the_range_of_what_it_is_cut_out_of():
    content = tiny_files()["float32"][0]
    images = [picture(seed) for seed in range(6)]
    wide, narrow = narrowed(content, images)
    changed = {name for name in wide if wide[name] != narrow[name]}
    last = named(wide, "fuse_pool3")
    assert last in changed
    (shaped,) = [each.tensors for each in scores.scores(content) if each.tensors[-1] == last]
    assert len(shaped) > 1
    assert {narrow[name] for name in shaped} == {narrow[last]}


def test_the_widening_is_the_one_that_labels_best(monkeypatch):
    """Where narrow ranges help they are taken, and not where borders would move."""
    content = tiny_files()["float32"][0]
    images = [picture(seed) for seed in range(6)]
    found, competing = ranges.TensorRanges(content), scores.CompetingScores(content)
    observe(content, images, found, competing)
    source = quantize.Quantizable(content, found.ranges(), {})
    (shaped,) = [s.tensors for s in competing.scores if "/fuse_pool3_1/" in s.tensors[-1]]
    last = shaped[-1]
    # Too narrow for anything: it is left alone.
    monkeypatch.setattr(scores, "WIDENINGS", (1e-3, np.inf))
    assert scores.with_competing_scores(source, competing, images) == source
    # A range a hundred times as wide as the values: what is narrower is better.
    wide = source.ranges | dict.fromkeys(shaped, (-1e3, 1e3))
    monkeypatch.setattr(scores, "WIDENINGS", (np.inf, 1.0))
    monkeypatch.setattr(scores, "SMALLEST", 0.0)
    chosen = scores.with_competing_scores(
        dataclasses.replace(source, ranges=wide), competing, images
    )
    assert chosen.ranges[last] == competing.narrowed(wide)[last] != wide[last]


def test_a_range_of_nothing_is_left_alone():
    """One class above zero and the others below it everywhere: no class competes."""
    image = keras.Input(batch_shape=(1, *SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    conv = keras.layers.Conv2D(3, 1, name="score")
    model = keras.Model(image, conv(x))
    kernel = 0.1 * np.random.default_rng(0).normal(size=(1, 1, 3, 3))
    conv.set_weights([kernel, np.array([5.0, -5.0, -5.0])])
    content = export_tflite(model)
    wide, narrow = narrowed(content, IMAGES)
    assert scores.CompetingScores(content).scores
    assert narrow == wide


def test_scores_behind_a_transposed_convolution_do_not_decide():
    image = keras.Input(batch_shape=(1, *SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    parts = [keras.layers.Conv2D(3, 1, name=name)(x) for name in ("first", "second")]
    sums = keras.layers.Add(name="two")(parts)
    upscore = keras.layers.Conv2DTranspose(3, 4, 2, padding="same", name="upscore")
    content = export_tflite(keras.Model(image, upscore(sums)))
    found = {each.kind: each for each in scores.scores(content)}
    assert {kind for kind, each in found.items() if each.decides} == {"TRANSPOSE_CONV"}
    assert {*scores.summing(content)} == {
        name for kind in ("TRANSPOSE_CONV", "ADD") for name in found[kind].tensors
    }


def test_scores_that_leave_the_file_keep_their_ranges():
    content = tiny_scores()["float32"][0]
    assert scores.summing(content) == []
    wide, narrow = narrowed(content, [picture(seed) for seed in range(2)])
    assert wide == narrow
