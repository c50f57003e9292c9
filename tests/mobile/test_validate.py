import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import kfcn_mobile
import numpy as np
import pytest
from kfcn_mobile import outputs as mobile_outputs
from kfcn_mobile.bundle import BundleError, read_bundle
from kfcn_mobile.errors import TargetError
from kfcn_mobile.report.table import table
from kfcn_mobile.targets import Outcome
from kfcn_mobile.targets.host import Host, cores
from kfcn_mobile.validate import main, validate, validate_model
from PIL import Image
from processes import small_disk
from shipping import describe, rewrite, tiny_bundle

from kfcn import outputs

FAST = ["--runs", "2", "--warmup", "1", "--threads", "1"]
# A net with random weights is unsure of most pixels: int8 changes many of them.
LOOSE = ["--min-agreement", "0.5", "--min-image", "0.5", "--min-confident", "0.5"]


@pytest.fixture
def bundle(tmp_path):
    return Path(shutil.copytree(tiny_bundle(), tmp_path / "bundle"))


@pytest.mark.slow
def test_report_of_a_good_bundle(bundle, tmp_path, capsys):
    report_file = tmp_path / "out" / "report.json"
    assert main([str(bundle), *FAST, *LOOSE, "--report", str(report_file)]) == 0
    report = json.loads(report_file.read_text())
    float32, int8 = report["models"]
    assert (float32["mode"], int8["mode"]) == ("float32", "int8")
    assert float32["agreement"] == 1.0
    assert len(float32["images"]) == 3
    assert float32["bytes"] == (bundle / "float32.tflite").stat().st_size
    assert int8["agreement"] < 1.0
    assert int8["worst_image"] == min(int8["images"], key=lambda image: image["agreement"])
    # The truth is the Keras labels but for the last 8 rows, so neither 0 nor 1.
    assert float32["mean_iou"] == pytest.approx(float32["mean_iou_keras"])
    assert 0 < float32["mean_iou"] < 1
    (latency,) = float32["latency"]
    assert 0 < latency["min_ms"] <= latency["median_ms"] <= latency["p90_ms"]
    assert 0 < latency["model_bytes"] < latency["peak_bytes"]
    page = report_file.with_suffix(".html").read_text()
    assert "http" not in page and 'src="data:image/png' in page
    assert "float32" in capsys.readouterr().out


def test_a_report_repeats_nothing_that_was_only_claimed(bundle, tmp_path):
    def claim(info):
        for model in info["models"]:
            model.update(bytes=7, agreement=1.0, latency=[])

    describe(bundle, claim)
    report_file = tmp_path / "report.json"
    main([str(bundle), *FAST, *LOOSE, "--mode", "int8", "--report", str(report_file)])
    (model,) = json.loads(report_file.read_text())["models"]
    assert model["bytes"] == (bundle / "int8.tflite").stat().st_size
    assert model["agreement"] < 1 and model["latency"]


def test_label_hash_is_that_of_the_keras_labels(bundle, tmp_path):

    report_file = tmp_path / "report.json"
    main([str(bundle), "--mode", "float32", "--runs", "0", "--report", str(report_file)])
    golden = read_bundle(bundle).golden
    expected = hashlib.sha256(b"".join(g.labels.tobytes() for g in golden)).hexdigest()
    assert json.loads(report_file.read_text())["models"][0]["labels_sha256"] == expected


def test_failed_gate_names_the_image_and_draws_it(bundle, tmp_path, capsys):
    """Golden labels of one image are changed: the file no longer agrees with them."""
    name = json.loads((bundle / "bundle.json").read_text())["golden"][1]["labels"]
    labels = np.array(Image.open(bundle / name))
    labels[10:30, 10:30] = (labels[10:30, 10:30] + 1) % 3
    Image.fromarray(labels).save(bundle / name)
    rewrite(bundle, name, (bundle / name).read_bytes())
    pictures = tmp_path / "pictures"
    arguments = [str(bundle), "--mode", "float32", "--runs", "0", "--failures", str(pictures)]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "val/201.png" in error and "needs 99.9900%" in error
    picture = np.array(Image.open(pictures / "disagreement_float32_0001.png"))
    assert picture.shape == (96, 128, 3)
    # The last panel is red in the 20x20 changed pixels and nowhere else.
    assert np.all(picture[48:, 64:] == [255, 0, 80], axis=-1).sum() == 400
    assert main([*arguments, "--min-agreement", "0.9", "--min-confident", "0"]) == 0


class Altered(Host):
    """A target that gets one pixel of the second image wrong."""

    def run(self, bundle, model, timing):
        outcome = super().run(bundle, model, timing)
        outcome.labels[1] = outcome.labels[1].copy()
        outcome.labels[1][0, 0] ^= 1
        return outcome


