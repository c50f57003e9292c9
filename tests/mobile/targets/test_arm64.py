"""Emulated ARM processors, and the promise: an int8 file labels alike wherever it runs."""

import json
import os
import shutil

import numpy as np
import pytest
from kfcn_mobile.bundle import read_bundle
from kfcn_mobile.errors import TargetError
from kfcn_mobile.fetch import arm64_files
from kfcn_mobile.runner import Segmenter
from kfcn_mobile.targets import Timing, make_targets
from kfcn_mobile.validate import main
from ready import ready
from shipping import tiny_bundle

LOOSE = ["--min-agreement", "0", "--min-image", "0", "--min-confident", "0"]


@pytest.fixture(scope="module")
def arm64():
    return ready("arm64")


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(tiny_bundle())


@pytest.mark.slow
def test_int8_labels_are_the_same_on_five_machines(arm64, bundle, tmp_path, capsys):
    """x86-64, three ARM processors and the browser: one sha256."""
    ready("browser")
    report = tmp_path / "report.json"
    targets = ["--target", "arm64", "--target", "browser"]
    command = [str(bundle.path), *targets, "--mode", "int8", "--runs", "1", *LOOSE]
    assert main([*command, "--report", str(report)]) == 0
    found = json.loads(report.read_text())
    names = [place["name"] for place in found["targets"]]
    cpus = ["arm64 cortex-a53", "arm64 cortex-a76", "arm64 neoverse-n1"]
    assert names == ["host", *cpus, "browser"] or names == ["host", "arm64", "browser"]
    hashes = {model["target"]: model["labels_sha256"] for model in found["models"]}
    assert len(hashes) == len(names) and len(set(hashes.values())) == 1
    assert "an emulator's time" in capsys.readouterr().out or len(names) == 3


def test_float32_labels_on_an_arm(arm64, bundle):
    """No promise, so no equality is asked for: the count of differing pixels is what is told."""
    segmenter = Segmenter(bundle.path / "float32.tflite")
    expected = np.stack([segmenter.run(golden.image) for golden in bundle.golden])
    with arm64[0] as target:
        model = next(model for model in bundle.models if model["mode"] == "float32")
        outcome = target.run(bundle, model, Timing(runs=1))
    assert np.mean(np.stack(outcome.labels) == expected) > 0.999
    (times,) = outcome.latency
    assert times["runs"] == len(bundle.golden) and times["threads"] == 1


def test_the_c_program_on_an_emulated_phone(arm64, bundle, tmp_path, monkeypatch):
    """The fake adb runs the arm64 program, with the glibc that is brought along, in qemu."""
    from pathlib import Path

    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.importorskip("ziglang", reason="needs a C compiler for aarch64")
    ready_library = arm64_files.litert_library(lambda line: pytest.skip(line))
    assert ready_library.stat().st_size > 1_000_000
    (tmp_path / "bin").mkdir()
    (tmp_path / "device").mkdir()
    shutil.copy(Path(__file__).with_name("fake_adb.py"), tmp_path / "bin" / "adb")
    (tmp_path / "bin" / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_ADB_ROOT", str(tmp_path / "device"))
    monkeypatch.setenv("FAKE_ADB_MACHINE", "aarch64")
    qemu = arm64_files.find_qemu(lambda line: pytest.skip(line))
    monkeypatch.setenv("FAKE_ADB_QEMU", f"{qemu} -cpu cortex-a76")
    segmenter = Segmenter(bundle.path / "int8.tflite")
    expected = [segmenter.run(golden.image) for golden in bundle.golden]
    model = next(model for model in bundle.models if model["mode"] == "int8")
    with make_targets("adb", print)[0] as target:
        outcome = target.run(bundle, model, Timing(runs=0))
    np.testing.assert_array_equal(np.stack(outcome.labels), np.stack(expected))
    assert target.machine == "Acme Phone 1, Android 15, aarch64, C program"


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with an empty PATH and cache; returns the folder of its programs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return programs


def put_qemu(folder, version):
    program = folder / "qemu-aarch64"
    program.write_text(f"#!/bin/sh\necho qemu-aarch64 version {version} '(Debian)'\n")
    program.chmod(0o755)
    return program


def test_an_old_emulator_is_refused_with_the_reason(bare):
    put_qemu(bare, "7.2.19")
    with pytest.raises(TargetError, match=r"is qemu 7\.2\.19, which crashes in LiteRT; needs"):
        arm64_files.find_qemu(print)


def test_a_new_emulator_on_the_path_is_taken(bare):
    program = put_qemu(bare, "10.0.2")
    assert arm64_files.find_qemu(print) == program


def test_without_apt_the_reason_is_said(bare):
    with pytest.raises(TargetError, match=r"no qemu-aarch64 here; needs .* no apt-get on this"):
        arm64_files.find_qemu(print)


def test_a_wheel_of_another_content_is_refused(tmp_path, monkeypatch):
    """pip is offered a file of the right name and version, and finds the wrong sha256."""
    import zipfile

    shelf = tmp_path / "shelf"
    shelf.mkdir()
    tag = "cp311-cp311-manylinux_2_27_aarch64"
    with zipfile.ZipFile(shelf / f"ai_edge_litert-2.3.0-{tag}.whl", "w") as wheel:
        text = "Metadata-Version: 2.1\nName: ai-edge-litert\nVersion: 2.3.0\n"
        wheel.writestr("ai_edge_litert-2.3.0.dist-info/METADATA", text)
        wheel.writestr("ai_edge_litert-2.3.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        wheel.writestr("ai_edge_litert-2.3.0.dist-info/RECORD", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    (tmp_path / "cache" / "kfcn").mkdir(parents=True)
    told = []
    with pytest.raises(TargetError, match=r"pip cannot fetch ai-edge-litert for arm64: .*Got"):
        arm64_files.fetch_wheels(["ai-edge-litert"], "3.11", tmp_path / "out", told.append)
    assert told == ["ai-edge-litert 2.3.0 (arm64): 15 MB"]
    with pytest.raises(TargetError, match=r"numpy 2\.4\.6 is not pinned for Python 3\.9"):
        arm64_files.fetch_wheels(["numpy"], "3.9", tmp_path / "out", told.append)


def test_an_arm_machine_runs_natively(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    (target,) = make_targets("arm64", print)
    assert (target.name, target.emulated) == ("arm64", False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert [target.emulated for target in make_targets("arm64", print)] == [True] * 3
