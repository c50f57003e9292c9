import keras
import numpy as np
import pytest
from keras import ops

from kfcn.nets import upsample
from kfcn.nets.upsample import bilinear_kernel, enlargements, match_size, trims


def enlarge(x, stride, channels=None, **options):
    image = keras.Input((None, None, x.shape[-1]))
    net = keras.Model(image, upsample.upsample(image, stride, "up", **options))
    return net, ops.convert_to_numpy(net(x))


def test_kernel_of_stride_2_by_hand():
    one_d = np.array([0.25, 0.75, 0.75, 0.25])
    kernel = bilinear_kernel(2, 1)
    assert kernel.shape == (4, 4, 1, 1)
    np.testing.assert_array_equal(kernel[..., 0, 0], np.outer(one_d, one_d))


def test_kernel_on_a_pixel_by_hand():
    one_d = np.array([0.5, 1.0, 0.5])
    np.testing.assert_array_equal(bilinear_kernel(2, 1, size=3)[..., 0, 0], np.outer(one_d, one_d))


def test_kernel_keeps_channels_apart():
    kernel = bilinear_kernel(4, 3)
    assert kernel.shape == (8, 8, 3, 3)
    for i in range(3):
        for j in range(3):
            expected = kernel[..., 0, 0] if i == j else 0
            np.testing.assert_array_equal(kernel[..., i, j], expected)


def test_enlarging_a_row_by_hand():
    # Cells at 0.5 and 2.5 of the output; zero beyond the border.
    x = np.array([1.0, 3.0], "float32").reshape(1, 1, 2, 1).repeat(3, axis=1)
    _, y = enlarge(x, 2)
    np.testing.assert_allclose(y[0, 2, :, 0], [0.75, 1.5, 2.5, 2.25])


