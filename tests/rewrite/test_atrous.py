import itertools

import keras
import numpy as np
import pytest
from keras import layers
from rewrite_nets import animate, assert_untouched, images, run, snapshot, tflite_operators
from small_nets import StandardizedConv2D

import kfcn
from kfcn.errors import KfcnError, UsageError

DOWNSAMPLINGS = {
    "max 2/2": lambda: layers.MaxPooling2D(2),
    "max 3/2": lambda: layers.MaxPooling2D(3, 2),
    "average 2/2": lambda: layers.AveragePooling2D(2),
    "strided conv": lambda: layers.Conv2D(6, 3, strides=2, activation="relu"),
    "strided depthwise": lambda: layers.DepthwiseConv2D(3, strides=2),
    "strided separable": lambda: layers.SeparableConv2D(6, 3, strides=2),
}


def pyramid(down, factor, padding="valid", kernel=3, size=(None, None), down_padding=None):
    """3x3 convolutions and a stride of 2 for each halving, with batch normalisation."""
    x = inputs = keras.Input((*size, 2))
    for level in range(factor.bit_length() - 1):
        x = layers.Conv2D(6, kernel, padding=padding, use_bias=False, name=f"conv{level}")(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        layer = DOWNSAMPLINGS[down]()
        if hasattr(layer, "padding"):
            layer.padding = down_padding or padding
        x = layer(x)
    x = layers.Conv2D(4, kernel, padding=padding, name="last")(x)
    return animate(keras.Model(inputs, x), [length or 64 for length in size])


def cropped_runs(model, x, factor):
    """What the coarse net says of every shift of the image, by cropping: nothing is padded."""
    phases = {}
    for down, right in itertools.product(range(factor), repeat=2):
        phases[down, right] = run(model, x[:, down:, right:])
    return phases


def fast_for(*fast):
    """All downsamplings; those that are not named take their time in the slow suite."""
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.long)
        for name in DOWNSAMPLINGS
    ]


@pytest.mark.parametrize(
    ("down", "factor"),
    [
        *((name, 4) for name in DOWNSAMPLINGS),
        ("max 2/2", 8),
        *(pytest.param(n, 8, marks=pytest.mark.long) for n in DOWNSAMPLINGS if n != "max 2/2"),
    ],
)
def test_valid_nets_equal_shift_and_stitch_everywhere(down, factor):
    model = pyramid(down, factor)
    before = snapshot(model)
    dense = kfcn.to_atrous(model, 1)
    assert_untouched(model, before)
    x = images(1, 67, 73, 2)
    got = run(dense, x)
    assert 0.2 < got.std() < 20
    tolerance = 5e-5 if down.startswith("average") else 1e-5
    for (down_by, right_by), coarse in cropped_runs(model, x, factor).items():
        phase = got[:, down_by::factor, right_by::factor][:, : coarse.shape[1], : coarse.shape[2]]
        np.testing.assert_allclose(phase, coarse, rtol=0, atol=tolerance)
        wrong = got[:, (down_by + 1) % factor :: factor, right_by::factor]
        rows = min(wrong.shape[1], coarse.shape[1])
        columns = min(wrong.shape[2], coarse.shape[2])
        difference = wrong[:, :rows, :columns] - coarse[:, :rows, :columns]
        assert np.abs(difference).max() > 1e-2
    # The tool itself gives the same cells wherever no zeros move in.
    field = kfcn.receptive_field(dense)
    stitched = kfcn.shift_and_stitch(model, x, factor, progress=False)
    rows, columns = x.shape[1] - field.size + 1, x.shape[2] - field.size + 1
    assert rows > factor
    np.testing.assert_allclose(
        stitched[:, :rows, :columns], got[:, :rows, :columns], rtol=0, atol=tolerance
    )


