import hashlib
import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import flatbuffers
import kfcn_mobile
import numpy as np
import pytest
from kfcn_mobile import outputs as mobile_outputs
from kfcn_mobile.bundle import BundleError, read_bundle
from kfcn_mobile.report.table import table
from kfcn_mobile.runner import Segmenter
from kfcn_mobile.targets.host import Host
from kfcn_mobile.validate import main, validate
from PIL import Image
from processes import small_disk
from shipping import tiny_bundle

from kfcn import outputs

FAST = ["--runs", "2", "--warmup", "1", "--threads", "1"]
# A net with random weights is unsure of most pixels: int8 changes many of them.
LOOSE = ["--min-agreement", "0.5", "--min-image", "0.5", "--min-confident", "0.5"]


@pytest.fixture
def bundle(tmp_path):
    return Path(shutil.copytree(tiny_bundle(), tmp_path / "bundle"))


def describe(bundle, change):
    """Changes bundle.json."""
    file = bundle / "bundle.json"
    info = json.loads(file.read_text())
    change(info)
    file.write_text(json.dumps(info))


def rewrite(bundle, name, content):
    """Changes a file and has bundle.json say so."""
    from kfcn_mobile.bundle import sha256

    (bundle / name).write_bytes(content)
    describe(bundle, lambda info: info["files"].update({name: sha256(bundle / name)}))


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


def test_label_hash_is_that_of_the_keras_labels(bundle, tmp_path):
    import hashlib

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


def bad(change):
    return pytest.param(change, id=change.__name__)


def changed_model(bundle):
    with (bundle / "int8.tflite").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x00\x01\x02\x03")
    return "int8.tflite: changed since"


def missing_model(bundle):
    (bundle / "int8.tflite").unlink()
    return "int8.tflite: missing"


def not_a_model(bundle):
    rewrite(bundle, "int8.tflite", b"this is no flatbuffer at all")
    return "int8.tflite: not a TFLite file"


def damaged_model(bundle):
    rewrite(bundle, "int8.tflite", (bundle / "int8.tflite").read_bytes()[:2000])
    return "int8.tflite: LiteRT cannot load it"


def newer_format(bundle):
    describe(bundle, lambda info: info.update(format=2))
    return "bundle.json: bundle format 2"


def unreadable_image(bundle):
    rewrite(bundle, "golden/0001_image.png", b"no picture")
    return "0001_image.png: cannot be read"


def wrong_size_image(bundle):
    Image.new("RGB", (10, 10)).save(bundle / "golden/0001_image.png")
    rewrite(bundle, "golden/0001_image.png", (bundle / "golden/0001_image.png").read_bytes())
    return "0001_image.png: RGB picture of 10x10, expected RGB of 48x64"


def unreadable_margin(bundle):
    rewrite(bundle, "golden/0001_margin.npy", b"no array")
    return "0001_margin.npy: cannot be read"


def pickled_margin(bundle):
    np.save(bundle / "golden/0001_margin.npy", np.array([{}]), allow_pickle=True)
    rewrite(bundle, "golden/0001_margin.npy", (bundle / "golden/0001_margin.npy").read_bytes())
    return "0001_margin.npy: cannot be read"


def outside(bundle):
    describe(bundle, lambda info: info["files"].update({"../secret": "0" * 64}))
    return "'../secret' points outside"


def unlisted_model(bundle):
    describe(bundle, lambda info: info["files"].pop("int8.tflite"))
    return "no sha256 for int8.tflite"


def no_description(bundle):
    (bundle / "bundle.json").unlink()
    return "bundle.json: no such file"


def description_is_no_json(bundle):
    (bundle / "bundle.json").write_text("{")
    return "bundle.json: cannot be read"


def description_lacks_classes(bundle):
    describe(bundle, lambda info: info.pop("classes"))
    return "bundle.json: classes is missing; expected a list of 1 to 255 different names"


def nested_too_deep(bundle):
    (bundle / "bundle.json").write_text("[" * 200_000 + "]" * 200_000)
    return "bundle.json: cannot be read (its values are nested too deep)"


def description_is_a_pipe(bundle):
    (bundle / "bundle.json").unlink()
    os.mkfifo(bundle / "bundle.json")
    return "bundle.json: no such file"


def description_is_a_list(bundle):
    (bundle / "bundle.json").write_text("[1, 2]")
    return "bundle.json: expected a JSON object, received [1, 2]"


def margin_of(value):
    def change(bundle):
        file = bundle / "golden/0001_margin.npy"
        margin = np.load(file)
        margin[3, 4] = value
        np.save(file, margin)
        rewrite(bundle, "golden/0001_margin.npy", file.read_bytes())
        return "0001_margin.npy: a margin is not a number of 0 or more"

    change.__name__ = f"margin_of_{value}"
    return change


def margin_that_the_file_cannot_hold(bundle):
    """Its header asks for two terabytes."""
    head = "{'descr': '<f2', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    head = head.ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()
    rewrite(bundle, "golden/0001_margin.npy", content)
    return "0001_margin.npy: cannot be read"


def keras_labels_ignore(bundle):
    file = bundle / "golden/0001_labels.png"
    Image.new("L", (64, 48), 255).save(file)
    rewrite(bundle, "golden/0001_labels.png", file.read_bytes())
    return "0001_labels.png: a label is not below 3"