@pytest.mark.parametrize("stride", [2, 8, 16])
def test_interior_is_bilinear_resizing(stride):
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype("float32")
    _, y = enlarge(x, stride)
    resized = ops.convert_to_numpy(
        ops.image.resize(x, (5 * stride, 6 * stride), interpolation="bilinear")
    )
    inner = slice(stride // 2, -stride // 2)
    np.testing.assert_allclose(y[:, inner, inner], resized[:, inner, inner], atol=2e-6)
    # The border fades to zero, as in the paper; equality there would mean another operation.
    assert np.abs(y - resized).max() > 0.1


@pytest.mark.parametrize(("offset", "first"), [(0, 0), (3, 3)])
def test_aligned_cells_stand_where_the_offset_says(offset, first):
    x = np.zeros((1, 3, 3, 1), "float32")
    x[0, 1, 1] = 1
    _, y = enlarge(x, 4, offset=offset)
    assert y.shape[1] >= 12
    peak = np.unravel_index(y[0, ..., 0].argmax(), y.shape[1:3])
    assert peak == (4 + first, 4 + first)
    np.testing.assert_allclose(
        y[0, peak[0], peak[1] - 2 : peak[1] + 3, 0], [0.5, 0.75, 1, 0.75, 0.5]
    )


def test_unfitting_offset_is_refused():
    with pytest.raises(ValueError, match=r"Got 1\.$"):
        enlarge(np.zeros((1, 2, 2, 1), "float32"), 4, offset=1)


@pytest.mark.parametrize(("classes", "rest"), [(37, 5), (48, 0)])
def test_groups_of_channels_equal_the_dense_layer(classes, rest, monkeypatch):
    x = np.random.default_rng(1).normal(size=(2, 4, 3, classes)).astype("float32")
    grouped, y = enlarge(x, 8)
    monkeypatch.setattr(upsample, "GROUP", classes)
    dense, expected = enlarge(x, 8)
    np.testing.assert_allclose(y, expected, atol=1e-6)  # measured 2.4e-7: order of summation
    # Linear against quadratic: small kernels against one of classes x classes.
    assert grouped.count_params() == 16 * 16 * (16 * 16 + rest * rest)
    assert dense.count_params() == 16 * 16 * classes * classes


def test_learning_upsampling_is_dense_and_trainable():
    net, _ = enlarge(np.zeros((1, 2, 2, 20), "float32"), 2, trainable=True)
    assert [tuple(w.shape) for w in net.trainable_weights] == [(4, 4, 20, 20)]
    net, _ = enlarge(np.zeros((1, 2, 2, 20), "float32"), 2)
    assert not net.trainable_weights


def test_no_bias_and_no_activation():
    net, _ = enlarge(np.zeros((1, 2, 2, 3), "float32"), 2)
    layer = net.get_layer("up")
    assert not layer.use_bias
    assert layer.activation is keras.activations.linear


@pytest.mark.parametrize("wanted", [(3, 5), (5, 4), (2, 6)])
def test_match_size_cuts_or_repeats(wanted):
    x = keras.Input((None, None, 1))
    reference = keras.Input((None, None, 2))
    net = keras.Model([x, reference], match_size(x, reference))
    values = np.arange(20, dtype="float32").reshape(1, 4, 5, 1)
    y = ops.convert_to_numpy(net([values, np.zeros((1, *wanted, 2), "float32")]))
    rows = np.minimum(np.arange(wanted[0]), 3)
    columns = np.minimum(np.arange(wanted[1]), 4)
    np.testing.assert_array_equal(y[0, ..., 0], values[0, ..., 0][rows][:, columns])


def reloaded(model, folder):
    model.save(folder / "net.keras")
    return keras.models.load_model(folder / "net.keras")


@pytest.mark.parametrize("channels", [3, 40])
def test_enlargements_are_found_in_a_net_from_a_file(channels, tmp_path):
    image = keras.Input((None, None, channels))
    x = upsample.upsample(image, 4, "up")
    x = upsample.upsample(x, 2, "learns", trainable=True)
    x = keras.layers.Conv2DTranspose(channels, 4, 2, "same", name="with_bias")(x)
    net = reloaded(keras.Model(image, x), tmp_path)
    found = {enlargement.parts[0].name: enlargement for enlargement in enlargements(net)}
    assert set(found) == {"up", "learns"}
    assert found["learns"].learns and not found["up"].learns
    assert (found["up"].stride, found["learns"].stride) == (4, 2)
    names = ["up", "up", "up_rest"] if channels == 40 else ["up"]  # 16 + 16 + 8
    assert [part.name for part in found["up"].parts] == names
    assert (found["up"].join is None) == (channels == 3) == (found["up"].split is None)
    assert found["learns"].is_bilinear and found["up"].is_bilinear


def test_an_enlargement_is_known_by_its_weights():
    net, _ = enlarge(np.zeros((1, 2, 2, 3), "float32"), 4)
    layer = net.get_layer("up")
    kernel = bilinear_kernel(4, 3)
    for change, found in (((0, 0, 0, 1), 0), ((3, 3, 1, 1), 1)):
        changed = kernel.copy()
        changed[change] += 1e-3
        layer.set_weights([changed])
        assert len(enlargements(net)) == found
        assert not any(enlargement.is_bilinear for enlargement in enlargements(net))
    layer.set_weights([kernel])
    assert enlargements(net)[0].is_bilinear


def test_an_aligned_enlargement_is_not_the_usual_bilinear_one():
    net, _ = enlarge(np.zeros((1, 2, 2, 3), "float32"), 4, offset=0)
    (found,) = enlargements(net)
    assert found.parts[0].name == "up" and not found.is_bilinear


def test_joined_layers_that_are_no_groups_of_one_map():
    """Two maps enlarged and joined, and the groups of one in another order: neither is whole."""
    image = keras.Input((None, None, 32))
    layers = [keras.layers.Conv2DTranspose(16, 4, 2, "same", use_bias=False) for _ in range(2)]
    left, right = ops.split(image, 2, axis=-1)
    net = keras.Model(image, keras.layers.Concatenate()([layers[0](right), layers[1](left)]))
    for layer in layers:
        layer.set_weights([bilinear_kernel(2, 16)])
    assert [(len(found.parts), found.join) for found in enlargements(net)] == [(1, None)] * 2


def test_trims_are_found_in_a_net_from_a_file_and_nothing_else_is(tmp_path):
    image, other = keras.Input((None, None, 2)), keras.Input((None, None, 1))
    x = ops.take(match_size(image, other), ops.convert_to_tensor([0, 1]), axis=-1)
    x = ops.take(x, ops.convert_to_tensor([2, 0]), axis=1)
    net = reloaded(keras.Model([image, other], x), tmp_path)
    found = trims(net)
    assert [trim.axis for trim in found] == [1, 2]
    sizes = keras.Function(net.inputs, [trim.indices for trim in found])
    rows, columns = sizes([np.zeros((1, 3, 4, 2)), np.zeros((1, 5, 2, 1))])
    np.testing.assert_array_equal(rows, [0, 1, 2, 2, 2])
    np.testing.assert_array_equal(columns, [0, 1])


def _positions_of(x, axis):
    line = x[0, :, 0, 0] if axis == 1 else x[0, 0, :, 0]
    return ops.cumsum(ops.ones_like(line, dtype="int32")) - 1


def _gather(change, x, reference):
    """As `match_size` of rows, but for one change."""
    counted = {"axis": 2}.get(change, 1)
    positions = _positions_of(reference, counted)
    last = ops.max(_positions_of(x, 1), initial=9 if change == "initial" else None)
    if change == "shifted":
        positions = positions + 1 - 1
    if change == "twice":
        positions = ops.cumsum(ops.ones_like(reference[0, :, 0, 0], dtype="int32") * 2) - 1
    if change == "of another":
        last = ops.max(_positions_of(reference, 1))
    if change == "a constant":
        positions = ops.convert_to_tensor([0, 2, 1], "int32")
    if change == "a last one":
        last = 1
    return ops.take(x, ops.minimum(positions, last), axis=1)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("", 1),
        ("axis", 0),
        ("initial", 0),
        ("shifted", 0),
        ("twice", 0),
        ("of another", 0),
        ("a constant", 0),
        ("a last one", 0),
    ],
)
def test_a_gather_of_other_rows_is_no_trim(change, found, tmp_path):
    x, reference = keras.Input((None, None, 2)), keras.Input((None, None, 1))
    net = keras.Model([x, reference], _gather(change, x, reference))
    assert len(trims(net)) == len(trims(reloaded(net, tmp_path))) == found


