import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import kfcn
from kfcn.commands import heatmap as command
from kfcn.errors import UsageError
from kfcn.inference import class_heatmaps


@pytest.fixture(scope="module")
def red_or_blue():
    """Two classes: is the 16-pixel window redder or bluer on the mean?"""
    inputs = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.AveragePooling2D(4, name="pool")(x)
    x = layers.GlobalAveragePooling2D()(x)
    dense = layers.Dense(2, "softmax", name="predictions")
    model = keras.Model(inputs, dense(x), name="red_or_blue")
    dense.set_weights([np.array([[8.0, 0], [0, 0], [0, 8]], "float32"), np.zeros(2, "float32")])
    return model


def red_corner(height=48, width=64):
    """Blue with a red top left quarter."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2] = 255
    image[: height // 2, : width // 2] = (255, 0, 0)
    return image


def test_the_map_is_the_classifier_on_its_windows(red_or_blue):
    image = red_corner()
    maps = kfcn.class_heatmap(red_or_blue, image)
    assert maps.shape == ((48 - 16) // 4 + 1, (64 - 16) // 4 + 1, 2)
    for row, column in ((0, 0), (3, 4), (8, 12)):
        window = image[4 * row : 4 * row + 16, 4 * column : 4 * column + 16]
        expected = np.asarray(red_or_blue(window[None].astype("float32")))[0]
        np.testing.assert_allclose(maps[row, column], expected, atol=1e-6)
    # sigmoid(8) and sigmoid(-8) where the window is of one colour; half and half at 4 of 16 rows.
    assert maps[0, 0, 0] == pytest.approx(1 / (1 + np.exp(-8)), abs=1e-6)
    assert maps[8, 12, 0] == pytest.approx(1 / (1 + np.exp(8)), abs=1e-6)
    assert maps[4, 0, 0] == pytest.approx(0.5, abs=1e-6)  # rows 16..31 of a border at 24
    np.testing.assert_array_equal(kfcn.class_heatmap(red_or_blue, image, 1), maps[..., 1])


def test_a_small_image_is_enlarged(red_or_blue):
    maps = kfcn.class_heatmap(red_or_blue, red_corner(6, 8), 0)
    assert maps.shape == (1, 2)  # 16x21 pixels
    assert maps[0, 0] > maps[0, 1]


def test_logits_get_their_softmax(red_or_blue):
    dense = layers.Dense(2, name="logits")
    linear = keras.Model(red_or_blue.input, dense(red_or_blue.layers[-2].output))
    dense.set_weights(red_or_blue.get_layer("predictions").get_weights())
    image = red_corner()
    np.testing.assert_allclose(
        kfcn.class_heatmap(linear, image), kfcn.class_heatmap(red_or_blue, image), atol=1e-6
    )


def test_a_finer_grid(red_or_blue):
    image = red_corner()
    coarse = kfcn.class_heatmap(red_or_blue, image, 0)
    fine = kfcn.class_heatmap(red_or_blue, image, 0, output_stride=1)
    same = fine[::4, ::4][: coarse.shape[0], : coarse.shape[1]]
    np.testing.assert_allclose(same, coarse, rtol=1e-6)
    assert fine.shape[0] > 3 * coarse.shape[0]


def test_what_makes_no_sense(red_or_blue):
    with pytest.raises(UsageError, match=r"received an array of \(48, 64\)"):
        kfcn.class_heatmap(red_or_blue, red_corner()[..., 0])
    with pytest.raises(UsageError, match=r"\(H, W, 3\), received an array of \(48, 64, 4\)"):
        kfcn.class_heatmap(red_or_blue, np.zeros((48, 64, 4)))
    with pytest.raises(UsageError, match=r"received an array of \(0, 64, 3\)"):
        kfcn.class_heatmap(red_or_blue, red_corner()[:0])
    for index in ("cat", 1.0):
        with pytest.raises(UsageError, match=f"an integer, received {index!r}"):
            kfcn.class_heatmap(red_or_blue, red_corner(), index)
    with pytest.raises(UsageError, match=r"classes 0\.\.1, received 2"):
        kfcn.class_heatmap(red_or_blue, red_corner(), 2)


def test_the_map_is_spread_to_the_cells_own_places():
    heat = np.array([[0.0, 1.0], [2.0, 3.0]])
    spread = class_heatmaps.spread_map(heat, (8, 8), 4, 1.5)
    assert spread.shape == (8, 8)
    # Cell centres at 1.5 and 5.5: pixel 3 lies at 1.5 / 4 of the way.
    np.testing.assert_allclose(spread[0], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
    np.testing.assert_allclose(spread[:, 0], [0, 0, 0.25, 0.75, 1.25, 1.75, 2, 2])
    # Cells at 3.5 and 7.5 speak for pixels 1.5 to 9.5; nothing is said of the others.
    spread = class_heatmaps.spread_map(heat, (8, 12), (4, 4), (1.5, 3.5))
    nan = np.nan
    np.testing.assert_allclose(
        spread[0], [nan, nan, 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1, nan, nan]
    )
    assert class_heatmaps.spread_map(np.ones((1, 1)), (4, 4), 4, 1.5).tolist() == [[1] * 4] * 4


@pytest.fixture
def folder(tmp_path, red_or_blue):
    red_or_blue.save(tmp_path / "model.keras")
    (tmp_path / "names.txt").write_text("red\nblue\n")
    Image.fromarray(red_corner()).save(tmp_path / "image.png")
    return tmp_path


def test_the_command_draws(folder, capsys):
    out = folder / "heat.png"
    arguments = [folder / "model.keras", folder / "image.png", "--labels", folder / "names.txt"]
    code = command.main([*map(str, arguments), "--class", "red", "--out", str(out)])
    shown = capsys.readouterr()
    assert code == 0
    assert shown.err == ""
    assert "9x13 cells, one every 4 pixels\n" in shown.out
    line = next(line for line in shown.out.splitlines() if line.startswith("red"))
    maps = class_heatmaps.class_heatmap(
        keras.models.load_model(folder / "model.keras"), red_corner(), 0
    )
    assert line.split() == ["red", f"{maps.mean():.4f}", f"{maps.max():.4f}", "<-", "drawn"]
    picture = np.asarray(Image.open(out).convert("RGB")).astype(int)
    assert picture.shape[0] > 300
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500  # the colours of the heat
    assert sorted(path.name for path in folder.iterdir()) == [
        ".kfcn.jsonl",
        "heat.png",
        "image.png",
        "model.keras",
        "names.txt",
    ]


@pytest.mark.parametrize(
    ("size", "scale", "told"),
    [
        ((28, 28), 1, "4x4 cells, one every 4 pixels\n"),
        ((24, 40), 1, "3x7 cells, one every 4 pixels (few; --scale 2 gives more)\n"),
        ((24, 40), 2, "9x17 cells, one every 4 pixels\n"),
        ((8, 40), 1, "1x17 cells, one every 4 pixels (few; --scale 4 gives more)\n"),  # enlarged
        ((8, 40), 4, "5x37 cells, one every 4 pixels\n"),
        ((3, 4), 1, "1x2 cells, one every 4 pixels\n"),  # 11 is more than a scale can be
    ],
)
def test_few_cells_are_told_with_the_scale_that_gives_more(folder, capsys, size, scale, told):
    Image.fromarray(red_corner(*size)).save(folder / "image.png")
    words = [folder / "model.keras", folder / "image.png", "--out", folder / "heat.png"]
    assert command.main([*map(str, words), "--scale", str(scale)]) == 0
    assert capsys.readouterr().out.startswith(told)


def test_the_command_takes_the_leading_class_and_notes_missing_normalisation(folder, capsys):
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.GlobalMaxPooling2D(), layers.Dense(3, "softmax")]
    )
    model.save(folder / "plain.keras")
    arguments = [folder / "plain.keras", folder / "image.png", "--out", folder / "h.png"]
    assert command.main([str(argument) for argument in arguments]) == 0
    shown = capsys.readouterr()
    assert "pass --preprocess" in shown.err
    assert shown.out.count("<- drawn") == 1
    assert "class " in shown.out
    assert command.main([*map(str, arguments), "--preprocess", "tf"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["model.keras", "none.png"], 1, "none.png: cannot be read as an image (no such file)"),
        (["none.keras", "image.png"], 2, "none.keras: no such file"),
        (["names.keras", "image.png"], 1, "does not load as a Keras model"),
        (
            ["NoSuchNet", "image.png"],
            2,
            "neither a file nor a pretrained net (nyudv2, voc_animals)",
        ),
        (["mobilenetv", "image.png"], 2, "MobileNetV2"),
        (["model.keras", "image.png", "--labels", "image.png"], 1, "image.png: is stored as"),
        (["model.keras", "image.png", "--class", "red"], 2, "--labels FILE"),
        (["model.keras", "image.png", "--class", "7"], 2, "received 7"),
        (["model.keras", "image.png", "--weights", "w.h5"], 2, "holds its own weights"),
        (["MobileNetV2", "image.png", "--weights", "no.h5"], 2, "no such file"),
        (["model.keras", "image.png", "--out", "names.txt/heat.png"], 1, "could not be made"),
        (["model.keras", "image.png", "--out", "image.png"], 2, "one of the inputs"),
        (["model.keras", "image.png", "--out", "mine.png"], 2, "was not written by kfcn"),
        (
            ["model.keras", "image.png", "--out", "picture.xyz"],
            2,
            "picture.xyz: expected a name that ends in",
        ),
        (["model.keras", "image.png", "--output-stride", "3"], 2, "passes through"),
    ],
)
def test_errors_are_one_line(folder, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(folder)
    shutil.copy("names.txt", "names.keras")
    shutil.copy("image.png", "mine.png")
    assert command.main(arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_wrong_number_of_labels(folder, capsys):
    (folder / "names.txt").write_text("red\nblue\ngreen\n")
    arguments = [folder / "model.keras", folder / "image.png", "--labels", folder / "names.txt"]
    assert command.main([str(argument) for argument in arguments]) == 2
    assert "holds 3 labels, the model has 2 classes" in capsys.readouterr().err


def test_images_are_enlarged_until_they_cover():
    image = red_corner(20, 10)
    assert class_heatmaps.enlarge(image, (1, 1)).tolist() == image.tolist()
    assert class_heatmaps.enlarge(image, (16, 16)).shape == (32, 16, 3)
    assert class_heatmaps.enlarge(image, (30, 7), 1.01).shape == (30, 15, 3)
    assert class_heatmaps.enlarge(image, (1, 1), 2).shape == (40, 20, 3)
    row = class_heatmaps.enlarge(np.array([[[0.0], [8.0]]]), (1, 1), 2)[0, :, 0]
    assert row.tolist() == [0, 2, 6, 8]  # pixel centres at 1/4 and 3/4
    for scale in (0, 9, float("nan")):
        with pytest.raises(UsageError, match=f"scale {scale}: expected a number above 0 and at mo"):
            class_heatmaps.enlarge(image, (1, 1), scale)


def test_a_picture_too_narrow_to_enlarge(folder, capsys):
    """To 16 x 8000 pixels it would come, of 1500; 16 x 512 of 8 x 256 is well."""
    assert class_heatmaps.enlarge(np.zeros((8, 256, 3)), (16, 16)).shape == (16, 512, 3)
    with pytest.raises(UsageError, match=r"3x500 pixels .* come to 16x2667; crop it, or pad"):
        class_heatmaps.enlarge(np.zeros((3, 500, 3)), (16, 16))
    # Nothing has to be enlarged: the size is the picture's own, however narrow.
    assert class_heatmaps.enlarge(np.zeros((16, 2000, 3)), (16, 16)).shape == (16, 2000, 3)
    Image.fromarray(red_corner(500, 3)).save(folder / "thin.png")
    arguments = [str(folder / name) for name in ("model.keras", "thin.png")]
    assert command.main([*arguments, "--out", str(folder / "h.png")]) == 2
    error = capsys.readouterr().err
    assert "too narrow to be enlarged to 16x16" in error and error.count("\n") == 1


def test_nets_run_in_a_graph():
    """Else the maps of all layers stay in memory at once: 2 GB of a picture of 1.2 megapixels."""
    eager = []

    class Watch(layers.Layer):
        def call(self, x):
            eager.append(tf.executing_eagerly())
            return x

    inputs = keras.Input((None, None, 3))
    net = keras.Model(inputs, Watch()(layers.Conv2D(2, 1)(inputs)))
    eager.clear()
    assert kfcn.class_heatmap(net, red_corner()).shape == (48, 64, 2)
    assert eager and not any(eager)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_heatmaps_of_mixed_precision_are_float32(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        x = inputs = keras.Input((4, 4, 3))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, padding="same")(x))
        model = keras.Model(inputs, layers.Dense(5)(x))
    finally:
        keras.config.set_dtype_policy(before)
    maps = kfcn.class_heatmap(model, np.random.default_rng(0).normal(size=(9, 8, 3)))
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-6)


def test_the_classes_of_a_runs_card(folder, capsys):
    card = {"classes": ["red", "deep blue"], "palette": [[255, 0, 0], [0, 0, 255]]}
    (folder / "model.json").write_text(json.dumps(card))
    out = ["--class", "blue", "--out", str(folder / "heat.png")]
    picture = str(folder / "image.png")
    for model in (folder, folder / "model.keras"):
        assert command.main([str(model), picture, *out, "--overwrite"]) == 0
        shown = capsys.readouterr().out
        assert [line.split()[0] for line in shown.splitlines()[2:4]] == ["deep", "red"]
    # A file of names goes before the card, and then the card is not looked at.
    (folder / "model.json").write_text(json.dumps(card | {"classes": ["a"], "palette": [[0] * 3]}))
    named = ["--labels", str(folder / "names.txt"), "--overwrite"]
    assert command.main([str(folder), picture, *out, *named]) == 0
    assert "deep" not in capsys.readouterr().out
    assert command.main([str(folder), picture, *out, "--overwrite"]) == 1
    assert "it is the card of another net" in capsys.readouterr().err


def test_the_command_reads_pictures_as_every_command_does(folder, capsys):
    """16 bits, and turned by the camera: the same map as of the upright picture of 8 bits."""
    names = ["--labels", str(folder / "names.txt"), "--out", str(folder / "heat.png")]
    grey = np.full((30, 40), 60, np.uint8)
    grey[:, 20:] = 200
    Image.fromarray(grey).save(folder / "grey8.png")
    Image.fromarray(grey.astype(np.uint16) * 256).save(folder / "grey16.png")
    picture = Image.fromarray(red_corner())
    exif = picture.getexif()
    exif[274] = 6  # to be turned by a quarter
    picture.rotate(90, expand=True).save(folder / "turned.png", exif=exif)
    shown = {}
    for name in ("image.png", "turned.png", "grey8.png", "grey16.png"):
        assert command.main([str(folder / "model.keras"), str(folder / name), *names]) == 0
        shown[name] = capsys.readouterr().out
    assert shown["turned.png"] == shown["image.png"]
    assert shown["grey16.png"] == shown["grey8.png"]
    assert shown["grey8.png"] != shown["image.png"]


def test_help_loads_nothing_heavy():
    code = (
        "import sys, kfcn.commands.heatmap as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    )
    code += "assert not {'keras', 'tensorflow', 'matplotlib', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "kfcn-heatmap" in done.stdout
