"""The command, the bundle's files and the layer search."""

import dataclasses
import hashlib
import json
import math
import shutil
import subprocess
import sys

import drawn
import keras
import numpy as np
import pytest
from drawn import write
from kfcn_mobile.bundle import read_bundle
from kfcn_mobile.gates import MODES
from kfcn_mobile.validate import validate
from kfcn_tools.convert import command, convert, metadata, modes
from kfcn_tools.convert import write_bundle as bundle
from kfcn_tools.convert.conversion import _without_eight_bit
from kfcn_tools.convert.fix_size import fix_size
from kfcn_tools.convert.int8 import quantize, sensitivity
from kfcn_tools.convert.options import Int8Options
from kfcn_tools.convert.pictures import Picture
from kfcn_tools.identity import identity
from kfcn_tools.litert import runner
from shipping import CLASSES, PALETTE, SIZE, picture, tiny_bundle, tiny_fcn, tiny_model
from small_nets import net_of_probabilities, u_net

from kfcn.data import Source, load
from kfcn.errors import KfcnError, UsageError
from kfcn.outputs import new_folder
from kfcn.saved import save_model


def test_margin_and_labels_by_hand():
    def model(x, training):
        assert x.dtype == np.float32 and not training
        return np.array([[[[1.0, 4.0, 2.5], [0.5, 0.5, -1.0]]]])

    labels, margin = bundle.keras_labels(model, np.zeros((1, 2, 3), np.uint8))
    assert labels.tolist() == [[1, 0]] and labels.dtype == np.uint8
    assert margin.tolist() == [[1.5, 0.0]]


