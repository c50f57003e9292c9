"""Every step from pictures to a proven bundle in processes without what Windows lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from PIL import Image

LIKE = Path(__file__).parent / "windows_like"
CAT = "猫"


def environment():
    paths = [str(LIKE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONWARNDEFAULTENCODING": "1",
        # The code page of a Western Windows: it has no letter for the class below.
        "PYTHONIOENCODING": "cp1252",
    }


# One process for all commands: importing TensorFlow takes most of a command's time here.
DRIVER = """
import importlib, json, sys
for command, *arguments in json.loads(sys.argv[1]):
    code = importlib.import_module(command).main(arguments)
    if code:
        sys.exit(f"{command} ended with {code}")
"""


def run(*commands):
    texts = [[str(part) for part in command] for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(texts)], capture_output=True, env=environment(),
        encoding="cp1252",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("import fcntl", "ModuleNotFoundError: import of fcntl halted"),
        ("import os; os.getuid()", "AttributeError"),
        ("import os; os.open('.', os.O_RDONLY)", "a folder is not opened"),
        ("open('12:30.txt', 'w', encoding='utf-8')", "a name that Windows does not take"),
        ("f = open('a', 'w', encoding='utf-8'); import os; os.replace('a', 'b')", "in use"),
        ("import os; open('a', 'wb').close(); open('b', 'wb').close(); os.rename('a', 'b')",
         "File exists"),
        ("import os; open('a', 'wb').close(); f = open('a', 'rb'); os.fsync(f.fileno())",
         "open for reading only"),
        ("exec(compile('open(\"x\", \"w\")', 'x', 'exec'), {'__name__': 'kfcn.saved'})",
         "EncodingWarning"),
    ],
)  # fmt: skip
def test_what_windows_refuses_is_refused(code, refused, tmp_path):
    """The control: without it the other test would prove nothing."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(),
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert refused in done.stderr


@pytest.fixture(scope="module")
def named_pairs(pairs, tmp_path_factory):
    """The drawn pairs, with a class whose name a Western console cannot print."""
    import shutil

    root = Path(shutil.copytree(pairs, tmp_path_factory.mktemp("named") / "pairs"))
    classes = root / "classes.txt"
    classes.write_text(classes.read_text("utf-8").replace("square", CAT), encoding="utf-8")
    return root


@pytest.mark.slow
def test_train_evaluate_predict_convert_validate(named_pairs, tmp_path):
    data = ["--data", "folder", "--data-dir", named_pairs]
    out, bundle, report = tmp_path / "run", tmp_path / "bundle", tmp_path / "report.json"
    pictures = sorted((named_pairs / "images" / "val").iterdir())
    train = ["kfcn.commands.train", *data, "--arch", "convnet", "--batch-size", "4"]
    train += ["--crop", "32", "40", "--run-dir", out]
    predict = ["kfcn.commands.predict", out, *pictures]
    printed = run(
        [*train, "--epochs", "2"],
        [*train, "--epochs", "2"],  # goes on with the finished run
        ["kfcn.commands.evaluate", out, *data],
        [*predict, "--out", tmp_path / "png"],
        [*predict, "--out", tmp_path / "json", "--format", "labelme"],
        ["kfcn_tools.convert.command", out, *data, "--size", "32", "64", "--quantize", "float32",
         "int8", "--calibration", "4", "--golden", "2", "--out", bundle],
        ["kfcn_mobile.validate", bundle, "--min-agreement", "0.5", "--min-image", "0.5",
         "--min-confident", "0.5", "--runs", "2", "--warmup", "1", "--threads", "1",
         "--report", report],
    )  # fmt: skip
    assert CAT.encode("ascii", "backslashreplace").decode() in printed

    assert json.loads((out / "model.json").read_text("utf-8"))["classes"][1] == CAT
    for picture in pictures:
        with Image.open(tmp_path / "png" / f"{picture.stem}.png") as labels:
            assert labels.mode == "P"
            assert np.array(labels).max() < 3
        stored = json.loads((tmp_path / "json" / f"{picture.stem}.json").read_text("utf-8"))
        check_stored(stored["imagePath"])
        assert (tmp_path / "json" / stored["imagePath"]).resolve() == picture.resolve()
    info = json.loads((bundle / "bundle.json").read_text("utf-8"))
    assert info["classes"][1] == CAT
    golden = [entry["name"] for entry in info["golden"]]
    for name in (*info["files"], *golden, info["source"]["name"]):
        check_stored(name)
    models = json.loads(report.read_text("utf-8"))["models"]
    assert [model["mode"] for model in models] == ["float32", "int8"]
    assert models[0]["agreement"] > 0.999


def check_stored(name):
    """A path in a file means the same on every system."""
    assert "\\" not in name
    assert PureWindowsPath(name).as_posix() == name
    assert not PureWindowsPath(name).drive and not PureWindowsPath(name).root
    assert PureWindowsPath(name).parts == PurePosixPath(name).parts
