"""Files for other runtimes: what they give, what they say, and that a wrong one is not written."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import drawn
import keras
import numpy as np
import pytest
from kfcn_tools.convert.conversion import convert
from kfcn_tools.export import FORMATS, checking, command, export, exporting, saved_model
from kfcn_tools.export.net import Net
from shipping import picture, tiny_fcn, tiny_model
from small_nets import net_of_probabilities, save_colour_run, u_net

from kfcn.data import Source
from kfcn.errors import KfcnError, UsageError
from kfcn.labels import voc_coloured
from kfcn.saved import save_model


def a_net(scores=False):
    model = tiny_model()
    return Net(model, voc_coloured(["a", "b", "c"]), scores, {"kfcn_version": "0"})


def images(batch, size, seed=0):
    return np.stack([picture(seed + index, size) for index in range(batch)])


@pytest.mark.slow
def test_a_saved_model_stands_alone(tmp_path):
    import tensorflow as tf

    out = export(tiny_model(), tmp_path / "out", "saved_model")
    loaded = tf.saved_model.load(str(out))
    for batch, size in ((2, (40, 72)), (3, (33, 47))):
        given = images(batch, size)
        expected = a_net().logits(given).argmax(-1)
        labels = loaded.serve(tf.constant(given))["labels"]
        assert labels.dtype == tf.uint8 and len(np.unique(expected)) > 1
        np.testing.assert_array_equal(labels, expected)
    signature = loaded.signatures["serving_default"]
    ((name, given),) = signature.structured_input_signature[1].items()
    assert (name, given.dtype, given.shape.as_list()) == ("image", tf.uint8, [None, None, None, 3])
    assert {k: v.dtype for k, v in signature.structured_outputs.items()} == {"labels": tf.uint8}
    card = json.loads((out / "assets" / "kfcn.json").read_text())
    assert card["classes"] == ["class 0", "class 1", "class 2"]
    assert card["palette"] == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    described = json.loads((out / "export.json").read_text())
    assert described["source"] == card["source"] and described["output"] == "labels"
    assert [found["shape"] for found in described["checked"]["float32"]] == [
        [2, 192, 256, 3],
        [1, 139, 181, 3],
    ]
    assert "assets/kfcn.json" in described["files"]


@pytest.mark.slow
def test_scores_are_probabilities(tmp_path):
    net = a_net(scores=True)
    saved_model.write(net, tmp_path)
    given = images(1, (48, 64))
    (scores,) = saved_model.opened(net, tmp_path, "saved_model.pb")([given])
    np.testing.assert_allclose(scores, checking.softmax(net.logits(given)), atol=1e-5)
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-5)


@pytest.mark.slow
def test_a_net_of_probabilities_is_no_net_of_logits(tmp_path):
    """Its softmax once more would bring all scores near each other, and agree with Keras'."""
    import tensorflow as tf

    model = net_of_probabilities(3, 1 / 64)
    out = export(model, tmp_path / "out", "saved_model", scores=True)
    given = images(1, (40, 72))
    expected = np.asarray(model(given.astype(np.float32)))
    loaded = tf.saved_model.load(str(out))
    found = loaded.serve(tf.constant(given))["scores"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected - np.asarray(keras.ops.softmax(expected))).max() > 0.1


@pytest.mark.slow
def test_a_u_net_is_checked_at_sizes_that_it_takes(tmp_path):
    keras.utils.set_random_seed(0)
    out = export(u_net(), tmp_path / "out", "saved_model")
    described = json.loads((out / "export.json").read_text())
    found = described["checked"]["float32"]
    assert [each["shape"][1:3] for each in found] == [[192, 256], [128, 160]]
    assert [each["differing"] for each in found] == [0, 0]


