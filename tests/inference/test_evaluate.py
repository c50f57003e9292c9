"""Averaging over scales and mirror images, against the same by hand."""

import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from kfcn import evaluate
from kfcn import predict as predict_pictures
from kfcn.cards import data_to_measure, open_model
from kfcn.commands import evaluate as command
from kfcn.commands import heatmap, predict
from kfcn.crf import add_crf
from kfcn.data import Source
from kfcn.errors import DataError, KfcnError, UsageError
from kfcn.inference.protocol import Protocol
from kfcn.inference.segment import image_logits
from kfcn.saved import save_model
from kfcn.training.resolution import resolve
from kfcn.training.run_folder import RunFolder


def net(kernel):
    """Three classes from one convolution; the edges are the only other thing that it sees."""
    inputs = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(3, kernel.shape[:2], padding="same", use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([kernel.astype("float32")])
    return model


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (24, 36, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def lopsided():
    return net(np.random.default_rng(1).normal(0, 0.01, (3, 3, 3, 3)))


def softmax(logits):
    exponents = np.exp(logits.astype("float64"))
    return exponents / exponents.sum(-1, keepdims=True)


def resize(values, size):
    """Pillow's bilinear, which averages where it shrinks, a channel at a time."""
    channels = [
        Image.fromarray(values[..., c].astype("float32")).resize(size[::-1], Image.BILINEAR)
        for c in range(values.shape[-1])
    ]
    return np.stack([np.asarray(c) for c in channels], axis=-1)


def test_a_single_scale_is_the_net_itself(lopsided, image):
    np.testing.assert_array_equal(Protocol().logits(lopsided, image), image_logits(lopsided, image))


def test_equals_the_average_by_hand(lopsided, image):
    """By convolution in NumPy, resizing in Pillow."""
    kernel = lopsided.get_weights()[0].astype("float64")

    def convolve(x):
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
        return np.einsum("hwcij,ijck->hwk", windows, kernel)

    total, size = 0.0, image.shape[:2]
    for scale in (0.5, 1.0, 1.25):
        scaled = resize(image, tuple(round(scale * side) for side in size))
        total = total + softmax(resize(convolve(scaled), size))
        total = total + softmax(resize(convolve(scaled[:, ::-1])[:, ::-1], size))
    found = Protocol((0.5, 1.0, 1.25), flip=True).logits(lopsided, image)
    assert found.dtype == np.float32 and found.shape == (24, 36, 3)
    np.testing.assert_allclose(np.exp(found), total / 6, atol=2e-5)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-5)
    plain = softmax(image_logits(lopsided, image))
    assert np.abs(np.exp(found) - plain).max() > 0.05  # the control
    without = Protocol((0.5, 1.0, 1.25)).logits(lopsided, image)
    assert np.abs(np.exp(found) - np.exp(without)).max() > 0.05


def test_the_mirror_image_tells_a_symmetric_net_nothing_new(lopsided, image):
    kernel = lopsided.get_weights()[0]
    symmetric = net((kernel + kernel[:, ::-1]) / 2)
    flip = Protocol(flip=True)
    plain = softmax(image_logits(symmetric, image))
    np.testing.assert_allclose(np.exp(flip.logits(symmetric, image)), plain, atol=1e-6)
    plain = softmax(image_logits(lopsided, image))
    assert np.abs(np.exp(flip.logits(lopsided, image)) - plain).max() > 0.05  # the control


def test_scales_tell_nothing_new_of_an_even_image(lopsided):
    even = np.full((20, 20, 3), 90, np.uint8)
    found = Protocol((0.75, 1.0, 1.5)).logits(lopsided, even)
    plain = np.log(softmax(image_logits(lopsided, even)))
    inside = slice(6, -6), slice(6, -6)  # the convolution sees zeros beyond the border
    np.testing.assert_allclose(found[inside], plain[inside], atol=1e-5)


@pytest.mark.slow
def test_the_protocol_stands_beside_the_figures(run, pairs, tmp_path, capsys):
    out = tmp_path / "figures.json"
    args = [str(run.run_dir), "--data", "folder", "--data-dir", str(pairs), "--json", str(out)]
    assert command.main([*args, "--flip", "--scales", "0.75", "1"]) == 0
    assert "folder/val, 4 images, scales 0.75 1, flip\n" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert figures["protocol"] == "scales 0.75 1, flip"
    plain = evaluate(run.run_dir, "folder", "val", pairs)
    assert plain.protocol == run.evaluation.protocol == "single scale"
    assert figures["cross_entropy"] != plain.cross_entropy
    assert str(Protocol(flip=True)) == "single scale, flip"


@pytest.mark.parametrize("scales", [(), (0.0, 1.0), (-1.0,), (1.0, 8.1), (float("nan"),)])
def test_scales_that_make_no_sense(scales):
    with pytest.raises(UsageError, match="expected one or more numbers above 0 and at most 8"):
        Protocol(scales)
    assert Protocol((1e-9, 8.0))


@pytest.mark.parametrize(
    ("command", "args"), [(command, ["--scales", "1", "1e9"]), (heatmap, ["--scale", "1e9"])]
)
def test_the_flag_of_an_absurd_scale_is_refused_before_anything_is_opened(command, args, capsys):
    """Neither the model nor the picture is there, and it is not they that are named."""
    with pytest.raises(SystemExit) as stop:
        command.main(["no.keras", *(["no.png", "--out", "x.png"] * (command is heatmap)), *args])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    assert f"{args[0]}: received '1e9'; expected a number above 0 and at most 8" in said


def test_a_picture_that_a_scale_would_make_too_large_is_refused(lopsided, monkeypatch, image):
    """24x36 pixels of three float32 at twice the size are 41472 bytes."""
    doubled = Protocol((1.0, 2.0))
    monkeypatch.setenv("KFCN_IMAGE_MEMORY", "41472")
    assert doubled.logits(lopsided, image).shape == (24, 36, 3)
    monkeypatch.setenv("KFCN_IMAGE_MEMORY", "41471")
    with pytest.raises(
        UsageError, match="scale 2 of 24x36 pixels: 48x72 pixels would take"
    ) as told:
        doubled.logits(lopsided, image)
    assert "KFCN_IMAGE_MEMORY" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("bits", "value", "told"),
    [
        (4, 15, "found label 15; expected 0 to 2 (3 classes) or 255 (ignore); 15 is what 255"),
        (8, 7, "found label 7; expected 0 to 2 (3 classes) or 255 (ignore)"),
    ],
)
def test_a_mask_out_of_range_is_the_audits_line(run, pairs, tmp_path, capsys, bits, value, told):
    root = shutil.copytree(pairs, tmp_path / "pairs")
    mask = sorted((root / "labels" / "val").iterdir())[1]
    with Image.open(mask) as picture:
        labels = np.asarray(picture).copy()
    labels[labels == 255] = value
    picture = Image.fromarray(labels)
    picture.putpalette([0] * 3 * 2**bits)
    picture.save(mask, bits=bits)
    args = [str(run.run_dir), "--data", "folder", "--data-dir", str(root)]
    assert command.main(args) == 1
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert shown.startswith(f"kfcn-evaluate: error: labels/val/{mask.name}: {told}")
    assert ("4 bits" in shown) == (bits == 4)