def endless_picture(bundle):
    """A bomb: little to read, four gigabytes to decode."""
    file = bundle / "golden/0001_image.png"
    with file.open("r+b") as opened:
        opened.seek(16)
        header = (36_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
        opened.write(header + zlib.crc32(b"IHDR" + header).to_bytes(4, "big"))
    rewrite(bundle, "golden/0001_image.png", file.read_bytes())
    return "0001_image.png: "


def link_to_the_outside(bundle):
    (bundle.parent / "secret").write_text("secret")
    (bundle / "golden/extra").symlink_to(bundle.parent / "secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    describe(bundle, lambda info: info["files"].update({"golden/extra": digest}))
    return "golden/extra: is a link that points outside"


def folder_that_is_a_link(bundle):
    (bundle / "golden").rename(bundle.parent / "elsewhere")
    (bundle / "golden").symlink_to(bundle.parent / "elsewhere")
    return "is a link that points outside"


def address_as_a_name(bundle):
    name = "http://example.org/x.tflite"
    describe(bundle, lambda info: info["files"].update({name: "0" * 64}))
    return f"{name!r} points outside the folder"


def makes_litert_crash(bundle):
    """A right hash, a sound flatbuffer, and a segmentation fault when it is prepared."""
    from ai_edge_litert import schema_py_generated as schema

    content = (bundle / "int8.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for tensor in model.subgraphs[0].tensors:
        scale = getattr(tensor.quantization, "scale", None)
        if tensor.type == schema.TensorType.INT8 and scale is not None and len(scale) == 1:
            tensor.quantization.scale = [0.0]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    rewrite(bundle, "int8.tflite", bytes(builder.Output()))
    return "int8.tflite: LiteRT crashed (SIG"


@pytest.mark.parametrize(
    "change",
    [
        bad(change)
        for change in (
            changed_model,
            missing_model,
            not_a_model,
            damaged_model,
            newer_format,
            unreadable_image,
            wrong_size_image,
            unreadable_margin,
            pickled_margin,
            outside,
            unlisted_model,
            no_description,
            description_is_no_json,
            description_lacks_classes,
            nested_too_deep,
            description_is_a_pipe,
            description_is_a_list,
            margin_of(float("nan")),
            margin_of(-1),
            margin_that_the_file_cannot_hold,
            keras_labels_ignore,
            endless_picture,
            link_to_the_outside,
            folder_that_is_a_link,
            address_as_a_name,
            makes_litert_crash,
        )
    ],
)
def test_bad_bundle_is_one_line_and_exit_code_2(bundle, change, capsys):
    expected = change(bundle)
    assert main([str(bundle), "--mode", "int8", "--runs", "0"]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("kfcn-validate")]
    assert len(lines) == 1 and expected in lines[0]
    assert "Traceback" not in captured.err


WRONG = {
    "format": ["1", None, True, 1.0],
    "size": [[48], [48, "64"], [0, 64], [48.0, 64.0], "4864", {"0": 48, "1": 64}],
    "classes": [[], "abc", ["a", ["b"], "c"], ["a", "", "c"], ["a", "a", "c"], ["a"] * 256],
    "palette": [[[1, 2, 3]], [[1, 2, 300]] * 3, [[1, 2]] * 3, [[1, 2, 2.5]] * 3, [1, 2, 3]],
    "files": [[], {"int8.tflite": 3}, "int8.tflite"],
    "models": [[], ["int8.tflite"], {}, [{"file": ["int8.tflite"], "mode": "int8"}],
               [{"file": "int8.tflite", "mode": ["int8"]}],
               [{"file": "int8.tflite", "mode": "int4"}],
               [{"file": "int8.tflite", "mode": "int8"}] * 2],
    "golden": [[], [3], [{"name": ["x"]}]],
    "source": [["a"], "a"],
    "scores": [{"a": 1}, [{"file": 3, "mode": "int8"}]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG.items() for value in values]
)
def test_a_value_of_a_wrong_type_is_named(bundle, key, value):
    describe(bundle, lambda info: info.update({key: value}))
    with pytest.raises(BundleError, match=rf"^\S+/bundle\.json: {key}[^\n]*$"):
        read_bundle(bundle)


def test_an_infinite_margin_is_sure(bundle):
    """Half precision ends at 65504: a net can be surer than that."""
    file = bundle / "golden/0001_margin.npy"
    margin = np.load(file)
    margin[3, 4] = np.inf
    np.save(file, margin)
    rewrite(bundle, "golden/0001_margin.npy", file.read_bytes())
    assert read_bundle(bundle).golden[1].margin[3, 4] == np.inf


def test_a_link_within_the_bundle_is_followed(bundle):
    (bundle / "int8.tflite").rename(bundle / "golden/other.tflite")
    (bundle / "int8.tflite").symlink_to("golden/other.tflite")
    assert read_bundle(bundle).models[1]["file"] == "int8.tflite"


def test_an_error_while_it_runs_names_the_file(bundle):
    segmenter = Segmenter(bundle / "int8.tflite")

    class Failing:
        def set_tensor(self, *_):
            pass

        def invoke(self):
            raise RuntimeError("Node number 3 failed to invoke.\nmore")

    segmenter._interpreter = Failing()
    with pytest.raises(BundleError, match=r"int8.tflite: LiteRT cannot run it \(Node number 3"):
        segmenter.run(np.zeros((48, 64, 3), np.uint8))


def test_a_file_of_another_size_is_refused(bundle):
    with pytest.raises(BundleError, match=r"takes \(1, 48, 64, 3\), expected \(1, 64, 64, 3\)"):
        Segmenter(bundle / "int8.tflite", (64, 64))


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


@pytest.mark.slow
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
        assert "x.html is there already and is not as kfcn wrote it" in shown.err
        assert shown.err.count("\n") == 1 and not shown.out  # before any work
    assert page.read_text() == "my notes" and (tmp_path / "x.json").read_bytes() == before
    assert main([*call, *LOOSE, "--overwrite", "--report", str(page)]) == 0
    assert "<!doctype html>" in page.read_text()


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
        with pytest.raises(mobile_outputs.OutputError, match=f"{name} is there already"):
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