def test_one_pixel_on_another_target_fails_int8_alone(bundle):
    loose = {"agreement": 0.5, "image": 0.5, "confident": 0.5}
    targets = [Host(), Altered("altered")]
    report, label_maps = validate(read_bundle(bundle), targets, runs=0, limits=loose)
    found = {(m["target"], m["mode"]): m for m in report["models"]}
    assert not report["passed"]
    assert [key for key, m in found.items() if m["failures"]] == [("altered", "int8")]
    against = found["altered", "float32"]["against_first"]
    assert (against["differing"], against["pixels"]) == (1, 3 * 48 * 64)
    assert against["image"] == "val/201.png"
    assert found["host", "int8"]["labels_sha256"] != found["altered", "int8"]["labels_sha256"]
    lines = table(report).splitlines()
    (last,) = [line for line in lines if line.startswith("int8") and line.endswith("(1 px)")]
    assert lines.index(last) == len(lines) - 3
    assert lines[-1] == "kernels: host: XNNPACK; altered: XNNPACK"
    assert set(label_maps) == {(t, m) for t in ("host", "altered") for m in ("float32", "int8")}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="told on Linux only")
def test_cores_are_those_that_the_process_may_use(bundle, monkeypatch):
    """As `taskset` and a container's cpuset leave them, however many the machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5})
    timings = []

    class Noting(Host):
        def run(self, bundle, model, timing):
            timings.append(timing.threads)
            return Outcome([golden.labels for golden in bundle.golden])

    report, _ = validate(read_bundle(bundle), [Noting()], modes=["float32"])
    assert timings == [(1, 3)]
    assert ", 3 cores, " in report["targets"][0]["machine"]
    monkeypatch.delattr(os, "sched_getaffinity")  # other systems
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


BLOCKER = """
import sys

class Blocker:
    allowed = set(sys.stdlib_module_names) | {allowed!r}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Blocker())