def test_a_trim_to_a_size_that_is_no_maps_has_no_reference():
    x = keras.Input((None, None, 2))
    (rows, columns) = trims(keras.Model(x, match_size(x, ops.zeros((1, 3, 4, 1)))))
    assert (rows.axis, columns.axis) == (1, 2) and rows.reference is columns.reference is None


def _in_groups(extra):
    """40 channels enlarged in groups of 16, 16 and 8, and what `extra` makes of the groups."""
    image = keras.Input((None, None, 40))
    layers = [keras.layers.Conv2DTranspose(n, 4, 2, "same", use_bias=False) for n in (16, 8)]
    groups = ops.split(image, [16, 32], axis=-1)
    large = [layers[0](groups[0]), layers[0](groups[1]), layers[1](groups[2])]
    net = keras.Model(image, extra(groups, large, layers))
    for layer in layers:
        layer.set_weights([bilinear_kernel(2, layer.filters)])
    return net


def _join(maps):
    return keras.layers.Concatenate()(maps)


@pytest.mark.parametrize(
    ("extra", "joined"),
    [
        (lambda groups, large, layers: _join(large), True),
        (lambda groups, large, layers: _join(large[:2]), False),
        (lambda groups, large, layers: [_join(large), large[0]], False),
        (lambda groups, large, layers: [_join(large), groups[0]], False),
        (lambda groups, large, layers: [_join(large), large[0] * 2], False),
        (lambda groups, large, layers: [_join(large), _join(large)], False),
        (lambda groups, large, layers: [_join(large), layers[0](groups[0] * 2)], False),
    ],
    ids=["", "not all", "a part too", "a group too", "read too", "joined twice", "called again"],
)
def test_groups_that_others_read_are_no_enlargement(extra, joined):
    found = enlargements(_in_groups(extra))
    assert [x.join is not None for x in found] == ([True] if joined else [False] * len(found))
    assert len(found) >= 1
