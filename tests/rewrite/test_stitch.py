import keras
import numpy as np
import pytest
from keras import layers

import kfcn
from kfcn.errors import UsageError


def take_corner(factor):
    """A net whose cell (i, j) is the pixel (factor * i, factor * j): pooled by a 1x1 window."""
    inputs = keras.Input((None, None, 2))
    return keras.Model(inputs, layers.MaxPooling2D(1, factor, padding="same")(inputs))


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_the_stitched_corners_are_the_image(factor, size):
    x = np.random.default_rng(0).uniform(0, 255, (3, *size, 2)).astype("float32")
    stitched = kfcn.shift_and_stitch(take_corner(factor), x, factor, batch_size=5, progress=False)
    np.testing.assert_array_equal(stitched, x)


def test_zeros_move_in_from_the_bottom_and_the_right():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, layers.AveragePooling2D(2)(inputs))
    x = np.arange(1, 17, dtype="float32").reshape(1, 4, 4, 1)
    stitched = kfcn.shift_and_stitch(model, x, 2, progress=False)[0, :, :, 0]
    # Means of 2x2 windows of 1..16; the last row and column are half and quarter empty.
    expected = [
        [3.5, 4.5, 5.5, 3],
        [7.5, 8.5, 9.5, 5],
        [11.5, 12.5, 13.5, 7],
        [6.75, 7.25, 7.75, 4],
    ]
    np.testing.assert_array_equal(stitched, expected)


def test_one_image_and_any_batch_size():
    x = np.random.default_rng(0).uniform(0, 1, (9, 8, 2)).astype("float32")
    model = take_corner(4)
    whole = kfcn.shift_and_stitch(model, x, 4, batch_size=16, progress=False)
    assert whole.shape == x.shape
    one = kfcn.shift_and_stitch(model, x, 4, batch_size=1, progress=False)
    np.testing.assert_array_equal(whole, one)


def test_a_valid_net_gives_the_cells_it_has():
    inputs = keras.Input((None, None, 2))
    x = layers.MaxPooling2D(2)(layers.Conv2D(3, 3)(inputs))
    model = keras.Model(inputs, x)
    x = np.random.default_rng(0).normal(size=(1, 11, 12, 2)).astype("float32")
    stitched = kfcn.shift_and_stitch(model, x, 2, progress=False)
    assert stitched.shape == (1, 8, 10, 3)  # 2 * floor((11 - 2) / 2), 2 * floor((12 - 2) / 2)


def test_progress_is_shown(capsys):
    x = np.zeros((8, 8, 2), "float32")
    kfcn.shift_and_stitch(take_corner(2), x, 2, batch_size=1)
    assert "shift-and-stitch: 100%" in capsys.readouterr().err
    kfcn.shift_and_stitch(take_corner(2), x, 2, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("shape", "factor", "message"),
    [((8, 8), 2, r"received \(8, 8\)"), ((8, 8, 2), 0, "factor=0"), ((8, 8, 2), 1.5, "factor=1.5")],
)
def test_what_makes_no_sense(shape, factor, message):
    with pytest.raises(UsageError, match=message):
        kfcn.shift_and_stitch(take_corner(2), np.zeros(shape, "float32"), factor)


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_the_factor_is_the_models_stride(factor):
    with pytest.raises(UsageError, match=f"the stride of model '.*', 4; received {factor}"):
        kfcn.shift_and_stitch(take_corner(4), np.zeros((8, 8, 2), "float32"), factor)


def test_a_model_without_a_graph_is_taken_at_its_word():
    class Corner(keras.Model):
        def call(self, x, training=False):
            return x[:, ::2, ::2]

    x = np.random.default_rng(0).uniform(size=(1, 6, 4, 2)).astype("float32")
    np.testing.assert_array_equal(kfcn.shift_and_stitch(Corner(), x, 2, progress=False), x)