def test_bundle_holds_what_it_says():
    path = tiny_bundle()
    info = json.loads((path / "bundle.json").read_text())
    on_disk = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert on_disk == info["files"].keys() | {"bundle.json"}
    for name, expected in info["files"].items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == expected
    read = read_bundle(path)
    assert read.classes == tuple(CLASSES) and read.palette.tolist() == PALETTE
    labels, margin = bundle.keras_labels(tiny_model(), picture(201))
    golden = read.golden[1]
    assert golden.name == "val/201.png"
    np.testing.assert_array_equal(golden.image, picture(201))
    np.testing.assert_array_equal(golden.labels, labels)
    np.testing.assert_allclose(golden.margin, margin, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(golden.truth[:8], 255)
    np.testing.assert_array_equal(golden.truth[8:-8], labels[8:-8])


def test_golden_images_have_names_of_their_own(tmp_path):
    """Also where records share the name of a file: reports go by it."""
    shots = [Picture(picture(seed), None, name) for seed, name in enumerate("abaa")]
    entries = bundle.write_golden(tmp_path, tiny_model(), shots)
    assert [entry["name"] for entry in entries] == ["a", "b", "a (2)", "a (3)"]


def test_an_interrupted_conversion_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as folder:
        (folder / "float32.tflite").write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_killed_conversion_leaves_no_bundle(tmp_path):
    code = (
        "import sys, time\nfrom kfcn.outputs import new_folder\n"
        "with new_folder(sys.argv[1]) as f:\n"
        "    (f / 'int8.tflite').write_bytes(b'half'); print('writing', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_touched(tmp_path):
    with pytest.raises(UsageError, match="exists already"), new_folder(tmp_path):
        pass


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    save_model(tiny_fcn(classes=7), path / "model.keras")
    classes = load("scenes", "val").classes
    card = {"classes": list(classes.names), "palette": [list(c) for c in classes.palette]}
    (path / "model.json").write_text(json.dumps(card))
    return path


def arguments(run_folder, out, *more):
    fixed = ["--size", "48", "64", "--data", "scenes", "--calibration", "8", "--golden", "2"]
    return [str(run_folder), *fixed, "--out", str(out), *more]


@pytest.mark.slow
def test_command_writes_a_bundle_that_validates(run_folder, tmp_path, capsys):
    from kfcn_mobile.validate import main as validate

    out = tmp_path / "bundle"
    assert command.main(arguments(run_folder, out, "--quantize", "float32")) == 0
    assert "wrote" in capsys.readouterr().out
    assert validate([str(out), "--runs", "0"]) == 0
    info = json.loads((out / "bundle.json").read_text())
    source = hashlib.sha256((run_folder / "model.keras").read_bytes()).hexdigest()
    assert info["source"]["sha256"] == source
    inside = metadata.read((out / "float32.tflite").read_bytes())
    assert inside["classes"][1] == "disc" and inside["size"] == [48, 64]
    assert inside["source"]["sha256"] == source and inside["mode"] == "float32"
    # Golden images come from the validation split.
    assert [g["name"] for g in info["golden"]] == [load("scenes", "val")[i].name for i in (0, 99)]
    # The scores of the second file lead to the same labels.
    golden = read_bundle(out).golden[0]
    logits = runner(out / "scores_float32.tflite")(golden.image)
    np.testing.assert_array_equal(logits.argmax(-1), golden.labels)


@pytest.mark.slow
def test_a_net_with_a_crf_becomes_a_bundle_that_validates(run_folder, tmp_path, capsys):
    from kfcn_mobile.validate import main as validate

    from kfcn import add_crf
    from kfcn.saved import load_model

    model = add_crf(load_model(run_folder), theta_alpha=20.0, theta_beta=20.0, test_iterations=3)
    folder = tmp_path / "run"
    folder.mkdir()
    save_model(model, folder / "model.keras")
    shutil.copy(run_folder / "model.json", folder)
    out = tmp_path / "bundle"
    assert command.main(arguments(folder, out, "--quantize", "float32")) == 0
    info = json.loads((out / "bundle.json").read_text())
    assert info["models"][0]["operators"]["UNIQUE"] > 0
    assert validate([str(out), "--runs", "0"]) == 0
    # The CRF was at work: the net alone labels otherwise.
    golden = read_bundle(out).golden[0]
    alone = bundle.keras_labels(load_model(run_folder), golden.image)[0]
    assert (alone != golden.labels).any()
    # Of "all" it has the float modes; asked for by name, 8 bits are refused.
    floats = ["float32", "float16", "dynamic"]
    assert _without_eight_bit(model, None) == floats
    capsys.readouterr()
    assert command.main(arguments(folder, tmp_path / "more", "--quantize", "int8")) == 2
    assert "ends in a CRF, which cannot be computed in 8 bits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data", "camvid"], "camvid is read from a folder"),
        (["--size", "8", "64"], "expected at least 32"),
        (["--golden", "0"], "golden 0: expected at least 1"),
        (["--min-agreement", "99"], "expected a share"),
        (["--quantize", "float32", "--equalize"], "equalize: for int8 and mixed; received the mod"),
    ],
)
def test_bad_requests_are_one_line_and_exit_code_2(run_folder, tmp_path, capsys, change, message):
    assert command.main(arguments(run_folder, tmp_path / "out", *change)) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_is_converted_with_its_own_data_and_splits(run_folder, tmp_path, capsys):
    """On the pictures of its training and validation, whatever the splits are called."""
    names = load("scenes", "val").classes.names
    for split, count in (("fit", 6), ("dev", 3), ("val", 1)):
        masks = [drawn.mask(255)] * count
        drawn.folder(tmp_path / "data", masks, "\n".join(names) + "\n", split)
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    settings = {"data": "folder", "data_dir": str(tmp_path / "data"), "seed": 0, "classes": None}
    settings |= {"train_split": "fit", "val_split": "dev"}
    write(folder / "config.json", json.dumps({"settings": settings, "data": {}}))
    more = ["--size", "48", "64", "--quantize", "float32", "--out", str(tmp_path / "out")]
    assert command.main([str(folder), *more]) == 0
    info = json.loads((tmp_path / "out/bundle.json").read_text())
    assert info["data"] == {"name": "folder", "calibration_split": "fit", "golden_split": "dev"}
    assert len(info["golden"]) == 3
    # A data set that is named has its own: there is no train here.
    capsys.readouterr()
    named = ["--data", "folder", "--data-dir", settings["data_dir"]]
    assert command.main([str(folder), *more[:-1], str(tmp_path / "other"), *named]) == 2
    assert "split 'train'" in capsys.readouterr().err
    # Without a run and a data set there is nothing to calibrate on.
    assert command.main([str(run_folder), *more[:-1], str(tmp_path / "other")]) == 2
    assert "does not say what it was trained on; name it with --data" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_model_without_a_card_fails(run_folder, tmp_path, capsys):
    (tmp_path / "model.keras").write_bytes((run_folder / "model.keras").read_bytes())
    assert command.main(arguments(tmp_path / "model.keras", tmp_path / "out")) == 1
    assert "no model.json beside the model" in capsys.readouterr().err