def interior_difference(model, dense, x, output_stride, phases, stride):
    """Largest differences in the interior, over the whole map, and of a wrong phase inside."""
    field = kfcn.receptive_field(model)
    factor = stride // output_stride
    got = run(dense, x)
    inside = whole = wrong = 0.0
    cells = 0
    for down, right in phases:
        moved = np.zeros_like(x)
        y, z = down * output_stride, right * output_stride
        moved[:, : x.shape[1] - y, : x.shape[2] - z] = x[:, y:, z:]
        coarse = run(model, moved)
        phase = got[:, down::factor, right::factor]
        other = got[:, (down + 1) % factor :: factor, right::factor]
        keep = []
        for axis, shift in ((1, y), (2, z)):
            centres = np.arange(coarse.shape[axis]) * stride + field.offset
            low, high = centres - (field.size - 1) / 2, centres + (field.size - 1) / 2
            keep.append((low >= 0) & (high < x.shape[axis] - shift))
        mask = keep[0][:, None] & keep[1][None, :]
        cells += mask.sum()
        difference = np.abs(phase - coarse).max(axis=(0, 3))
        whole = max(whole, difference.max())
        inside = max(inside, difference[mask].max(initial=0))
        wrong = max(wrong, np.abs(other - coarse).max(axis=(0, 3))[mask].max(initial=0))
    assert cells > 0
    return inside, whole, wrong, got.std()


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("down", fast_for("max 3/2", "average 2/2", "strided conv"))
def test_same_nets_equal_shift_and_stitch_in_the_interior(down, kernel):
    model = pyramid(down, 8, padding="same", kernel=kernel)
    dense = kfcn.to_atrous(model, 2)
    x = images(1, 128, 144, 2)
    assert run(dense, x).shape == (1, 64, 72, 4)
    inside, whole, wrong, spread = interior_difference(
        model, dense, x, 2, [(0, 0), (1, 2), (3, 3)], 8
    )
    assert 0.1 < spread < 20
    assert inside < 1e-3
    assert wrong > 1e-2
    assert whole > 1e-2  # at the border the two must differ: their zeros lie elsewhere


def test_the_short_cut_of_same_padding_moves_the_grid():
    """The control for the padding rule: strides 1, doubled rates and 'same' shift the grid."""
    model = pyramid("strided conv", 4, padding="same")
    x = images(1, 96, 96, 2)
    y = inputs = keras.Input((None, None, 2))
    rate = 1
    for layer in pyramid("strided conv", 4, padding="same").layers[1:]:
        if isinstance(layer, layers.Conv2D):
            config = layer.get_config() | {"strides": 1, "dilation_rate": rate}
            new = layers.Conv2D.from_config(config)
            y = new(y)
            new.set_weights(layer.get_weights())
            rate *= layer.strides[0]
        else:
            y = layer(y)
    naive = keras.Model(inputs, y)
    inside, _, _, _ = interior_difference(model, naive, x, 1, [(0, 0), (1, 2)], 4)
    assert inside > 1e-2
    dense = kfcn.to_atrous(model, 1)
    inside, _, _, _ = interior_difference(model, dense, x, 1, [(0, 0), (1, 2)], 4)
    assert inside < 1e-5


def test_mobilenet_v2_up_to_stride_16():
    body = keras.applications.MobileNetV2(
        weights=None, alpha=0.35, include_top=False, input_shape=(None, None, 3)
    )
    model = keras.Model(body.input, body.get_layer("block_13_expand_relu").output)
    animate(model, (64, 64))
    dense = kfcn.to_atrous(model, 8)
    assert dense.get_layer("block_13_expand_relu") is not None
    inside, _, wrong, spread = interior_difference(
        model, dense, images(1, 384, 384, 3), 8, [(0, 1)], 16
    )
    assert spread > 0.1
    assert inside < 1e-3
    assert wrong > 1e-2


@pytest.mark.parametrize("down", fast_for("max 2/2", "strided conv", "strided separable"))
def test_centered_cells_are_the_same_cells_moved(down):
    model = pyramid(down, 16, padding="same")
    exact, centered = kfcn.to_atrous(model, 2), kfcn.to_atrous(model, 2, centered=True)
    field, moved_field = kfcn.receptive_field(exact), kfcn.receptive_field(centered)
    moved = (field.offset - moved_field.offset) / 2
    assert moved == int(moved) > 0
    moved = int(moved)
    assert moved_field == (field.size, 2, field.offset - 2 * moved)
    # Where the model itself has its grid at stride 2: at most half a cell further on.
    at_two = kfcn.receptive_field(pyramid(down, 2, padding="same"))
    assert 0 <= moved_field.offset - at_two.offset <= 1
    x = images(1, 192, 208, 2)
    a, b = run(exact, x), run(centered, x)
    assert a.shape == b.shape == (1, 96, 104, 4)
    edge = field.size // 4 + moved + 1
    a, b = a[:, edge:-edge, edge:-edge], b[:, edge + moved :, edge + moved :]
    np.testing.assert_allclose(a, b[:, : a.shape[1], : a.shape[2]], rtol=0, atol=5e-5)
    assert np.abs(a[:, 1:] - a[:, :-1]).max() > 1e-2


def test_centered_refuses_branches_that_would_part():
    """A shortcut centred at 2i beside a path centred at 2i + 1, as in Xception."""
    inputs = keras.Input((None, None, 3))
    short = layers.Conv2D(4, 1, strides=2, padding="same")(inputs)
    path = layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    model = keras.Model(inputs, layers.Add(name="join")([short, path]))
    with pytest.raises(KfcnError, match="'join'"):
        kfcn.to_atrous(model, 1, centered=True)
    assert kfcn.to_atrous(model, 1).output_shape == (None, None, None, 4)


