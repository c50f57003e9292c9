"""The C program: on this machine, on a played Android device, over ssh to this machine."""

import getpass
import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kfcn_mobile.bundle import read_bundle
from kfcn_mobile.errors import TargetError
from kfcn_mobile.targets import Timing, make_targets
from kfcn_mobile.targets.native import SOURCES, build
from kfcn_mobile.targets.native import compiler as find_compiler
from kfcn_mobile.validate import main
from shipping import tiny_bundle

LINUX = pytest.mark.skipif(
    platform.system() != "Linux" or not shutil.which("make") or not shutil.which("cc"),
    reason="needs Linux with make and a C compiler",
)
pytestmark = LINUX
FAST = Timing((1, 2), runs=2, warmup=1)


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(tiny_bundle())


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    path, library = build(platform.machine(), folder, print)
    shutil.copy(library, folder)
    return path


def assert_same(bundle, name):
    """Label maps of every file on the host and on another target; returns the other."""
    (host,), (target,) = make_targets("host", print), make_targets(name, print)
    with host, target:
        for model in bundle.models:
            expected = host.run(bundle, model, Timing(runs=0)).labels
            outcome = target.run(bundle, model, FAST)
            np.testing.assert_array_equal(np.stack(outcome.labels), np.stack(expected))
            assert len(np.unique(expected)) == 3  # not one class everywhere
            assert [times["threads"] for times in outcome.latency] == [1, 2]
            assert all(0 < t["min_ms"] <= t["median_ms"] <= t["p90_ms"] for t in outcome.latency)
    return target


def test_the_c_program_gives_the_python_runners_bytes(bundle):
    target = assert_same(bundle, "c")
    assert "C program" in target.machine


def test_the_file_it_writes_by_hand(bundle, program, tmp_path):
    golden = bundle.golden[0]
    picture, labels = tmp_path / "in.ppm", tmp_path / "out.pgm"
    height, width = bundle.size
    # A comment and any white space may stand in the header.
    header = f"P6 # a comment\n{width}\t{height}\n255\n".encode()
    picture.write_bytes(header + golden.image.tobytes())
    model = bundle.path / "float32.tflite"
    subprocess.run([program, model, picture, labels], check=True, capture_output=True)
    expected = f"P5\n{width} {height}\n255\n".encode() + golden.labels.tobytes()
    assert labels.read_bytes() == expected


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (b"P3 64 48 255\n", "not a binary PPM"),
        (b"P6 48 64 255\n", "48x64 with values to 255, expected 64x48"),
        (b"P6 64 48 65535\n", "values to 65535"),
        (b"P6 64 48 255\nabc", "ends before the last pixel"),
        (None, "cannot be opened"),
    ],
)
def test_a_bad_picture_is_one_line(bundle, program, tmp_path, picture, told):
    if picture is not None:
        (tmp_path / "in.ppm").write_bytes(picture)
    command = [program, bundle.path / "int8.tflite", tmp_path / "in.ppm", tmp_path / "out.pgm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out.pgm").exists()


def test_a_file_that_is_no_model_is_one_line(bundle, program, tmp_path):
    (tmp_path / "no.tflite").write_bytes(b"nothing")
    done = subprocess.run(
        [program, tmp_path / "no.tflite", "a.ppm", "a.pgm"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "LiteRT cannot load it" in done.stderr


def test_the_report_holds_both_targets(bundle, tmp_path, capsys):
    import json

    report = tmp_path / "report.json"
    loose = ["--min-agreement", "0", "--min-image", "0", "--min-confident", "0"]
    arguments = [str(bundle.path), "--target", "c", "--runs", "2", *loose]
    assert main([*arguments, "--report", str(report)]) == 0
    found = json.loads(report.read_text())
    assert [place["name"] for place in found["targets"]] == ["host", "c"]
    hashes = {(m["target"], m["mode"]): m["labels_sha256"] for m in found["models"]}
    assert hashes["host", "int8"] == hashes["c", "int8"] != hashes["host", "float32"]
    assert {m["against_first"]["differing"] for m in found["models"]} == {0}
    assert hashes["c", "int8"][:12] in capsys.readouterr().out
    page = report.with_suffix(".html").read_text()
    assert "Label maps across targets" in page and hashes["c", "int8"] in page


@pytest.fixture
def adb(tmp_path, monkeypatch):
    """A folder that plays the device; returns it."""
    programs, device = tmp_path / "bin", tmp_path / "device"
    programs.mkdir()
    device.mkdir()
    script = programs / "adb"
    source = Path(__file__).with_name("fake_adb.py").read_text()
    script.write_text(source.replace("#!/usr/bin/env python3", f"#!{sys.executable}", 1))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_ADB_ROOT", str(device))
    monkeypatch.setenv("FAKE_ADB_MACHINE", platform.machine())
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return device


def test_adb_brings_program_library_and_bundle(bundle, adb):
    """The device is played: a folder and this machine's own processor."""
    target = assert_same(bundle, "adb")
    assert target.machine == f"Acme Phone 1, Android 15, {platform.machine()}, C program"
    calls = (adb / "calls").read_text()
    assert "libLiteRt.so" in calls and "ld-linux" in calls and "libc.so.6" in calls
    # What was brought is taken away again.
    assert [path.name for path in adb.iterdir()] == ["calls"]


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        ("", "expected one connected device, found none"),
        ("a\tunauthorized\n", r"found a \(unauthorized\)"),
        ("a\tdevice\nb\tdevice\n", r"found a \(device\), b \(device\); ANDROID_SERIAL"),
    ],
)
def test_adb_without_one_device_is_refused(bundle, adb, monkeypatch, devices, told):
    monkeypatch.setenv("FAKE_ADB_DEVICES", devices)
    (target,) = make_targets("adb", print)
    with pytest.raises(TargetError, match=told), target:
        pass


