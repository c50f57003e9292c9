import math

import keras
import numpy as np
import pytest
from keras import layers
from rewrite_nets import assert_untouched, images, snapshot

import kfcn
from kfcn.errors import KfcnError
from kfcn.rewrite import ReceptiveField
from kfcn.rewrite.field import reach


def measured(model, cell, size, runs=1):
    """The input rows and columns whose gradient at a cell is not zero: `(first, last)` each."""
    import tensorflow as tf

    @tf.function  # a graph leaves out the gradients of the weights, which nobody asked for
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(model(x)[:, cell[0], cell[1]])
        return tape.gradient(y, x)

    seen = 0
    for seed in range(runs):  # through max pooling one run sees only the largest of each window
        x = tf.constant(np.abs(images(1, *size, model.input_shape[-1], seed=seed)))
        seen = seen + np.abs(gradient(x)[0]).sum(axis=-1)
    rows, columns = np.flatnonzero(seen.sum(axis=1)), np.flatnonzero(seen.sum(axis=0))
    return (rows[0], rows[-1]), (columns[0], columns[-1])


def positive(model):
    """Positive weights: no path cancels another, no ReLU closes."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.uniform(0.1, 1.0, weight.shape))
    return model


def chain(*body):
    x = inputs = keras.Input((None, None, 2))
    for layer in body:
        x = layer(x)
    return positive(keras.Model(inputs, x))


def conv(kernel=3, **arguments):
    return layers.Conv2D(2, kernel, **{"padding": "same", **arguments})


def residual():
    x = inputs = keras.Input((None, None, 2))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.MaxPooling2D(3, 2)(x)
    short = conv(1, strides=2)(x)
    long = conv(3)(conv(1, strides=2)(x))
    return positive(keras.Model(inputs, layers.Add()([short, long])))


def nested():
    block = keras.Sequential([keras.Input((None, None, 2)), conv(3, strides=2), conv(5)])
    return chain(block, layers.AveragePooling2D(2), conv(3))


PLAIN = {
    "valid convolution and max pooling": (
        lambda: chain(conv(3, padding="valid"), layers.MaxPooling2D(3, 2), conv(3)),
        # 1 + 2, + 2, + 2 * 2 = 9; the pool's cell 0 covers pixels 0..4, centre 2
        (9, 2, 2),
    ),
    "strided same convolutions": (
        lambda: chain(conv(3, strides=2), conv(3, strides=2), conv(3)),
        # padded (0, 1) each: centres at 1, then 1 + 2 * 1; size 3 + 2 * 2 + 4 * 2
        (15, 4, 3),
    ),
    "kernel 4, stride 2": (lambda: chain(conv(4, strides=2)), (4, 2, 0.5)),
    "dilation": (lambda: chain(conv(3, dilation_rate=2), conv(3, dilation_rate=4)), (13, 1, 0)),
    "depthwise and separable": (
        lambda: chain(
            layers.DepthwiseConv2D(3, padding="same"),
            layers.SeparableConv2D(2, 5, strides=2, padding="same"),
        ),
        # the 5x5 at stride 2 is padded (1, 2): its cell 0 covers -1..3
        (7, 2, 1),
    ),
    "residual branches padded on both sides": (residual, (11, 4, 0)),
    "nested model": (nested, (3 + 8 + 2 + 8, 4, 2)),
    "padding and cropping": (
        lambda: chain(layers.ZeroPadding2D(((3, 0), (3, 0))), conv(3), layers.Cropping2D(1)),
        (3, 1, -2),
    ),
    "dilated pooling": (
        lambda: chain(kfcn.DilatedPooling2D((3, 3), (2, 2), pads=((1, 3), (1, 3)))),
        (5, 1, 1),
    ),
    "slices": (lambda: chain(conv(3, strides=2), lambda x: x[:, 2:, 2:]), (3, 2, 5)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_calculation_by_hand_and_by_gradient(name):
    build, expected = PLAIN[name]
    model = build()
    before = snapshot(model)
    field = kfcn.receptive_field(model)
    assert_untouched(model, before)
    assert field == expected
    for cell in ((10, 11), (11, 10)):
        spans = measured(model, cell, (64, 64), runs=40)
        for index, (first, last) in zip(cell, spans, strict=True):
            assert last - first + 1 == field.size
            assert (first + last) / 2 == field.stride * index + field.offset


UPSAMPLED = {
    "bilinear kernel, same": lambda: chain(
        layers.AveragePooling2D(4), conv(3), layers.Conv2DTranspose(2, 8, 4, padding="same")
    ),
    "odd kernel, valid, cropped": lambda: chain(
        conv(3, strides=2),
        layers.Conv2DTranspose(2, 3, 2, padding="valid"),
        layers.Cropping2D(((1, 0), (1, 0))),
    ),
    "nearest": lambda: chain(layers.AveragePooling2D(4), layers.UpSampling2D(4), conv(3)),
    "bilinear": lambda: chain(conv(3, strides=2), layers.UpSampling2D(2, interpolation="bilinear")),
    "strided after upsampling": lambda: chain(
        layers.AveragePooling2D(2), layers.UpSampling2D(3), conv(3, strides=2)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UPSAMPLED)
def test_behind_upsampling_sizes_are_the_largest_and_offsets_the_mean(name):
    model = UPSAMPLED[name]()
    field = kfcn.receptive_field(model)
    size = (48, 48)
    cells = range(12, 24)  # whole periods of 2, 3 and 4, away from the border
    spans = [measured(model, (cell, 12), size)[0] for cell in cells]
    assert max(last - first + 1 for first, last in spans) == field.size
    centres = [
        (first + last) / 2 - field.stride * cell
        for cell, (first, last) in zip(cells, spans, strict=True)
    ]
    assert np.mean(centres) == pytest.approx(field.offset, abs=1e-6)


def test_a_skip_net_aligned_to_its_input():
    """FCN-16s in small: the fields of both branches are joined, the output lies on the pixels."""
    x = inputs = keras.Input((None, None, 2))
    x8 = layers.AveragePooling2D(8)(conv(3)(x))
    x16 = conv(3)(layers.AveragePooling2D(2)(x8))
    up2 = layers.Conv2DTranspose(2, 4, 2, padding="same")(x16)
    fused = layers.Add()([up2, conv(1)(x8)])
    model = keras.Model(inputs, layers.Conv2DTranspose(2, 16, 8, padding="same")(fused))
    field = kfcn.receptive_field(positive(model))
    spans = [measured(model, (cell, 64), (128, 128))[0] for cell in range(48, 64)]
    assert max(last - first + 1 for first, last in spans) == field.size
    assert (field.stride, field.offset) == (1, 0)


def test_many_classes_upsampled_in_groups_have_the_field_of_few():
    few, many = (kfcn.fcn8s(classes, "mobilenet_v2", alpha=0.35) for classes in (3, 81))
    assert any(layer.name == "upscore8_rest" for layer in many.layers)
    assert kfcn.receptive_field(many) == kfcn.receptive_field(few)


def test_the_grid_depends_on_the_size_where_padding_does():
    inputs = keras.Input((33, 33, 2))
    model = keras.Model(inputs, conv(3, strides=2)(inputs))
    assert kfcn.receptive_field(model).offset == 0  # odd: padded (1, 1)
    model = chain(conv(3, strides=2))
    assert kfcn.receptive_field(model).offset == 1  # even: padded (0, 1)
    assert kfcn.receptive_field(model, size=(32, 33)).offset == (1, 0)


def test_axes_that_differ():
    assert kfcn.receptive_field(chain(conv((1, 7)), conv((5, 1)))) == ((5, 7), 1, 0)


# Offsets measured by gradient on these nets: s - 1, 0 and (s - 1) / 2.
@pytest.mark.parametrize(
    ("name", "taps", "offsets"),
    [
        (
            "MobileNetV2",
            ["block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "out_relu"],
            [3, 7, 15, 31],
        ),
        ("ResNet50", ["conv3_block4_out", "conv4_block6_out", "conv5_block3_out"], [0, 0, 0]),
        ("VGG16", ["block3_pool", "block4_pool", "block5_pool"], [3.5, 7.5, 15.5]),
        pytest.param(
            "EfficientNetV2B0",
            ["block3b_add", "block5e_add", "top_activation"],
            [7, 15, 31],
            marks=pytest.mark.long,
        ),
    ],
)
def test_taps_of_the_backbones(name, taps, offsets):
    body = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(None, None, 3)
    )
    model = keras.Model(body.input, [body.get_layer(tap).output for tap in taps])
    fields = kfcn.receptive_field(model)
    strides = [4, 8, 16, 32] if len(taps) == 4 else [8, 16, 32]
    assert [field.stride for field in fields] == strides
    assert [field.offset for field in fields] == offsets
    if name == "VGG16":  # the field of pool5 is a number of the literature
        assert fields[-1] == ReceptiveField(212, 32, 15.5)
    if name == "EfficientNetV2B0":  # its squeeze-and-excite blocks start behind block3b
        assert [math.isinf(field.size) for field in fields] == [False, True, True]


def test_removing_strides_changes_the_stride_alone():
    model = chain(conv(3, strides=2), layers.MaxPooling2D(2), conv(3), conv(3, strides=2))
    coarse = kfcn.receptive_field(model)
    for stride in (1, 2, 4, 8):
        dense = kfcn.receptive_field(kfcn.to_atrous(model, stride))
        assert dense == (coarse.size, stride, coarse.offset)


def test_a_classifier_has_no_grid():
    x = inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D(name="gap")(x), name="classifier")
    with pytest.raises(KfcnError, match="'classifier' sees the whole image"):
        kfcn.receptive_field(model)


def test_what_cannot_be_followed_is_named():
    class Odd(layers.Layer):
        def call(self, x):
            return x[:, ::2]

    with pytest.raises(KfcnError, match="'odd' \\(Odd\\)"):
        kfcn.receptive_field(chain(Odd(name="odd")))

    inputs = keras.Input((None, None, 2))
    pair = [conv(3, strides=2)(inputs), conv(3)(inputs)]
    with pytest.raises(KfcnError, match="'join'"):
        kfcn.receptive_field(keras.Model(inputs, layers.Concatenate(name="join")(pair)))


def test_a_layer_that_fails_without_a_word_is_named():
    class Silent(layers.Layer):
        ready = False

        def compute_output_spec(self, x):
            if self.ready:
                raise NotImplementedError
            return keras.KerasTensor(x.shape, dtype=x.dtype)

    image = keras.Input((None, None, 3))
    layer = Silent(name="silent")
    model = keras.Model(image, layer(image))
    layer.ready = True
    with pytest.raises(KfcnError, match=r"'silent' \(Silent\) does not take .*NotImplementedError"):
        kfcn.receptive_field(model)


def test_a_compiled_model_is_read_without_its_loss():
    class Private(keras.losses.Loss):  # nobody can load it
        def call(self, y, p):
            return p

    image = keras.Input((None, None, 3))
    net = keras.Model(image, layers.Conv2D(2, 5)(image))
    net.compile("sgd", Private())
    assert kfcn.receptive_field(net).size == 5


@pytest.mark.parametrize("shape", [(40, 40), (41, 43)])
def test_reach_is_the_furthest_pixel_that_changes_a_cell(shape):
    # Padding 'valid': cell i sees i..i+3, half of whose size is 2.
    assert reach(chain(conv(4, padding="valid"))) == 3
    # Strided 'same' looks ahead, and a transposed convolution gives cells of one period different
    # fields: measured at each cell of a period in the middle.
    model = chain(conv(3, strides=2), conv(3, strides=2), layers.Conv2DTranspose(2, 8, 4, "same"))
    rows = [measured(model, (i, i), shape)[0] for i in range(16, 20)]
    furthest = max(max(i - low, high - i) for i, (low, high) in enumerate(rows, start=16))
    if shape == (40, 40):
        assert furthest == reach(model)
    assert furthest <= reach(model)
    sizes = [high - low + 1 for low, high in rows]
    assert reach(model) > max(sizes) // 2  # the control: half of the largest field is too little
    assert reach(chain(conv(3), layers.GroupNormalization(1))) == math.inf


def test_slices_of_channels_move_no_pixel():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3)(image)
    gated = layers.Multiply()([x[..., :4], x[..., 4:]])
    found = kfcn.receptive_field(keras.Model(image, layers.Conv2D(2, 3)(gated)))
    assert found == (5, 1, 2)
    # The control: a slice of rows does.
    moved = kfcn.receptive_field(keras.Model(image, layers.Conv2D(2, 3)(x[:, 4:, :, :])))
    assert moved == (5, 1, (6, 2))


def test_what_only_training_does_is_looked_through():
    """Tutorials put the changes of training pictures into the net."""
    image = keras.Input((None, None, 3))
    x = layers.RandomFlip()(image)
    for layer in (layers.RandomRotation, layers.RandomZoom, layers.RandomContrast):
        x = layer(0.1)(x)
    model = keras.Model(image, layers.Conv2D(2, 3, strides=2)(x))
    assert kfcn.receptive_field(model) == (3, 2, 1)
    with pytest.raises(KfcnError, match="cannot be followed through"):
        kfcn.receptive_field(keras.Model(image, layers.CenterCrop(8, 8)(image)))