def test_centered_counts_the_padding_in_front_of_the_first_removed_stride():
    """A padding layer and a 5x5 'valid' convolution: centred at 2i + 1, and so is the dense map."""
    inputs = keras.Input((None, None, 3))
    x = layers.ZeroPadding2D(((1, 2), (1, 2)))(inputs)
    x = layers.Conv2D(4, 5, strides=2)(x)
    model = keras.Model(inputs, layers.Add()([x, layers.Conv2D(4, 3, padding="same")(x)]))
    assert kfcn.receptive_field(model).offset == 1
    dense = kfcn.receptive_field(kfcn.to_atrous(model, 1, centered=True))
    assert (dense.stride, dense.offset) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "offset"), [("MobileNetV2", 7), ("ResNet50", 0), ("VGG16", 7.5)])
def test_centered_backbones_at_stride_8(name, offset):
    build = getattr(keras.applications, name)
    body = build(weights=None, include_top=False, input_shape=(None, None, 3))
    field = kfcn.receptive_field(kfcn.to_atrous(body, 8, centered=True))
    assert (field.stride, field.offset) == (8, offset)
    assert field.size == kfcn.receptive_field(body).size


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "size"), [("VGG16", 448), ("ResNet50", 608), ("MobileNetV2", 608)]
)
def test_backbones_from_stride_32_to_8(name, size):
    build = getattr(keras.applications, name)
    model = build(weights=None, include_top=False, input_shape=(None, None, 3))
    animate(model, (96, 96))
    dense = kfcn.to_atrous(model, 8)
    names = {layer.name for layer in dense.layers}
    assert {layer.name for layer in model.layers[1:]} <= names
    phases = [(0, 0), (1, 2), (3, 3)]
    inside, _, wrong, spread = interior_difference(
        model, dense, images(1, size, size, 3), 8, phases, 32
    )
    print(f"{name}: interior {inside:.1e}, wrong phase {wrong:.2f}, sd {spread:.2f}")
    assert spread > 0.1
    assert inside < 1e-3
    assert wrong > 1e-2


def test_the_models_own_stride_changes_nothing():
    model = pyramid("max 2/2", 8, padding="same")
    same = kfcn.to_atrous(model, 8)
    x = images(1, 64, 72, 2)
    np.testing.assert_array_equal(run(same, x), run(model, x))
    assert [type(layer) for layer in same.layers] == [type(layer) for layer in model.layers]


def test_a_fixed_input_size_stays_fixed():
    model = pyramid("max 3/2", 4, size=(45, 49))
    dense = kfcn.to_atrous(model, 1)
    assert dense.input_shape == (None, 45, 49, 2)
    x = images(1, 45, 49, 2)
    got = run(dense, x)
    coarse = run(model, x)
    np.testing.assert_allclose(
        got[:, ::4, ::4][:, : coarse.shape[1], : coarse.shape[2]], coarse, atol=1e-5
    )


@pytest.mark.parametrize("pooling", [layers.MaxPooling2D, layers.AveragePooling2D])
@pytest.mark.parametrize(("pool", "padding"), [(1, "valid"), (2, "same")])
@pytest.mark.parametrize(("side", "output_stride"), [(25, 1), (33, 2)])
def test_a_fixed_size_that_the_strides_do_not_divide(pooling, pool, padding, side, output_stride):
    """Windows beyond the map are 0, not the number that padding loses with or 0 / 0."""
    x = inputs = keras.Input((side, side + 2, 2))
    for _ in range(2):
        x = layers.Conv2D(3, 3, padding="same", activation="relu")(x)
        x = pooling(pool, 2, padding)(x)
    model = animate(keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(x)), (side, side + 2))
    factor = 4 // output_stride
    x = images(1, side, side + 2, 2)
    coarse, dense = run(model, x), run(kfcn.to_atrous(model, output_stride), x)
    rows, columns = coarse.shape[1:3]
    assert dense.shape == (1, rows * factor, columns * factor, 2)
    assert np.abs(dense).max() < 50
    # The phase that is not shifted has the model's own zeros: equal up to the border.
    np.testing.assert_allclose(dense[:, ::factor, ::factor], coarse, atol=1e-5)


@pytest.mark.parametrize("stride", [3, 6, 16])
def test_an_output_stride_that_the_model_never_has(stride):
    with pytest.raises(UsageError, match=rf"passes through \(1, 2, 4, 8\), received {stride}"):
        kfcn.to_atrous(pyramid("max 2/2", 8), stride)