def test_a_net_of_one_size_is_refused_in_one_line(tmp_path):
    net, image = u_net(), keras.Input((64, 64, 3))
    fixed = keras.Model(image, net(image), name="fixed")
    refused = r"the model 'fixed' cannot compute images of 192x256; expected the size .*, 64x64"
    for format in ("saved_model", "onnx", "openvino"):
        with pytest.raises(KfcnError, match=refused):
            export(fixed, tmp_path / "out", format)
    with pytest.raises(KfcnError, match=r"cannot compute images of 33x48; .* multiple of 32"):
        export(net, tmp_path / "out", "coreml", size=(33, 48))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_gives_something_else_is_refused():
    net, given = a_net(), [images(1, (40, 56))]
    right = net.logits(given[0]).argmax(-1).astype(np.uint8)
    (found,) = checking.compare(lambda x: [right], net, given)
    assert found["shape"] == [1, 40, 56, 3] and found["pixels"] == 2240
    assert found["differing"] == found["apart"] == 0 and found["largest"] > 1
    checking.require_equal([found], "it")
    wrong = right.copy()
    wrong[0, 3, 4] = (wrong[0, 3, 4] + 1) % 3
    (found,) = checking.compare(lambda x: [wrong], net, given)
    logits = net.logits(given[0])[0, 3, 4]
    assert found["differing"] == 1
    assert found["apart"] == pytest.approx(logits.max() - logits[wrong[0, 3, 4]], rel=1e-5)
    with pytest.raises(KfcnError, match="it labels 1 of 2240 pixels of 40x56 images differently"):
        checking.require_equal([found], "it")
    with pytest.raises(KfcnError, match=r"returns int64 .*; expected uint8 \(1, 40, 56\)"):
        checking.compare(lambda x: [right.astype(int)], net, given)
    scores = a_net(scores=True)
    off = checking.softmax(net.logits(given[0])) + np.float32(2e-3)
    (found,) = checking.compare(lambda x: [off], scores, given)
    with pytest.raises(KfcnError, match=r"probabilities up to 0\.002"):
        checking.require_equal([found], "it")
    off[0, 0, 0, 0] = np.nan
    with pytest.raises(KfcnError, match="the exported file returns values that are not numbers"):
        checking.compare(lambda x: [off], scores, given)
    broken = dataclasses.replace(net, model=keras.models.clone_model(net.model))
    broken.model.set_weights([w * np.nan for w in broken.model.get_weights()])
    with pytest.raises(KfcnError, match="the net returns values that are not numbers"):
        checking.compare(lambda x: [right], broken, given)


def test_more_classes_than_labels_are_refused(tmp_path):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(300, 1)(image))
    with pytest.raises(
        UsageError, match="300 classes; 8-bit label maps hold at most 255; export scores"
    ):
        export(model, tmp_path / "out", "saved_model")
    assert list(tmp_path.iterdir()) == []


def test_what_returns_no_map_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("kfcn.data.Source.open_for", None)  # no data are opened
    image = keras.Input((32, 32, 3))
    classifier = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(image)))
    with pytest.raises(KfcnError, match=r"returns \[\(None, 4\)\]; expected a single map"):
        export(classifier, tmp_path / "out", "saved_model", data="scenes")
    one = keras.Model(image, keras.layers.Conv2D(1, 1)(image))
    with pytest.raises(KfcnError, match="has one output channel"):
        export(one, tmp_path / "out", "saved_model")
    assert list(tmp_path.iterdir()) == []


def test_the_card_of_another_net_and_weights_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    """By both commands, at once: names of other classes, or class 0 everywhere."""
    monkeypatch.setattr("kfcn.data.Source.open_for", None)  # no data are opened
    palette = {"a": (0, 0, 0), "b": (1, 1, 1), "c": (2, 2, 2)}
    other, diverged = tmp_path / "other", tmp_path / "diverged"
    for folder in (other, diverged):
        folder.mkdir()
    save_colour_run(other, palette | {"d": (3, 3, 3)}, np.eye(3), (0, 0, 0))
    save_colour_run(diverged, palette, np.diag([1, np.nan, 1]))
    for run, told in (
        (other, "names 4 classes .*; the net beside it has 3: it is the card of another net"),
        (diverged, "its weight score/kernel contains NaN"),
    ):
        with pytest.raises(KfcnError, match=told):
            export(run, tmp_path / "out", "onnx", data="scenes")
        with pytest.raises(KfcnError, match=told):
            convert(run, tmp_path / "out", (64, 64), data="scenes")
    assert not (tmp_path / "out").exists()


def test_data_are_those_of_the_run_where_a_part_is_named_or_needed(tmp_path, capsys, monkeypatch):
    asked = []

    def stop(*args, data, splits, **more):
        asked.append((data and (data.name, data.data_dir, data.seed), splits))
        raise UsageError("enough")

    monkeypatch.setattr("kfcn_tools.export.exporting.export", stop)
    save_colour_run(tmp_path, {"a": (0, 0, 0), "b": (1, 1, 1), "c": (2, 2, 2)})
    words = [str(tmp_path), "--format", "onnx", "--out", str(tmp_path / "out")]
    assert command.main([*words, "--data-dir", "pairs"]) == 2
    assert "does not say what it was trained on; name it with --data" in capsys.readouterr().err
    settings = {"data": "folder", "data_dir": "x", "seed": 4, "classes": None}
    settings |= {"train_split": "fit", "val_split": "dev"}
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings}))
    for more in ([], ["--data-dir", "y"], ["--quantize", "int8"], ["--data", "camvid"]):
        assert command.main([*words, *more]) == 2
    assert asked == [
        (None, ("train", "val")),
        (("folder", "y", 4), ("fit", "dev")),
        (("folder", "x", 4), ("fit", "dev")),
        (("camvid", None, 0), ("train", "val")),
    ]


