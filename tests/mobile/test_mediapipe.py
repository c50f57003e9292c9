"""MediaPipe's ImageSegmenter as a target, and the host without XNNPACK."""

import json

import numpy as np
import pytest
from kfcn_mobile.bundle import BundleError, read_bundle
from kfcn_mobile.errors import TargetError
from kfcn_mobile.targets import Timing, make_targets
from kfcn_mobile.targets.host import Host
from kfcn_mobile.validate import main
from shipping import CLASSES, tiny_bundle

LOOSE = ["--min-agreement", "0.5", "--min-image", "0.5", "--min-confident", "0.5"]


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(tiny_bundle())


@pytest.mark.slow
def test_labels_and_probabilities_are_those_of_keras(bundle, tmp_path, capsys):
    pytest.importorskip("mediapipe")
    report_file = tmp_path / "report.json"
    arguments = [str(bundle.path), "--target", "mediapipe", "--runs", "2", "--warmup", "1", *LOOSE]
    assert main([*arguments, "--report", str(report_file)]) == 0
    report = json.loads(report_file.read_text())
    found = {(m["target"], m["mode"]): m for m in report["models"]}
    float32, int8 = found["mediapipe", "float32"], found["mediapipe", "int8"]
    assert float32["file"] == "scores_float32.tflite" and float32["agreement"] == 1.0
    assert float32["bytes"] == (bundle.path / "scores_float32.tflite").stat().st_size
    assert 0 < float32["confidence_error"]["value"] < 1e-5
    # 8 bits are further away, and held to no limit; nor to the labels of a file without scores.
    assert int8["confidence_error"]["value"] > 1e-3 and not int8["failures"]
    assert int8["against_first"]["differing"] and not int8["against_first"]["same_file"]
    (latency,) = float32["latency"]
    assert 0 < latency["min_ms"] <= latency["median_ms"] and latency["runs"] == 2
    printed = capsys.readouterr().out
    assert "mediapipe float32: probabilities at most" in printed
    assert "kernels: host: XNNPACK; mediapipe: MediaPipe's XNNPACK" in printed


@pytest.mark.slow
def test_probabilities_that_are_off_fail(bundle, tmp_path, capsys):
    """The Keras logits of one class of one golden image are changed a little."""
    pytest.importorskip("mediapipe")
    import shutil

    from kfcn_mobile.bundle import sha256

    copy = shutil.copytree(bundle.path, tmp_path / "bundle")
    info = json.loads((copy / "bundle.json").read_text())
    name = info["golden"][1]["logits"]
    logits = np.load(copy / name)
    logits[..., 0] += 0.004
    np.save(copy / name, logits)
    info["files"][name] = sha256(copy / name)
    (copy / "bundle.json").write_text(json.dumps(info))
    arguments = [str(copy), "--target", "mediapipe", "--mode", "float32", "--runs", "0"]
    assert main([*arguments, "--failures", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "FAILED mediapipe: float32: a probability is" in error and "val/201.png" in error


@pytest.mark.slow
def test_a_mode_without_scores_and_a_bundle_without_any(bundle):
    pytest.importorskip("mediapipe")
    (target,) = make_targets("mediapipe", print)
    assert target.file(bundle, {"mode": "dynamic"}) is None
    # A file of labels is refused, where MediaPipe itself would show nonsense.
    with target, pytest.raises(BundleError, match=r"reads the classes \[\], expected"):
        target.run(bundle, bundle.models[0], Timing(runs=0))
    assert list(bundle.classes) == CLASSES


def test_a_target_that_has_nothing_to_run(bundle, capsys):
    pytest.importorskip("mediapipe")
    from kfcn_mobile.validate import validate

    class Nothing(Host):
        def file(self, bundle, model):
            return None

    with pytest.raises(TargetError, match="nothing: has no file to run for float32, int8"):
        validate(bundle, [Host(), Nothing("nothing")], runs=0)


def test_without_xnnpack_int8_labels_may_differ_and_the_report_says_so(bundle, capsys):
    arguments = [str(bundle.path), "--target", "host:built-in", "--runs", "1", "--warmup", "0"]
    assert main([*arguments, *LOOSE]) == 0
    printed = capsys.readouterr().out
    assert "kernels: host: XNNPACK; host:built-in: built-in" in printed
    (plain,) = make_targets("host:built-in", print)
    with Host() as host, plain:
        model = {m["mode"]: m for m in bundle.models}["int8"]
        ours, theirs = (target.run(bundle, model, Timing(runs=0)) for target in (host, plain))
    assert (ours.kernels, theirs.kernels) == ("XNNPACK", "built-in")
    share = np.mean(np.stack(ours.labels) != np.stack(theirs.labels))
    assert 0 < share < 0.3  # measured 0.13: a net with random weights is unsure everywhere
