import keras
import numpy as np
import pytest
from keras import layers
from rewrite_nets import images, run

import kfcn
from kfcn.rewrite import DilatedPooling2D


def reference(x, size, rate, mode, pads):
    """Position by position, padding left out of maximum and mean."""
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=np.nan)
    rows = padded.shape[1] - (size[0] - 1) * rate[0]
    columns = padded.shape[2] - (size[1] - 1) * rate[1]
    out = np.empty((x.shape[0], rows, columns, x.shape[3]), np.float32)
    for row in range(rows):
        for column in range(columns):
            window = padded[
                :,
                row : row + (size[0] - 1) * rate[0] + 1 : rate[0],
                column : column + (size[1] - 1) * rate[1] + 1 : rate[1],
            ]
            pool = np.nanmax if mode == "max" else np.nanmean
            out[:, row, column] = pool(window, axis=(1, 2))
    return out


@pytest.mark.parametrize("mode", ["max", "average"])
@pytest.mark.parametrize(
    ("size", "rate", "pads"),
    [
        ((2, 2), (1, 1), ((0, 0), (0, 0))),
        ((3, 3), (2, 2), ((2, 2), (2, 2))),
        ((2, 3), (4, 1), ((0, 4), (1, 0))),
    ],
)
def test_equals_numpy_on_all_negative_input(mode, size, rate, pads):
    # All negative: zeros padded in by mistake would win every maximum at the border.
    x = -1.0 - np.abs(images(2, 9, 11, 3))
    layer = DilatedPooling2D(size, rate, mode, pads)
    got, expected = np.asarray(layer(x)), reference(x, size, rate, mode, pads)
    assert got.shape == expected.shape == layer.compute_output_shape(x.shape)
    np.testing.assert_allclose(got, expected, rtol=0, atol=0 if mode == "max" else 1e-6)
    assert got.max() <= -1.0


def test_equals_the_stock_layers_at_rate_1():
    x = images(1, 8, 10, 2)
    stock = layers.MaxPooling2D(2, strides=1)(x)
    np.testing.assert_array_equal(np.asarray(DilatedPooling2D((2, 2))(x)), np.asarray(stock))
    stock = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    ours = DilatedPooling2D((3, 3), mode="average", pads=((1, 1), (1, 1)))(x)
    np.testing.assert_allclose(np.asarray(ours), np.asarray(stock), atol=1e-6)


def test_open_sizes_half_precision_and_reload(tmp_path):
    inputs = keras.Input((None, None, 2))
    outputs = DilatedPooling2D((2, 2), (3, 3), pads=((0, 3), (0, 3)), name="pool")(inputs)
    assert outputs.shape == (None, None, None, 2)
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "pool.keras")
    again = keras.models.load_model(tmp_path / "pool.keras")
    x = images(1, 7, 8, 2)
    assert run(model, x).shape == x.shape
    np.testing.assert_array_equal(run(again, x), run(model, x))
    half = np.asarray(
        DilatedPooling2D((2, 2), pads=((0, 1), (0, 1)), dtype="float16")(x.astype("float16"))
    )
    assert np.isfinite(half).all()
    assert kfcn.DilatedPooling2D is DilatedPooling2D


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("mode", ["max", "average"])
def test_windows_of_padding_alone_give_zero(mode, dtype):
    x = np.array([[-3.0, -1.0], [-5.0, -7.0]]).reshape(1, 2, 2, 1)
    layer = DilatedPooling2D((2, 1), (1, 1), mode, ((0, 2), (1, 0)), dtype=dtype)
    first, second = ([-3, -1], [-5, -7]) if mode == "max" else ([-4, -4], [-5, -7])
    expected = [[0, *first], [0, *second], [0, 0, 0]]
    assert np.asarray(layer(x))[0, :, :, 0].tolist() == expected


def test_an_unknown_mode():
    with pytest.raises(ValueError, match="'median'"):
        DilatedPooling2D((2, 2), mode="median")
