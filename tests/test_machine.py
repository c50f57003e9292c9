"""How TensorFlow is told which kernels to use, each time in a process of its own."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from kfcn import machine
from kfcn.data import dataset, load

X86 = platform.machine().lower() in ("x86_64", "amd64")


def printed(code, **environment):
    env = {name: value for name, value in os.environ.items() if name != machine.ONEDNN}
    env |= {"TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        capture_output=True, text=True, timeout=240, env=env, check=True,
    )  # fmt: skip
    return done.stdout.split(), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not X86, reason="oneDNN has its switch on x86 only")
@pytest.mark.parametrize("wanted", [True, False])
def test_onednn_is_switched_before_tensorflow_comes(wanted):
    code = (
        f"import kfcn; print(kfcn.use_onednn({wanted}))\n"
        "from kfcn.machine import onednn_is_on; print(onednn_is_on())"
    )
    out, notes = printed(code)
    assert out == [str(wanted)] * 2
    assert "use_onednn was called after" not in notes


@pytest.mark.skipif(not X86, reason="oneDNN has its switch on x86 only")
def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv(machine.ONEDNN, "0")
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    assert machine.use_onednn() is False
    assert os.environ[machine.ONEDNN] == "0"


@pytest.mark.slow
@pytest.mark.skipif(not X86, reason="oneDNN has its switch on x86 only")
def test_a_switch_that_comes_too_late_says_so():
    """Whatever TensorFlow has chosen by itself here: the other is asked for."""
    code = (
        "import tensorflow, kfcn; from kfcn.machine import onednn_is_on as on\n"
        "before = on(); print(before, kfcn.use_onednn(not before), on())"
    )
    out, notes = printed(code)
    assert len(set(out)) == 1 and len(out) == 3
    assert "kfcn.use_onednn was called after the import of TensorFlow" in notes


def test_other_processors_have_no_switch(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.delenv(machine.ONEDNN, raising=False)
    assert machine.use_onednn() is False
    assert machine.ONEDNN not in os.environ


QUIET = """
import importlib.util, os, sys
sys.path.insert(0, "")
from kfcn.machine import quiet_tensorflow
if sys.argv[1] == "quiet":
    quiet_tensorflow()
    quiet_tensorflow()
