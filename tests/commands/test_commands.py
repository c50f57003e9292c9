"""The commands as a person calls them: in a process of their own."""

import functools
import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

BIN = Path(sys.executable).parent
COMMANDS = [
    "train", "launch", "evaluate", "predict", "data", "heatmap", "tune-crf", "convert", "validate",
    "serve",
]  # fmt: skip

NO_TEXT = str(Path(__file__).parents[2] / "kfcn/nets/efficientnet_lite0.npz")
SHIP = ("--size", "64", "64", "--data", "scenes", "--facts", "nothing.json")


def call(name, *args, cwd=None):
    return subprocess.run(
        [BIN / f"kfcn-{name}", *map(str, args)],
        capture_output=True, text=True, timeout=240, cwd=cwd,
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_the_flags(name):
    done = call(name, "--help")
    assert done.returncode == 0
    assert "usage:" in done.stdout and "--version" in done.stdout


def loaded_by(name, *args, cwd=None):
    """Which heavy packages a command has imported when it ends; its code, errors and output."""
    script = (BIN / f"kfcn-{name}").read_text().replace("sys.exit(main())", "code = main()")
    code = (
        f"import sys; sys.argv = ['x', *{list(map(str, args))}]\n"
        "try:\n    exec(compile(open(0).read(), 'x', 'exec'))\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, *{'tensorflow', 'keras', 'numpy', 'cv2', 'PIL', 'matplotlib', 'jax'} "
        "& set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=script, capture_output=True, text=True, timeout=60, cwd=cwd,
    )  # fmt: skip
    *errors, last = done.stderr.splitlines()
    code, *names = last.split()
    return set(names), code, errors, done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_heavy(name):
    """What makes it answer in under a second; the time itself is not for a test."""
    names, code, _, output = loaded_by(name, "--help")
    assert code in ("0", "None") and "usage:" in output
    # A device has NumPy, and little else.
    assert not names - ({"numpy"} if name in ("validate", "serve") else set())


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("train", "--data", "folder"), "name it with --data-dir"),
        (("train", "--data", "folder", "--data-dir", "nowhere"), "nowhere: no such folder"),
        (("train", "--arch", "fcn64s"), "--arch: received 'fcn64s'"),
        (("evaluate", "nothing.keras"), "nothing.keras: no such file"),
        (("evaluate", "voc_animals", "--data", "folder", "--data-dir", "x"), "x: no such folder"),
        (("predict", "nothing.keras", "x.png", "--out", "o"), "nothing.keras: no such file"),
        (("heatmap", "EfficientNetLite0", "x.png"), "x.png: cannot be read as an image (no such"),
        (("tune-crf", "nothing.keras"), "nothing.keras: no such file"),
        (("data", "next", "nothing.keras", ".", "--out", "o"), "nothing.keras: no such file"),
        (("data", "check", "folder", "--data-dir", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_what_is_not_there_is_told_before_tensorflow_is_imported(args, told, tmp_path):
    names, code, (error,), _ = loaded_by(*args, cwd=tmp_path)
    assert told in error
    assert code in ("1", "2")
    assert not names & {"tensorflow", "keras", "jax"}


def test_what_looks_for_a_folder_opens_no_data():
    """TFDS would download here, and start TensorFlow before its devices are set up."""
    code = (
        "import sys; from kfcn.data.catalog import check_place; check_place('pet', None)\n"
        "assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_data_set_of_files_is_checked_without_tensorflow(pairs, tmp_path):
    names, code, *_ = loaded_by("data", "check", "folder", "--data-dir", pairs, cwd=tmp_path)
    assert code == "0" and (tmp_path / "check-folder/check.json").is_file()
    assert "numpy" in names and not names & {"tensorflow", "keras", "jax"}


def test_import_is_light():
    code = "import sys, kfcn; assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        (("train", "--data", "moon"), 2, "--data: received 'moon'; expected one of scenes"),
        (("train", "--data", "camvid"), 2, "--data-dir"),
        (("evaluate", "nothing.keras"), 2, "nothing.keras: no such file"),
        (("predict", "nothing.keras", "x.png", "--out", "o"), 2, "nothing.keras: no such file"),
        (("train", "--arch", "fcn64s"), 2, "--arch: received 'fcn64s'; expected one of fcn32s"),
        (("train", "--out", "run"), 2, "arguments: --out run; did you mean --output-stride? ("),
        (("data", "check", "voc", "--clases=a"), 2, "--clases=a; did you mean --classes? ("),
        (("train", "--zzz"), 2, "arguments: --zzz (kfcn-train --help"),
    ],
)
def test_errors_are_one_line(args, status, told, tmp_path):
    done = call(*args, cwd=tmp_path)
    assert done.returncode == status
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "args", "status", "told"),
    [
        ("predict", ("voc_animals", "x" * 300, "--out", "o"), 1, "File name too long"),
        ("data", ("check", "folder", "--data-dir", "x" * 300), 1, "File name too long"),
        ("predict", ("voc_animals", "x.png", "--out", ""), 2, "received an empty argument"),
        ("launch", ("--workers", "x", "--", "true"), 2, "--workers: received 'x'; expected a"),
        ("export", ("nothing.keras",), 2, "arguments are required: --format, --out"),
        ("validate", ("x" * 300,), 2, f"error: {'x' * 300}/bundle.json: cannot be read (File name"),
    ],
)
def test_hostile_arguments_are_one_line(name, args, status, told, tmp_path):
    done = call(name, *args, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


WRONG = [
    ("results", ("--nope",), 2, "unrecognized arguments: --nope"),
    ("results", ("nothing",), 2, "nothing: expected the folder of a finished run"),
    ("results", ("--store", "s.json", "--out", NO_TEXT), 2, "is not a page of results"),
    ("ship", (), 2, "the following arguments are required: RUN, NAME"),
    ("ship", ("nothing", "n", *SHIP), 2, "nothing.json: No such file or directory"),
    ("port_weights", (), 2, "the following arguments are required: NPZ"),
    ("port_weights", ("nothing.npz", "--out", "o"), 2, "nothing.npz: No such file"),
    ("port_weights", (".", "--out", "o"), 2, ".: is a folder"),
    ("port_weights", (__file__, "--out", "o"), 2, "is not an .npz file: "),
    ("average", ("a", "b"), 2, "the following arguments are required: --out"),
    (
        "average",
        ("voc_animals", "nyudv2", "--out", "o"),
        2,
        "nyudv2: backbone, classes differ from those of voc",
    ),
]
"""What is asked of a module of kfcn_tools, the exit code, and what is said."""

EACH = """
import json, os, runpy, sys
name, *calls = json.loads(sys.argv[1])
own, said = os.dup(2), []
for number, words in enumerate(calls):
    file = os.open(f"../{number}.txt", os.O_CREAT | os.O_RDWR)
    os.dup2(file, 2)
    sys.argv[1:] = words
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        code = None
    except SystemExit as end:
        code = end.code
    sys.stderr.flush()
    os.dup2(own, 2)
    os.lseek(file, 0, os.SEEK_SET)
    said.append([code, os.read(file, 10_000).decode(), os.listdir(".")])
print(json.dumps(said))
"""
"""Calls a module as `python -m` does, one call after the other, and prints what became of them."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Module, arguments -> exit code, error output, files; the calls of a module in one process.

    The first that needs TensorFlow imports it, which takes most of the time of each.
    """

    @functools.cache
    def of(module):
        calls = [list(args) for name, args, *_ in WRONG if name == module]
        folder = tmp_path_factory.mktemp(module) / "here"
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", EACH, json.dumps([f"kfcn_tools.{module}", *calls])],
            capture_output=True, text=True, cwd=folder, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return dict(zip(map(tuple, calls), json.loads(done.stdout), strict=True))

    return lambda module, args: of(module)[args]


@pytest.mark.parametrize(
    ("module", "args", "told"),
    [
        ("kfcn_tools.convert.command", "M --size x 64", "--size: received 'x'; expected a whole"),
        ("kfcn_tools.convert.command", "M --golden 1.5", "--golden: received '1.5'; expected a"),
        ("kfcn_tools.convert.command", "M --calibration x", "--calibration: received 'x'; exp"),
        ("kfcn_tools.convert.command", "M --qat-epochs x", "--qat-epochs: received 'x'; expec"),
        ("kfcn_tools.convert.command", "M --min-agreement nan", "received 'nan'; expected a num"),
        ("kfcn_tools.convert.command", "M --quantize int9",
         "--quantize: received 'int9'; expected one of float32, "),
        ("kfcn_tools.export.command", "M --calibration x", "--calibration: received 'x'; exp"),
        ("kfcn_tools.export.command", "M --format tflite",
         "--format: received 'tflite'; expected one of saved_model, "),
        ("kfcn.commands.data", "next M I --count x", "--count: received 'x'; expected a whole"),
        ("kfcn.commands.data", "suspects scenes --folds x", "--folds: received 'x'; expected a"),
        ("kfcn.commands.data", "chek scenes", "received 'chek'; expected one of check, "),
        ("kfcn.commands.heatmap", "M i.png --preprocess x",
         "--preprocess: received 'x'; expected one of none, "),
        ("kfcn.commands.launch", "--workers 0 -- true",
         "--workers: received '0'; expected a whole number of at least 1"),
    ],
)  # fmt: skip
def test_numbers_and_choices_are_refused_in_the_same_words(module, args, told, capsys):
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(module).parser().parse_args(args.split())
    said = capsys.readouterr().err
    assert stop.value.code == 2 and told in said and said.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("module", "args", "status", "told"), WRONG)