def test_a_mask_of_another_size_is_the_audits_line(run, pairs, tmp_path, capsys):
    root = shutil.copytree(pairs, tmp_path / "pairs")
    mask = sorted((root / "labels" / "val").iterdir())[0]
    with Image.open(mask) as picture:
        picture.crop((0, 0, 20, 30)).save(mask)
    args = [str(run.run_dir), "--data", "folder", "--data-dir", str(root)]
    assert command.main(args) == 1
    assert "is 30x20 (height x width); expected the same size" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "seed"), [(None, 3), (7, 7), (0, 0)])
def test_a_seed_that_is_given_goes_before_that_of_the_run(tmp_path, given, seed):
    RunFolder(tmp_path).start(resolve(seed=3))
    chosen = data_to_measure(tmp_path, None, seed=given)
    assert (chosen.data, chosen.seed) == ("scenes", seed)


def test_a_part_without_pictures_is_no_figure(run, pairs, capsys):
    arguments = [str(run.run_dir), "--data", "folder", "--data-dir", str(pairs)]
    assert command.main([*arguments, "--split", "val[0/100]"]) == 2
    assert "split 'val[0/100]' has no picture" in capsys.readouterr().err


def test_figures_never_replace_what_the_run_is_read_from(run, pairs, tmp_path, capsys):
    folder = shutil.copytree(run.run_dir, tmp_path / "run")
    before = (folder / "config.json").read_bytes()
    arguments = [str(folder), "--data", "folder", "--data-dir", str(pairs), "--overwrite"]
    assert command.main([*arguments, "--json", str(folder / "config.json")]) == 2
    assert "is one of the inputs" in capsys.readouterr().err
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("shape", "layers", "told"),
    [
        ((28, 28, 3), [keras.layers.Flatten(), keras.layers.Dense(4)], "for classifiers there is"),
        ((None, None, 1), [keras.layers.Conv2D(3, 1)], "expected a single RGB input"),
        ((None, None, 3), [keras.layers.Conv2D(3, 1, strides=2)], "expected one of its size"),
        ((None, None, 3), [keras.layers.Conv2D(1, 1)], "has one output channel (a sigmoid)"),
        (
            (None, None, 3),
            [keras.layers.Conv2D(256, 1)],
            "256 classes; 8-bit label maps hold at most 255",
        ),
        (
            (None, None, 3),
            [keras.layers.Conv2D(3, 1, bias_initializer=keras.initializers.Constant(np.nan))],
            "/bias contains NaN or infinite values",
        ),
    ],
)
def test_a_model_that_labels_no_pixels_is_one_line(tmp_path, capsys, shape, layers, told):
    keras.Sequential([keras.Input(shape), *layers]).save(tmp_path / "other.keras")
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    given = [str(tmp_path / "other.keras"), str(tmp_path / "a.png"), "--out", str(tmp_path / "o")]
    assert predict.main(given) == 1
    err = capsys.readouterr().err
    assert told in err and "Traceback" not in err