def test_squeeze_and_excite_is_refused_with_the_reason():
    x = inputs = keras.Input((None, None, 3))
    for number in (1, 2):
        x = layers.Conv2D(4, 3, strides=2, padding="same", name=f"conv{number}")(x)
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"squeeze{number}")(x)
        x = layers.Multiply(name=f"excite{number}")([x, layers.Conv2D(4, 1)(gate)])
    model = keras.Model(inputs, x)
    with pytest.raises(KfcnError, match=r"'squeeze2'.*over all phases") as caught:
        kfcn.to_atrous(model, 2)
    assert "\n" not in str(caught.value)
    # Where no stride is removed before it there is nothing to refuse.
    early = keras.Model(inputs, model.get_layer("excite1").output)
    assert kfcn.to_atrous(early, 2).output_shape == (None, None, None, 4)


@pytest.mark.long
@pytest.mark.parametrize("name", ["EfficientNetV2B0", "MobileNetV3Large"])
def test_squeeze_and_excite_backbones_are_refused(name):
    build = getattr(keras.applications, name)
    body = build(weights=None, include_top=False, input_shape=(None, None, 3))
    with pytest.raises(KfcnError, match="over all phases"):
        kfcn.to_atrous(body, 8)


def test_a_classifier_and_a_transposed_convolution_are_refused_by_name():
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    vector = layers.GlobalAveragePooling2D(name="gap")(x)
    with pytest.raises(KfcnError, match=r"'gap'.*convolutionalize"):
        kfcn.to_atrous(keras.Model(inputs, layers.Dense(2)(vector)), 1)
    up = layers.Conv2DTranspose(2, 4, 2, padding="same", name="up")(x)
    with pytest.raises(KfcnError, match="'up' \\(Conv2DTranspose\\)"):
        kfcn.to_atrous(keras.Model(inputs, up), 1)


def test_a_layer_of_ones_own_is_refused():
    """What a subclass does with a dilation is not known; this one leaves it out."""
    x = inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    x = StandardizedConv2D(4, 3, padding="same", name="own")(x)
    model = keras.Model(inputs, x)
    with pytest.raises(KfcnError, match=r"'own' \(StandardizedConv2D\) is a layer of your own"):
        kfcn.to_atrous(model, 1)
    assert kfcn.to_atrous(model, 2).output_shape == (None, None, None, 4)  # nothing is dilated


def test_nested_models_shared_at_two_rates():
    """One block behind two strides: its second call runs at twice the rate of the first."""
    x = inputs = keras.Input((None, None, 3))
    block = keras.Sequential(
        [
            keras.Input((None, None, 4)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(2, name="pool"),
        ],
        name="block",
    )
    x = block(block(layers.Conv2D(4, 1)(x)))
    model = animate(keras.Model(inputs, x), (32, 32))
    before = snapshot(model)
    dense = kfcn.to_atrous(model, 1)
    assert_untouched(model, before)
    first, second = dense.get_layer("block"), dense.get_layer("block_2")
    rates = [nested.layers[1].dilation_rate for nested in (first, second)]
    assert rates == [(1, 1), (2, 2)]
    x = images(1, 37, 41, 3)
    got = run(dense, x)
    for (down, right), coarse in cropped_runs(model, x, 4).items():
        phase = got[:, down::4, right::4][:, : coarse.shape[1], : coarse.shape[2]]
        np.testing.assert_allclose(phase, coarse, atol=1e-5)


def test_several_outputs_and_trainable_flags():
    base = pyramid("max 2/2", 8, padding="same")
    base.get_layer("conv1").trainable = False
    taps = [base.get_layer(f"conv{level}").output for level in range(3)]
    dense = kfcn.to_atrous(keras.Model(base.input, [*taps, base.output]), 2)
    assert not dense.get_layer("conv1").trainable
    assert dense.get_layer("conv2").trainable
    shapes = [np.asarray(y).shape[1:3] for y in dense(images(1, 64, 64, 2))]
    assert shapes == [(64, 64), (32, 32), (32, 32), (32, 32)]


def test_a_whole_heatmap_chain_saves_loads_and_converts(tmp_path):
    x = inputs = keras.Input((32, 32, 3))
    for width in (6, 8):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = animate(keras.Model(inputs, layers.Dense(4, "softmax")(x)), (32, 32))
    net = kfcn.to_atrous(kfcn.convolutionalize(model, logits=True), 1)
    net.save(tmp_path / "net.keras")
    again = keras.models.load_model(tmp_path / "net.keras")
    x = images(1, 48, 40, 3)
    np.testing.assert_array_equal(run(again, x), run(net, x))
    operators, got, expected = tflite_operators(net, (1, 48, 40, 3), tmp_path)
    assert "MAXIMUM" in operators
    assert not any("Flex" in name or "CUSTOM" in name.upper() for name in operators)
    np.testing.assert_allclose(got, expected, atol=1e-5)