from kfcn_mobile.validate import main
sys.exit(main(sys.argv[1:]))
"""
# flatbuffers and the rest of LiteRT's own requirements come with it.
ALLOWED = {"ai_edge_litert", "numpy", "PIL", "flatbuffers", "kfcn_mobile", "__main__"}


def run_copy(bundle, tmp_path, code=None):
    folder = tmp_path / "device"
    shutil.copytree(Path(kfcn_mobile.__file__).parent, folder / "kfcn_mobile")
    command = ["-c", code] if code else ["-m", "kfcn_mobile"]
    command = [sys.executable, *command, str(bundle), *FAST, *LOOSE]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_copy_of_the_folder_runs_with_the_three_packages_only(bundle, tmp_path):
    done = run_copy(bundle, tmp_path, BLOCKER.replace("{allowed!r}", repr(ALLOWED)))
    assert done.returncode == 0, done.stderr
    # Control: the blocker blocks.
    blocked = run_copy(
        bundle, tmp_path / "2", BLOCKER.replace("{allowed!r}", repr(ALLOWED - {"PIL"}))
    )
    assert blocked.returncode != 0 and "blocked: PIL" in blocked.stderr


def test_python_m_kfcn_mobile_from_a_copy(bundle, tmp_path):
    done = run_copy(bundle, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "float32" in done.stdout


@pytest.mark.long
def test_no_file_of_the_folder_one_is_in_is_run(bundle, tmp_path, monkeypatch):
    """A bundle that somebody sent is data, also for whoever goes into it first."""
    folder = Path(shutil.copytree(bundle, tmp_path / "sent"))
    (folder / "numpy.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert main([".", "--runs", "0"]) == 0
    assert not (folder / "ran").exists()


def test_an_environment_that_has_only_the_three(bundle, tmp_path):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "numpy", "pillow", "ai-edge-litert>=2.3,<2.4"]
    subprocess.run(install, check=True)
    for name in ("tensorflow", "keras", "kfcn"):
        # Isolated: the folder of the test run, where kfcn stands, is not searched.
        command = [python, "-I", "-c", f"import {name}"]
        assert b"ModuleNotFoundError" in subprocess.run(command, capture_output=True).stderr
    shutil.copytree(Path(kfcn_mobile.__file__).parent, tmp_path / "kfcn_mobile")
    command = [python, "-m", "kfcn_mobile", bundle, *FAST, *LOOSE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_report_replaces_nothing_of_the_users(bundle, tmp_path, capsys):
    call = [str(bundle), "--mode", "float32", "--runs", "0", "--failures", str(tmp_path / "f")]
    page = tmp_path / "x.html"
    assert main([*call, *LOOSE, "--report", str(page)]) == 0  # named by its page: both are there
    assert json.loads((tmp_path / "x.json").read_text())["passed"]
    assert "<!doctype html>" in page.read_text()
    assert main([*call, *LOOSE, "--report", str(tmp_path / "x.json")]) == 0  # kfcn's own
    page.write_text("my notes")
    before = (tmp_path / "x.json").read_bytes()
    capsys.readouterr()
    for name in ("x.html", "x.json"):
        assert main([*call, *LOOSE, "--report", str(tmp_path / name)]) == 2
        shown = capsys.readouterr()
        assert "x.html already exists and is not as kfcn wrote it" in shown.err
        assert shown.err.count("\n") == 1 and not shown.out  # before any work
    assert page.read_text() == "my notes" and (tmp_path / "x.json").read_bytes() == before
    assert main([*call, *LOOSE, "--overwrite", "--report", str(page)]) == 0
    assert "<!doctype html>" in page.read_text()


@pytest.mark.parametrize("name", ["bundle.json", "bundle.html"])
def test_a_report_never_replaces_what_it_reads(bundle, capsys, name):
    before = (bundle / "bundle.json").read_bytes()
    call = [str(bundle), *FAST, *LOOSE, "--overwrite", "--report", str(bundle / name)]
    assert main(call) == 2
    told = capsys.readouterr().err
    assert "bundle.json already exists" in told and "--overwrite" not in told
    assert (bundle / "bundle.json").read_bytes() == before
    assert main([*call[:-1], str(bundle / "report.json")]) == 0  # beside it there is room


def test_both_packages_keep_one_manifest(tmp_path):
    ours, mobiles = outputs.Outputs(tmp_path), mobile_outputs.Outputs(tmp_path)
    ours.write_text(tmp_path / "a.txt", "one")
    mobiles.write("b.txt", b"two")
    mobiles.check(["a.txt", "b.txt"])
    state = outputs.Outputs(tmp_path).state
    assert state(tmp_path / "a.txt") is state(tmp_path / "b.txt") is outputs.State.OURS
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("mine")
        assert state(tmp_path / name) is outputs.State.CHANGED
        with pytest.raises(mobile_outputs.OutputError, match=f"{name} already exists"):
            mobiles.write(name, b"three")
        assert (tmp_path / name).read_text() == "mine"
    with (
        outputs.one_file(tmp_path / "c.txt"),
        pytest.raises(mobile_outputs.OutputError, match="another command"),
        mobiles.lock("c.txt"),
    ):
        pass
    with pytest.raises(mobile_outputs.OutputError, match="could not be written: File name too"):
        mobiles.write("n" * 256, b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".kfcn.jsonl", "a.txt", "b.txt"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOLCK, "No locks available"), OSError(errno.ENOSYS, ""), NotImplementedError()],
    ids=repr,
)
def test_a_folder_without_locks_is_written_to_and_no_others_lock_is_removed(
    tmp_path, monkeypatch, error
):
    def acquire(self, *args, **kwargs):
        Path(self.lock_file).write_text("another's")
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    ours = mobile_outputs.Outputs(tmp_path)
    with ours.lock("a.txt"):
        ours.write("a.txt", b"one")
    assert (tmp_path / "a.txt").read_text() == "one"
    (lock,) = tmp_path.glob("*.lock")
    assert lock.read_text() == "another's"
    if isinstance(error, OSError):
        monkeypatch.setattr(error, "errno", errno.EROFS)
        with (
            pytest.raises(mobile_outputs.WriteError, match="cannot be written to"),
            ours.lock("a.txt"),
        ):
            pass


def test_a_report_onto_a_full_disk_is_one_line_and_exit_code_1(bundle, tmp_path, capsys):
    with small_disk(tmp_path / "small", "8k") as small:
        assert main([str(bundle), *FAST, *LOOSE, "--report", str(small / "report.json")]) == 1
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"kfcn-validate: error: {small}/report.html could not be written: "
            "No space left on device; free some space"
        )
        assert {path.name for path in small.iterdir()} <= {"report.json", ".kfcn.jsonl"}
        json.loads((small / "report.json").read_text())


@pytest.mark.parametrize("size", ["4k", "32k"])
def test_a_full_disk_of_temporary_files_is_one_line(bundle, tmp_path, capsys, monkeypatch, size):
    """The first has no room for the golden images, the second none for their label maps."""
    with small_disk(tmp_path / "small", size) as small:
        monkeypatch.setattr("tempfile.tempdir", str(small))
        assert main([str(bundle), *FAST, *LOOSE]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"kfcn-validate: error: {small}/kfcn-images-")
        assert ".npy: No space left on device" in last
        assert not list(small.iterdir())


def test_a_mode_that_is_not_there_fails(bundle, capsys):
    assert main([str(bundle), "--mode", "float32", "--mode", "float16", "--runs", "0"]) == 2
    assert "no model of mode float16; it has float32, int8" in capsys.readouterr().err


def test_two_targets_of_one_name_are_refused(bundle):
    with pytest.raises(TargetError, match="host: two targets have this name"):
        validate(read_bundle(bundle), targets=[Host(), Host()], runs=0)


@pytest.mark.parametrize("name", [".", "/", "report"])
def test_a_report_needs_the_name_of_a_file(bundle, capsys, name):
    with pytest.raises(SystemExit):
        main([str(bundle), "--runs", "0", "--report", name])
    assert "expected the name of a file" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [(24, 64), (1, 1), (48, 64, 1)])
def test_label_maps_of_another_shape_are_refused(bundle, wrong):
    found = read_bundle(bundle)
    maps = [np.zeros(wrong, np.uint8)] * len(found.golden)
    with pytest.raises(BundleError, match=r"gives uint8 \(.*; expected uint8 \(\d+, \d+\)"):
        validate_model(found, found.models[0], maps)
    maps = [golden.labels.astype(np.int64) for golden in found.golden]
    with pytest.raises(BundleError, match="gives int64"):
        validate_model(found, found.models[0], maps)