class Subclassed(keras.Model):
    def call(self, x):
        return x


def _objects():
    image = keras.Input((None, None, 3))
    grey = keras.Input((None, None, 1))
    scores = keras.layers.Conv2D(2, 1)(image)
    return {
        "for classifiers there is kfcn-heatmap": keras.Model(
            image, keras.layers.GlobalAveragePooling2D()(scores)
        ),
        "is a Subclassed without symbolic inputs": Subclassed(name="mine"),
        "is a Sequential without symbolic inputs": keras.Sequential([keras.layers.Conv2D(2, 1)]),
        "expected a single map": keras.Model(image, [scores, scores]),
        "expected a single RGB input": keras.Model(grey, keras.layers.Conv2D(2, 1)(grey)),
        "has one output channel": keras.Model(image, keras.layers.Conv2D(1, 1)(image)),
    }


@pytest.mark.parametrize("told", _objects())
def test_a_model_object_that_labels_no_pixels_is_one_line(told, pairs, tmp_path):
    model = _objects()[told]
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    for call in (
        lambda: predict_pictures(model, tmp_path / "a.png", tmp_path / "o"),
        lambda: evaluate(model, Source("folder", pairs)),
    ):
        with pytest.raises(KfcnError) as caught:
            call()
        assert told in str(caught.value) and f"the model {model.name!r}" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_net_of_no_numbers_is_not_measured(lopsided, pairs):
    """The weights are numbers, and what they make of pixels of 0 to 255 is none."""
    source = Source("folder", pairs, classes=None)
    large = net(np.full((1, 1, 3, 3), 3e38))
    with pytest.raises(KfcnError, match="produced NaN or infinite logits"):
        evaluate(large, source)
    assert np.isfinite(evaluate(lopsided, source).cross_entropy)


def test_a_split_without_a_labelled_pixel_is_no_figure(lopsided, pairs, tmp_path):
    root = shutil.copytree(pairs, tmp_path / "pairs")
    for mask in (root / "labels" / "val").iterdir():
        with Image.open(mask) as picture:
            Image.new("L", picture.size, 255).save(mask)
    with pytest.raises(
        DataError, match=r"folder/val: no labelled pixel in \d+ images, all are 255"
    ):
        evaluate(lopsided, "folder", data_dir=root)


def test_a_run_is_measured_on_its_own_data_from_python_too(run, pairs, tmp_path, capsys):
    result = evaluate(run.run_dir)
    assert command.main([str(run.run_dir)]) == 0
    assert result.table() in capsys.readouterr().out
    assert (
        result.data == "folder/val"
        and result.as_dict() == evaluate(run.run_dir, "folder", data_dir=pairs).as_dict()
    )


def test_figures_never_replace_what_the_data_are_read_from(run, pairs, tmp_path, capsys):
    root = shutil.copytree(pairs, tmp_path / "pairs")
    before = (root / "classes.txt").read_bytes()
    arguments = [str(run.run_dir), "--data-dir", str(root), "--overwrite", "--json"]
    assert command.main([*arguments, str(root / "classes.txt")]) == 2
    assert "already exists and was not written by kfcn" in capsys.readouterr().err
    assert (root / "classes.txt").read_bytes() == before
    for _ in range(2):  # its own figures are replaced there as well
        assert command.main([*arguments, str(root / "figures.json")]) == 0


def test_a_sequential_net_is_as_good_as_any(tmp_path):
    net = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(3, 3, padding="same")]
    )
    net.save(tmp_path / "net.keras")
    Image.new("RGB", (28, 20), (200, 30, 90)).save(tmp_path / "a.png")
    for model in (tmp_path / "net.keras", net):
        predict_pictures(model, tmp_path / "a.png", tmp_path / "out")
        with Image.open(tmp_path / "out/a.png") as labels:
            found = np.asarray(labels)
        image = np.full((1, 20, 28, 3), (200, 30, 90), "float32")
        np.testing.assert_array_equal(found, np.asarray(net(image))[0].argmax(-1))


def test_a_net_with_a_crf_gets_no_second_one(tmp_path):
    image = keras.Input((None, None, 3))
    net = add_crf(keras.Model(image, keras.layers.Conv2D(3, 1)(image)))
    save_model(net, tmp_path / "model.keras")
    with pytest.raises(UsageError, match="has a CRF already"):
        open_model(tmp_path / "model.keras", crf=True)


def test_other_files_than_the_run_was_validated_on_are_told(run, pairs, tmp_path, capsys):
    """As where a folder that is named from here is another one there."""
    assert command.main([str(run.run_dir)]) == 0
    assert "other files" not in capsys.readouterr().err
    root = shutil.copytree(pairs, tmp_path / "data")
    for kind in ("images", "labels"):
        sorted((root / kind / "val").iterdir())[0].unlink()
    assert command.main([str(run.run_dir), "--data-dir", str(root)]) == 0
    assert "val of " in (err := capsys.readouterr().err) and "holds other files than" in err
