import keras
import numpy as np
import pytest
from kfcn_tools.convert import fix_size as export
from shipping import SIZE, picture, settle, tiny_fcn, tiny_files, tiny_model

from kfcn import fcn2s, fcn8s, fcn8s_fpn
from kfcn.nets.upsample import upsample


def logits(model, image):
    return np.asarray(model(image[None].astype(np.float32), training=False))


def bilinear_layer(stride, channels, name="up"):
    x = keras.Input((5, 7, channels))
    model = keras.Model(x, upsample(x, stride, name))
    return model, model.get_layer(name)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_upsample_equals_the_transposed_convolution_to_the_border(stride):
    model, _ = bilinear_layer(stride, 3)
    x = np.random.default_rng(0).normal(size=(1, 5, 7, 3)).astype(np.float32)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(export.upsample(x, stride), expected, atol=2e-6)
    # Control: a bare resize repeats the edge, where the transposed convolution fades to zero.
    bare = np.asarray(export.upsample(x, stride, attenuate=False))
    half = stride // 2
    inner = np.s_[:, half:-half, half:-half]
    np.testing.assert_allclose(bare[inner], expected[inner], atol=2e-6)
    assert np.abs(bare - expected).max() > 0.1


def test_border_of_a_bare_resize_is_scaled_alike_for_all_channels():
    model, _ = bilinear_layer(8, 4)
    x = np.random.default_rng(1).normal(size=(1, 5, 7, 4)).astype(np.float32)
    ratio = np.asarray(model(x)) / np.asarray(export.upsample(x, 8, attenuate=False))
    # First row and column of stride 8: 0.5 + 0.5 / 8 each.
    np.testing.assert_allclose(ratio[0, 0, 0], 0.5625**2, rtol=1e-4)
    np.testing.assert_allclose(ratio[0, 0, 28], 0.5625, rtol=1e-4)
    np.testing.assert_allclose(np.ptp(ratio, axis=-1), 0, atol=2e-3)


@pytest.mark.parametrize("size", [(48, 64), (47, 61), (40, 72)])
def test_fix_size_keeps_the_logits(size):
    model, image = tiny_model(), picture(1, size)
    expected = logits(model, image)
    assert len(np.unique(expected.argmax(-1))) > 1
    exact = export.fix_size(model, *size, exact_logits=True)
    np.testing.assert_allclose(logits(exact, image), expected, atol=1e-4)
    fixed = export.fix_size(model, *size)
    assert np.array_equal(logits(fixed, image).argmax(-1), expected.argmax(-1))
    kinds = {type(operation).__name__ for operation in fixed.operations}
    assert not kinds & {"BatchNormalization", "Conv2DTranspose", "Take", "Cumsum"}


def test_fix_size_keeps_learned_upsampling_and_the_given_model():
    model = tiny_fcn(learn_middle=True)
    layer = model.get_layer("upscore2")
    layer.set_weights([layer.get_weights()[0] + 0.05])
    before = [w.copy() for w in model.get_weights()]
    image = picture(2)
    expected = logits(model, image)
    fixed = export.fix_size(model, *SIZE, exact_logits=True)
    np.testing.assert_allclose(logits(fixed, image), expected, atol=1e-4)
    assert "upscore2" in [layer.name for layer in fixed.layers]
    fixed.set_weights([w + 1 for w in fixed.get_weights()])
    for ours, theirs in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_many_classes_upsampled_in_groups_become_one_resize():
    model = tiny_fcn(classes=37)  # two groups of 16 and a rest of 5
    assert any(layer.name == "upscore8_rest" for layer in model.layers)
    size = (64, 96)  # divisible by 32: no stage comes out short and is filled up by joining rows
    image = picture(3, size)
    fixed = export.fix_size(model, *size)
    assert np.array_equal(logits(fixed, image).argmax(-1), logits(model, image).argmax(-1))
    kinds = [type(operation).__name__ for operation in fixed.operations]
    assert kinds.count("Resize") == 3
    assert not {"Split", "Concatenate"} & set(kinds)


@pytest.mark.slow
@pytest.mark.parametrize("net", [fcn8s, fcn2s, fcn8s_fpn])
def test_mobilenet_at_a_size_that_32_does_not_divide(net):
    keras.utils.set_random_seed(1)
    model = net(5, "mobilenet_v2", alpha=0.35, learn_middle=False)
    settle(model)
    size = (72, 104)
    image = picture(4, size)
    expected = logits(model, image)
    assert len(np.unique(expected.argmax(-1))) > 1
    fixed = export.fix_size(model, *size)
    differ = logits(fixed, image).argmax(-1) != expected.argmax(-1)
    second, first = np.moveaxis(np.partition(expected, -2, axis=-1)[..., -2:], -1, 0)
    # Another order of summation may decide a tie the other way, and nothing else.
    assert differ.mean() < 0.001 and (first - second)[differ].max(initial=0) < 1e-3


def test_float32_file_labels_as_keras_does():
    from kfcn_tools.convert.int8.sensitivity import agreement_of
    from kfcn_tools.convert.write_bundle import keras_labels

    images = [picture(seed) for seed in range(300, 304)]
    expected = [keras_labels(tiny_model(), image)[0] for image in images]
    assert agreement_of(tiny_files()["float32"][0], images, expected) == (1.0, 1.0)


def test_enlargements_that_are_joined_keep_their_borders():
    keras.utils.set_random_seed(3)
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, strides=4, padding="same", activation="relu")(image)
    few = upsample(keras.layers.Conv2D(3, 1)(x), 4, name="few")
    y = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    more = upsample(keras.layers.Conv2D(4, 1)(y), 8, name="more")
    model = keras.Model(image, keras.layers.Concatenate()([few, more]))
    given = picture(5, (64, 96))
    expected = logits(model, given)
    np.testing.assert_allclose(
        logits(export.fix_size(model, 64, 96), given), expected, atol=1e-4 * np.abs(expected).max()
    )


def adapted():
    """A Normalization that has seen pictures, which are neither around 0 nor of variance 1."""
    layer = keras.layers.Normalization()
    layer.adapt(np.stack([picture(seed) for seed in range(4)]).astype(np.float32))
    return layer


@pytest.mark.parametrize("nested", [False, True])
def test_a_normalization_keeps_what_it_was_adapted_to(nested):
    """It computes with constants that follow from its weights, and not when those are set."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = adapted()(image)
    if nested:
        x = keras.Model(image, x, name="inside")(image)
    model = keras.Model(image, keras.layers.Conv2D(5, 3, padding="same")(x))
    given = picture(9)
    expected = logits(model, given)
    fixed = export.fix_size(model, *SIZE)
    np.testing.assert_allclose(logits(fixed, given), expected, atol=1e-4)
    fresh = export.fix_size(model, *SIZE)
    fresh.set_weights([w * 0 + 1 for w in fresh.get_weights()])
    assert np.abs(logits(fresh, given) - expected).max() > 0.1
