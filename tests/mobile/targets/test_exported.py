"""ONNX Runtime and OpenVINO as targets, on what kfcn-export wrote from the bundle's net."""

import json
import shutil

import numpy as np
import pytest
from kfcn_mobile.bundle import BundleError, read_bundle, sha256
from kfcn_mobile.errors import TargetError
from kfcn_mobile.targets import exported, make_targets
from kfcn_mobile.validate import main
from shipping import tiny_bundle, tiny_model

LOOSE = ["--min-agreement", "0.5", "--min-image", "0.5", "--min-confident", "0.5"]


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(tiny_bundle())


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory):
    """An export whose net the bundle's is: the same tiny net, under the bundle's name."""
    pytest.importorskip("onnxruntime")
    from kfcn_tools.export import export

    folder = export(tiny_model(), tmp_path_factory.mktemp("export") / "onnx", "onnx")
    rewrite(folder, source=bundle.info["source"])
    return folder


def rewrite(folder, **changes):
    file = folder / "export.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_labels_and_times_stand_beside_those_of_litert(bundle, folder, tmp_path, capsys):
    report_file = tmp_path / "report.json"
    arguments = [str(bundle.path), "--target", f"onnxruntime:{folder}", "--runs", "2"]
    arguments += ["--warmup", "1", "--threads", "2", *LOOSE]
    assert main([*arguments, "--report", str(report_file)]) == 0
    report = json.loads(report_file.read_text())
    (found,) = [m for m in report["models"] if m["target"] == "onnxruntime:onnx"]
    assert found["mode"] == "float32" and found["agreement"] == 1.0
    assert found["bytes"] == (folder / "model.onnx").stat().st_size
    assert found["against_first"]["differing"] == 0 and not found["against_first"]["same_file"]
    assert [latency["threads"] for latency in found["latency"]] == [1, 2]
    assert all(0 < latency["min_ms"] <= latency["median_ms"] for latency in found["latency"])
    assert "onnxruntime:onnx: ONNX Runtime's" in capsys.readouterr().out
    assert "ONNX Runtime" in report["targets"][1]["machine"]


def test_scores_are_held_to_the_logits_of_keras(bundle, tmp_path):
    pytest.importorskip("onnxruntime")
    from kfcn_tools.export import export

    folder = export(tiny_model(), tmp_path / "scores", "onnx", scores=True)
    rewrite(folder, source=bundle.info["source"])
    (target,) = make_targets(f"onnxruntime:{folder}", print)
    with target:
        model = target.file(bundle, {"mode": "float32"})
        outcome = target.run(bundle, model, exported.Timing(runs=0))
    np.testing.assert_array_equal(outcome.labels[0], bundle.golden[0].labels)
    logits = bundle.golden[0].logits
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    expected = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(outcome.confidences[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"source": {"name": "b/model.keras", "sha256": "0"}},
            r"another net \(b/model.keras\) tha",
        ),
        ({"source": "x"}, "does not say which net it and the bundle were made from"),
        ({"source": None}, "does not say which net it and the bundle were made from"),
        ({"format": "openvino"}, "format 'openvino'; ONNX Runtime reads onnx"),
        ({"models": [{"mode": "float32", "file": "../x.onnx"}]}, "not as kfcn-export writes it"),
        ({"models": 3}, "not as kfcn-export writes it"),
        ({"files": {"model.onnx": "0" * 64}}, "changed since"),
    ],
)
def test_a_folder_that_does_not_belong_is_refused(bundle, folder, tmp_path, changes, message):
    copy = shutil.copytree(folder, tmp_path / "copy")
    rewrite(copy, **changes)
    (target,) = make_targets(f"onnxruntime:{copy}", print)
    with pytest.raises(BundleError, match=message), target:
        target.file(bundle, {"mode": "float32"})


def test_a_file_that_is_none_is_named(bundle, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.onnx").write_bytes(b"nothing")
    rewrite(copy, files={"model.onnx": sha256(copy / "model.onnx")})
    (target,) = make_targets(f"onnxruntime:{copy}", print)
    with pytest.raises(BundleError, match=r"model\.onnx: ONNX Runtime cannot run it"), target:
        target.run(bundle, target.file(bundle, {"mode": "float32"}), exported.Timing(runs=0))


def test_modes_that_the_folder_lacks_are_left_out(bundle, folder):
    (target,) = make_targets(f"onnxruntime:{folder}", print)
    with target:
        assert target.file(bundle, {"mode": "float16"}) is None


def test_a_folder_and_a_package_that_are_not_there(tmp_path, monkeypatch, folder):
    (target,) = make_targets(f"openvino:{tmp_path}", print)
    with pytest.raises(BundleError, match="expected a folder that kfcn-export wrote"), target:
        pass

    def missing(name):
        raise exported.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(exported.metadata, "version", missing)
    (target,) = make_targets(f"onnxruntime:{folder}", print)
    with pytest.raises(TargetError, match=r"not installed; pip install 'kfcn\[onnx\]'"), target:
        pass
    with pytest.raises(TargetError, match="no such target"):
        make_targets("onnxruntime", print)