assert importlib.util.find_spec("tensorflow")  # as who only asks whether it is there
import tensorflow
os.write(2, b"after")
print(tensorflow.value, type(tensorflow.__loader__).__name__)
"""


@pytest.mark.parametrize(("how", "printed"), [("quiet", b"after"), ("control", b"a note, after")])
def test_tensorflow_is_quiet_whoever_imports_it(how, printed, tmp_path):
    """A stand-in that prints as TensorFlow's C++ part does, to the file descriptor."""
    (tmp_path / "tensorflow.py").write_text("import os; os.write(2, b'a note, '); value = 7\n")
    done = subprocess.run(
        [sys.executable, "-c", QUIET, how], capture_output=True, cwd=tmp_path, timeout=60
    )
    assert done.stderr == printed
    assert done.stdout == b"7 SourceFileLoader\n"


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx2 avx512f", "avx512"), ("avx avx2", "avx2"), ("sse2", "")]
)
def test_instruction_sets(flags, expected, monkeypatch, tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: A processor: fast\nflags\t\t: {flags}\n")
    monkeypatch.setattr(machine, "Path", lambda name: file)
    assert machine.instruction_set() == expected
    assert machine.cpu_name() == "A processor: fast"
    assert not machine.is_intel_avx512()
    file.write_text(f"vendor_id\t: GenuineIntel\nflags\t\t: {flags}\n")
    assert machine.is_intel_avx512() == (expected == "avx512")


@pytest.mark.parametrize(
    ("processor", "kept_to", "expected"),
    [
        ("avx512", None, "avx512"),
        ("avx512", "", "avx512"),
        ("avx512", "avx512_core_vnni", "avx512"),
        ("avx512", "AVX10_1_512", "avx512"),
        ("avx512", "AVX2_VNNI", "avx2"),
        ("avx512", "AVX", "avx"),
        ("avx512", "SSE41", "sse41"),
        ("avx2", None, "avx2"),
        ("avx2", "ALL", "avx2"),
        ("avx2", "AVX512_CORE", "avx2"),
        ("avx2", "sse41", "sse41"),
        ("", None, ""),  # not known: nothing is said against it
        ("", "AVX2", ""),
    ],
)
def test_onednn_keeps_to_what_it_is_given(processor, kept_to, expected, monkeypatch):
    monkeypatch.setattr(machine, "instruction_set", lambda: processor)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if kept_to is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", kept_to)
    monkeypatch.setattr(machine, "onednn_is_on", lambda: True)
    assert machine.onednn_instructions() == expected
    assert machine.onednn_lacks_avx512() == (expected not in ("", "avx512"))
    monkeypatch.setattr(machine, "onednn_is_on", lambda: False)
    assert machine.onednn_instructions() == "" and not machine.onednn_lacks_avx512()


@pytest.mark.skipif(not X86, reason="oneDNN has its switch on x86 only")
@pytest.mark.parametrize(
    ("stored", "expected"),
    [({"onednn": False}, "0"), ({"onednn": True}, "1"), ({}, None), (None, "1")],
)
def test_a_run_goes_on_with_its_kernels(stored, expected, tmp_path, monkeypatch):
    """None: a new run. Without a record the run was begun before there was one."""
    from kfcn.commands import train

    if stored is not None:
        (tmp_path / "config.json").write_text(json.dumps({"settings": {}, "machine": stored}))
    monkeypatch.setenv(machine.ONEDNN, "")  # so that it is put back
    monkeypatch.delenv(machine.ONEDNN)
    monkeypatch.setattr(machine, "onednn_is_on", lambda: expected == "1")  # imported by other tests
    train._kernels(train.parser().parse_args(["--run-dir", str(tmp_path)]))
    assert os.environ.get(machine.ONEDNN) == expected


FREED_IN_PIECES = """
import sys
from pathlib import Path
from kfcn.machine import release_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

begun = resident()
pieces = [bytes(60_000) + b"x" * (n % 7) for n in range(4000)]  # 240 MB
kept = pieces[::40]  # so that what is freed lies in pieces between them
del pieces
print(resident() - begun)
release_memory()
print(resident() - begun)
"""


ASKED_FOR_AGAIN = """
import ctypes, os, resource, threading
from kfcn.machine import recycle_memory

if "RECYCLE" in os.environ:
    recycle_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def take():
    begun = faults()
    pieces = [ctypes.create_string_buffer(20_000_000) for _ in range(5)]
    print(faults() - begun)

for _ in range(2):  # the second thread takes what the first gave back
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="done by glibc only")
def test_memory_that_was_freed_is_taken_again_by_other_threads():
    first, again = map(int, printed(ASKED_FOR_AGAIN, RECYCLE="1")[0])
    assert first > 20_000  # pages
    assert again < first / 20
    _, control = map(int, printed(ASKED_FOR_AGAIN)[0])
    assert control > 20_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="done by glibc only")
def test_memory_that_was_freed_in_pieces_is_given_back():
    out, _ = printed(FREED_IN_PIECES, MALLOC_MMAP_THRESHOLD_="1000000")
    before, after = map(float, out)
    assert before > 200
    assert after < 20


def test_no_more_threads_than_this_process_may_use_cores(monkeypatch):
    """As in a container or under taskset, where `os.cpu_count` counts the whole machine."""
    asked, pool = [], dataset.ThreadPoolExecutor
    monkeypatch.setattr(dataset, "ThreadPoolExecutor", lambda n: asked.append(n) or pool(n))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 4}, raising=False)
    found = dataset.map_samples(load("scenes", "val[0/50]"), lambda x, i: i, "looking at")
    assert list(found) == [0, 1]
    assert asked == [3]
    home = Path(machine.__file__)
    rooms = [room for room in home.parent.rglob("*.py") if room != home]
    assert not [room for room in rooms if "cpu_count()" in room.read_text(encoding="utf-8")]