@pytest.mark.slow
def test_golden_images_are_read_as_the_card_says(tmp_path, capsys):
    for split in ("train", "val"):
        drawn.folder(tmp_path / "data", [drawn.mask(255)] * 4, "background\ncell\n", split)
    save_model(tiny_fcn(classes=2), tmp_path / "model.keras")
    card = {
        "classes": ["background", "cell"], "palette": [[0, 0, 0], [128, 0, 0]],
        "reading": {"ignore": "none"},
    }  # fmt: skip
    write(tmp_path / "model.json", json.dumps(card))

    source = ["--data", "folder", "--data-dir", str(tmp_path / "data")]
    counts = ["--calibration", "4", "--golden", "1", "--quantize", "float32"]
    args = [str(tmp_path / "model.keras"), "--size", "48", "64", *source, *counts]
    assert command.main([*args, "--out", str(tmp_path / "out")]) == 0
    truth = read_bundle(tmp_path / "out").golden[0].truth
    assert set(np.unique(truth).tolist()) == {0, 1}
    assert command.main([*args, "--out", str(tmp_path / "other"), "--ignore", "255"]) == 2
    assert "the net was trained with --ignore none" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_fewer_pictures_than_8_bits_need_are_refused(tmp_path):
    for split, count in (("train", 3), ("val", 1)):
        drawn.folder(tmp_path / "data", [drawn.mask()] * count, split=split)
    source = Source("folder", tmp_path / "data")
    with pytest.raises(UsageError, match="train has 3 pictures; 8 bits are calibrated on at leas"):
        convert(tiny_fcn(classes=2), tmp_path / "out", (48, 64), data=source, golden=1)
    assert not (tmp_path / "out").exists()


def test_no_modes_are_refused_before_the_work(tmp_path):
    with pytest.raises(UsageError, match="no modes: expected one or more of float32, float16"):
        convert(tiny_fcn(classes=7), tmp_path / "out", (48, 64), data="scenes", modes=[])


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_pictures_is_refused_in_float_too(tmp_path, split):
    for name, masks in (("train", [drawn.mask()]), ("val", [drawn.mask()])):
        drawn.folder(tmp_path / "data", [] if name == split else masks, split=name)
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind / split).mkdir(exist_ok=True)
    asked = {"data": Source("folder", tmp_path / "data"), "modes": ["float32"]}
    with pytest.raises(UsageError, match=f"{split} has no pictures; expected at least one"):
        convert(tiny_fcn(classes=2), tmp_path / "out", (48, 64), **asked)
    assert not (tmp_path / "out").exists()


def test_what_a_bundle_cannot_hold_is_refused_before_the_work(tmp_path):
    drawn.folder(tmp_path / "data", [drawn.mask()], split="train")
    drawn.folder(tmp_path / "data", [drawn.mask()], split="val")
    source = Source("folder", tmp_path / "data")
    asked = {"data": source, "golden": 1, "calibration": 4, "modes": ["float32"]}
    with pytest.raises(UsageError, match="min_agreement: for mixed, whose search it ends"):
        convert(
            tiny_fcn(classes=2),
            tmp_path / "out",
            (48, 64),
            **{**asked, "modes": ["int8"], "int8": Int8Options(min_agreement=0.5)},
        )
    (tmp_path / "data/classes.txt").write_text("only\n")
    image = keras.Input((None, None, 3))
    one = keras.Model(image, keras.layers.Conv2D(1, 3, padding="same")(image))
    with pytest.raises(KfcnError, match="has one output channel"):
        convert(one, tmp_path / "out", (48, 64), **asked)
    flat = keras.layers.GlobalAveragePooling2D()(image)
    with pytest.raises(KfcnError, match="for classifiers there is kfcn-heatmap"):
        convert(keras.Model(image, flat), tmp_path / "out", (48, 64), **asked)
    assert not (tmp_path / "out").exists()