def test_what_makes_the_package_says_its_errors_in_one_line(answers, module, args, status, told):
    code, said, files = answers(module, args)
    assert code == status, said
    assert said.startswith(f"python -m kfcn_tools.{module}: error: ")
    assert told in said and said.count("\n") == 1
    assert not files


@pytest.mark.skipif(os.name == "nt", reason="pipes of another kind")
def test_output_that_nobody_reads_is_no_traceback():
    """As behind `| head`, which ends when it has seen enough."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [BIN / "kfcn-train", "--recipe", "list"],
        stdout=write, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 141 and not done.stderr


def test_no_library_says_a_word_of_its_own(tmp_path):
    """LiteRT tells which kernels it has, from whichever thread comes first."""
    for name in "abc":
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.png")
    done = call("predict", "voc_animals", "a.png", "b.png", "c.png", "--out", "o", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("voc_animals: ") and done.stdout.count("\n") == 2


@pytest.mark.skipif(os.name == "nt", reason="streams of another kind")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_traceback(closed, tmp_path):
    """As daemons and some schedulers start programs: nothing is said, all is done."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    done = subprocess.run(
        f"{shlex.quote(str(BIN / 'kfcn-predict'))} voc_animals a.png --out out {closed}",
        shell=True, capture_output=True, text=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "Error" not in done.stderr
    assert Image.open(tmp_path / "out/a.png").size == (40, 30)
    assert Image.open(tmp_path / "out/a_overlay.jpg").size == (40, 30)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_output_onto_a_full_disk_is_one_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [BIN / "kfcn-train", "--recipe", "list"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "kfcn-train: error: No space left on device\n"


@pytest.mark.slow
def test_evaluate_prints_and_writes_the_same(run, pairs, tmp_path):
    out = tmp_path / "figures.json"
    done = call("evaluate", run.run_dir, "--data", "folder", "--data-dir", pairs, "--json", out)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert f"{100 * figures['mean_iou']:.2f}" in done.stdout
    assert figures["mean_iou"] == pytest.approx(run.evaluation.scores["mean_iou"], abs=1e-6)
    assert set(figures["class_iou"]) == {"ground", "square", "disc"}


def test_predict_reports_the_unreadable_and_does_the_rest(run, pairs, tmp_path):
    shutil.copytree(pairs / "images" / "val", tmp_path / "in")
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    done = call("predict", run.run_dir, tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "broken.png" in done.stderr
    assert "4 pictures segmented" in done.stdout
    assert len(list((tmp_path / "out").glob("[!.]*"))) == 8


@pytest.mark.long
def test_the_default_run_learns_the_scenes(tmp_path):
    """`kfcn-train` with nothing else."""
    done = subprocess.run(
        [BIN / "kfcn-train"], capture_output=True, text=True, timeout=1500, cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "runs/scenes-fcn8s/model.json").read_text())
    assert card["metrics"]["mean_iou"] >= 0.80