def test_a_processor_without_a_library_is_refused(bundle, adb, monkeypatch):
    monkeypatch.setenv("FAKE_ADB_MACHINE", "armv7l")
    (target,) = make_targets("adb", print)
    with pytest.raises(TargetError, match="processor is armv7l, expected aarch64"), target:
        pass
    assert [path.name for path in adb.iterdir()] == ["calls"]


@pytest.mark.parametrize("name", ["adb", "ssh:board"])
def test_a_missing_program_is_named(monkeypatch, tmp_path, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    (target,) = make_targets(name, print)
    with pytest.raises(TargetError, match=f"no program '{name[:3]}' on the PATH"), target:
        pass


@pytest.fixture
def sshd(tmp_path, monkeypatch):
    """An sshd of this user's on 127.0.0.1, and an `ssh` that finds it as the host `board`."""
    server, client = shutil.which("sshd") or "/usr/sbin/sshd", shutil.which("ssh")
    if not client or not Path(server).exists():
        pytest.skip("needs ssh and sshd")
    for key in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key]
        subprocess.run(command, check=True)
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [f"HostKey {tmp_path}/host", f"AuthorizedKeysFile {tmp_path}/authorized"]
    settings += ["ListenAddress 127.0.0.1", f"Port {port}", "StrictModes no", "UsePAM no"]
    settings += ["PidFile none", "PasswordAuthentication no"]
    (tmp_path / "sshd_config").write_text("\n".join(settings) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [server, "-D", "-e", "-f", tmp_path / "sshd_config"],
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "sshd.log").open("w"),
    )
    options = ["Host board", "HostName 127.0.0.1", f"Port {port}", f"User {getpass.getuser()}"]
    options += [f"IdentityFile {tmp_path}/user", "IdentitiesOnly yes"]
    options += ["StrictHostKeyChecking no", f"UserKnownHostsFile {tmp_path}/known"]
    (tmp_path / "config").write_text("\n".join(options) + "\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {client} -F {tmp_path}/config "$@"\n')
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    for _ in range(50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0 or process.poll() is not None:
                break
        time.sleep(0.1)
    if process.poll() is not None:
        pytest.skip(f"sshd does not start: {(tmp_path / 'sshd.log').read_text()[-200:]}")
    yield
    process.terminate()
    process.wait()


def test_ssh_to_this_machine(bundle, sshd):
    target = assert_same(bundle, "ssh:board")
    assert target.machine.startswith("Linux ")


def test_ssh_to_nobody_is_one_line(sshd):
    (target,) = make_targets("ssh:nobody.invalid", print)
    with pytest.raises(TargetError, match=r"ssh:nobody\.invalid: "), target:
        pass


def test_the_makefile_builds_where_it_stands(tmp_path, program):
    folder = tmp_path / "c"
    shutil.copytree(SOURCES, folder)
    shutil.copy(program.parent / "libLiteRt.so", folder)
    subprocess.run(["make", "-s", "-C", folder], check=True)
    told = subprocess.run([folder / "segment"], capture_output=True, text=True)
    assert told.returncode == 1 and "usage: segment MODEL" in told.stderr


def test_a_path_with_a_space_builds(tmp_path, monkeypatch):
    sources, temporary = tmp_path / "my env" / "c", tmp_path / "my tmp"
    shutil.copytree(SOURCES, sources)
    temporary.mkdir()
    monkeypatch.setattr("kfcn_mobile.targets.native.SOURCES", sources)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    path, library = build(platform.machine(), temporary, print)
    told = subprocess.run(
        [path], capture_output=True, text=True, env={"LD_LIBRARY_PATH": str(library.parent)}
    )
    assert path.parent == temporary and "usage: segment MODEL" in told.stderr
    (sources / "segment.c").write_text("int main(void) { return missing(); }\n")
    with pytest.raises(TargetError, match=r"does not build: .*missing"):
        build(platform.machine(), temporary, print)


@pytest.mark.parametrize("options", [("-r", "1e3"), ("-r", "-5"), ("-t", "")])
def test_a_number_that_is_none_is_said(program, options):
    told = subprocess.run([program, "m.tflite", *options, "a", "b"], capture_output=True, text=True)
    assert told.returncode == 1 and "expected a whole number of 0 to" in told.stderr


def test_a_model_that_is_cut_short_is_one_line(bundle, program, tmp_path):
    content = (bundle.path / "int8.tflite").read_bytes()
    for size in (100, 3000, len(content) // 2, len(content) - 8):
        (tmp_path / "m.tflite").write_bytes(content[:size])
        told = subprocess.run(
            [program, tmp_path / "m.tflite", "a.ppm", tmp_path / "b.pgm"],
            capture_output=True, text=True,
        )  # fmt: skip
        lines = [line for line in told.stderr.splitlines() if line.startswith("segment: error: ")]
        assert told.returncode == 1 and len(lines) == 1, (size, told)


def test_the_compiler_for_another_processor(monkeypatch):
    """The cross gcc where there is one, else ziglang, else a reason."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert find_compiler("riscv64") == "riscv64-linux-gnu-gcc"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TargetError, match="no C compiler for riscv64"):
        find_compiler("riscv64")


@pytest.mark.parametrize("name", ["phone", "ssh:", "host:x", "arm64:cortex-a53"])
def test_an_unknown_target_is_refused(bundle, name, capsys):
    assert main([str(bundle.path), "--target", name]) == 2
    expected = f"{name!r}: no such target; expected one of host[:built-in], c, arm64"
    assert expected in capsys.readouterr().err