def test_the_tables_and_the_help_speak_of_the_same_modes():
    assert list(modes.WAYS) == list(MODES)
    text = " ".join(command.parser().format_help().split())
    for name, mode in MODES.items():
        assert f"{name}: {mode.help}" in text


def test_the_help_tells_the_defaults_that_hold():
    shown = " ".join(command.parser().format_help().split())
    words = {False: "off", True: "on"}
    for field in dataclasses.fields(Int8Options):
        value = field.default
        told = words[value] if isinstance(value, bool) else value
        (action,) = (a for a in command.parser()._actions if a.dest == field.name)
        assert f"({told})" in action.help and " ".join(action.help.split()) in shown


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom kfcn_tools.convert.command import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_fewer_golden_images_than_wanted_are_told_with_the_reason(tmp_path):
    masks = [np.full((48, 64), 1, np.uint8)] * 4
    root = drawn.folder(tmp_path / "data", masks, "a\nb\nc\n")
    drawn.folder(tmp_path / "data", masks[:2], "a\nb\nc\n", split="val")
    for wanted, why in ((4, ", all that val has (4 wanted)"), (2, "")):
        lines = []
        out = convert(
            tiny_fcn(), tmp_path / f"bundle{wanted}", (48, 64), data=Source("folder", root),
            modes=["float16"], golden=wanted, progress=lines.append,
        )  # fmt: skip
        assert lines[-1] == f"golden: 2 images{why}" and len(read_bundle(out).golden) == 2


@pytest.mark.slow
def test_a_notebook_converts_a_net_that_it_has(tmp_path):
    lines = []
    out = convert(
        tiny_fcn(classes=7), tmp_path / "bundle", (48, 64), data="scenes", modes=["float16"],
        calibration=4, golden=1, progress=lines.append,
    )  # fmt: skip
    bundle = read_bundle(out)
    assert bundle.classes == load("scenes", "val").classes.names
    assert [model["mode"] for model in bundle.models] == ["float16"]
    assert [model["file"] for model in bundle.scores] == ["scores_float16.tflite"]
    assert lines == ["float16: converting", "float16: converting scores", "golden: 1 image"]
    # Another net is told from it; the same net is not.
    ours = identity(tiny_fcn(classes=7), load("scenes", "val"))[1]
    assert bundle.info["source"] == ours
    assert identity(tiny_fcn(7, seed=1), load("scenes", "val"))[1] != ours
    with pytest.raises(UsageError, match="the model has 3 classes; scenes has 7"):
        convert(tiny_fcn(), tmp_path / "other", (48, 64), data="scenes")
    with pytest.raises(UsageError, match="mode 'int4': expected float32, float16"):
        convert(tiny_fcn(), tmp_path / "other", (48, 64), data="scenes", modes=["int4"])


@pytest.mark.slow
def test_a_net_that_was_trained_in_half_precision_is_converted_in_float32(tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1, dtype="mixed_bfloat16")(image)
    x = keras.layers.Conv2D(7, 3, padding="same", dtype="mixed_bfloat16")(x)
    out = convert(
        keras.Model(image, x), tmp_path / "bundle", (48, 64), data="scenes", calibration=4,
        golden=2, modes=["float32", "int8"],
    )  # fmt: skip
    report, _ = validate(read_bundle(out), runs=0)
    assert [model["agreement"] > 0.98 for model in report["models"]] == [True, True]
    assert report["models"][0]["agreement"] == 1


@pytest.mark.slow
def test_a_bundle_of_a_net_of_probabilities_holds_logits(tmp_path):
    """Probabilities are never 1 apart: no pixel was confident, and its gate could not fail."""
    model = net_of_probabilities(7, 1 / 32)
    out = convert(model, tmp_path / "bundle", (48, 64), data="scenes", golden=1, modes=["float32"])
    made = read_bundle(out)
    (golden,) = made.golden
    shares = np.asarray(model(golden.image[None].astype(np.float32)))[0, ::8, ::8]
    np.testing.assert_allclose(keras.ops.softmax(golden.logits), shares, atol=1e-5)
    report, _ = validate(made, runs=0)
    assert golden.margin.max() > 1 and report["models"][0]["confident"] == 1
    given = runner(out / "scores_float32.tflite")(golden.image)[::8, ::8]
    np.testing.assert_allclose(keras.ops.softmax(given), shares, atol=1e-5)