def test_nothing_is_written_where_the_check_fails(tmp_path, monkeypatch):
    def shifted(net, folder, file):
        return lambda batches: [
            np.roll(net.logits(given).argmax(-1).astype(np.uint8), 1, axis=2) for given in batches
        ]

    monkeypatch.setattr(saved_model, "opened", shifted)
    with pytest.raises(KfcnError, match=r"saved_model labels .* differently from Keras"):
        export(tiny_model(), tmp_path / "out", "saved_model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_saved_model_that_needs_kfcn_is_found_out(tmp_path):
    """Control of the process without kfcn: it cannot import it."""
    code = saved_model._ALONE.split("import numpy")[0] + "import kfcn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode and "kfcn is not there" in done.stderr
    with pytest.raises(KfcnError, match="does not run without kfcn"):
        saved_model.opened(a_net(), tmp_path, "saved_model.pb")([images(1, (40, 40))])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "caffe"}, "format 'caffe': expected saved_model, onnx, openvino, coreml"),
        ({"format": "saved_model", "quantize": True}, "no int8 file here; expected onnx or openvi"),
        ({"format": "saved_model", "size": (64, 64)}, "takes images of any size; received"),
        ({"format": "onnx", "quantize": True}, r"which data set \(--data NAME\)"),
        ({"format": "coreml"}, r"images of one size: which \(--size H W\)"),
        (
            {"format": "openvino", "quantize": True, "data": "scenes"},
            r"openvino in 8 bits takes images of one size: which \(--size",
        ),
        ({"format": "openvino", "size": (64, 64)}, "takes images of any size; received"),
        ({"format": "coreml", "size": (8, 64)}, "size 8 64: expected at least 32"),
        ({"format": "saved_model", "calibration": 2}, "calibration 2: expected at least 4"),
        ({"format": "saved_model", "data": "moon"}, "unknown data set 'moon'"),
        ({"format": "saved_model", "data": "scenes"}, "has 3 classes; scenes has 7"),
    ],
)
def test_requests_that_make_no_sense(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(UsageError, match=message):
        export(tiny_model(), tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_too_few_pictures_to_calibrate_on_are_told_before_the_work(tmp_path):
    for split, count in (("train", 3), ("val", 1)):
        drawn.folder(tmp_path / "data", [drawn.mask()] * count, split=split)
    source, told = Source("folder", tmp_path / "data"), []
    with pytest.raises(UsageError, match="train has 3 pictures; 8 bits are calibrated on at least"):
        export(
            tiny_fcn(classes=2), tmp_path / "out", "onnx",
            quantize=True, data=source, progress=told.append,
        )  # fmt: skip
    assert not told and not (tmp_path / "out").exists()


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"openvino needs openvino and nncf: pip install 'kfcn\[op"
    ):
        export(tiny_model(), tmp_path / "out", "openvino", quantize=True, data="scenes")


def test_help_names_the_formats_and_loads_nothing_heavy():
    text = " ".join(command.parser().format_help().split())
    for name, kind in FORMATS.items():
        assert f"{name}: {kind.help}" in text
        assert importlib.util.find_spec(f"kfcn_tools.export.{kind.module}")
    code = (
        "import sys\nfrom kfcn_tools.export.command import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_data_set_is_opened_in_the_classes_that_the_net_was_trained_for(tmp_path):
    pytest.importorskip("onnxruntime")
    grouping = "disc, ring"
    wanted = Source("scenes", classes=grouping).open("val").classes
    assert wanted.names == ("background", "disc", "ring")
    save_model(tiny_fcn(classes=3), tmp_path / "model.keras")
    card = {"classes": wanted.names, "palette": wanted.palette}
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(UsageError, match="classes"):  # the control: seven of the data set's own
        export(tmp_path, tmp_path / "out", "onnx", data="scenes")
    (tmp_path / "model.json").write_text(json.dumps(card | {"grouping": grouping}))
    out = export(tmp_path, tmp_path / "out", "onnx", data="scenes")
    described = json.loads((out / exporting.DESCRIPTION).read_text())
    assert described["classes"] == ["background", "disc", "ring"]


def test_the_command(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    save_model(tiny_fcn(classes=7), tmp_path / "model.keras")
    card = {"classes": list("abcdefg"), "palette": [[i, 0, 0] for i in range(7)]}
    (tmp_path / "model.json").write_text(json.dumps(card))
    arguments = [str(tmp_path), "--format", "onnx", "--out", str(tmp_path / "out")]
    assert command.main(arguments) == 0
    assert "float32: 0 of 98304 pixels differ from Keras (2 of 192x256)" in capsys.readouterr().out
    described = json.loads((tmp_path / "out" / exporting.DESCRIPTION).read_text())
    assert described["classes"] == list("abcdefg") and described["palette"][3] == [3, 0, 0]
    assert command.main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