def test_a_size_that_the_net_does_not_take_is_told_before_the_work(tmp_path):
    net, image = u_net(7), keras.Input((64, 64, 3))
    fixed = keras.Model(image, net(image), name="fixed")
    for model, size, expected in (
        (net, (33, 48), "33x48; expected .* multiple of 32"),
        (fixed, (96, 96), "96x96; expected the size that it was made for, 64x64"),
    ):
        with pytest.raises(KfcnError, match=f"the model .* cannot compute images of {expected}"):
            convert(model, tmp_path / "bundle", size, data="scenes")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_tflite_cannot_write_is_one_line(tmp_path):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(7, 1)(keras.ops.cast(keras.ops.cast(image, "float16") * 2, "float32"))
    with pytest.raises(KfcnError, match=r"float32: TFLite's converter cannot write the model: "):
        convert(
            keras.Model(image, x), tmp_path / "bundle", (48, 64), data="scenes", modes=["float32"]
        )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def quantizable():
    fixed = fix_size(tiny_model(), *SIZE)
    images = [picture(seed) for seed in range(6)]
    return modes.calibrate(fixed, "labels", images, Int8Options(ranges="min-max"))


@pytest.mark.slow
def test_search_finds_the_layer_that_was_made_bad(quantizable):
    """One layer is given weights in int8 that are far off: it is the one to keep in float."""
    (bad,) = [n for n in quantizable.rounded if "/block4_project" in n.split(";")[0]]
    rows, bias = quantizable.rounded[bad]
    rounded = quantizable.rounded | {bad: (rows[::-1], bias)}
    source = dataclasses.replace(quantizable, rounded=rounded)
    images = [picture(seed) for seed in range(20, 24)]
    expected = [bundle.keras_labels(tiny_model(), image)[0] for image in images]
    good = sensitivity.agreement_of(quantize.quantize_int8(quantizable), images, expected)[0]
    # A net of a tenth of a millisecond is slower by more than a tenth with any layer in float.
    found = sensitivity.search_layers(source, images, expected, good - 0.03, slowest=math.inf)
    assert found.base_agreement < good - 0.1
    (kept,) = [layer for layer in found.kept if layer.tensors == (bad,)]
    assert kept.layer.startswith("block4_project")
    assert found.agreement >= found.target
    again = sensitivity.agreement_of(found.content, images, expected)
    assert again == pytest.approx((found.agreement, found.worst_image))


def test_cost_by_hand():
    assert sensitivity._cost(1.02, 1.05) == pytest.approx(0.08)
    # What makes the file smaller or faster costs the least there is, not less.
    assert sensitivity._cost(0.9, 0.8) == sensitivity._cost(1, 1) == 0.01


def test_search_keeps_nothing_where_int8_is_enough(quantizable):
    images = [picture(20)]
    expected = [bundle.keras_labels(tiny_model(), image)[0] for image in images]
    found = sensitivity.search_layers(quantizable, images, expected, target=0.2)
    assert found.kept == ()
    assert found.agreement == found.base_agreement
    assert found.content == quantize.quantize_int8(quantizable)


@pytest.mark.long
def test_all_modes_of_a_mobilenet(tmp_path):
    from shipping import settle

    from kfcn import fcn8s

    model = fcn8s(5, "mobilenet_v2", alpha=0.35)
    settle(model)
    images = [picture(seed, (96, 128)) for seed in range(12)]
    made = modes.Conversion(model, (96, 128), images, Int8Options())
    files = modes.convert_modes(made, MODES)
    assert list(files) == list(MODES)
    sizes = {mode: len(content) for mode, (content, _) in files.items()}
    assert sizes["int8"] < sizes["float16"] < sizes["float32"]
