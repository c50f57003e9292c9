"""What grows is found, and long runs of everything do not grow."""

import subprocess
import sys

import pytest
from kfcn_tools.benchmarks.soak.watching import MEMORY, Row, Run, Use, grown, use_of, watch
from kfcn_tools.benchmarks.soak.ways import soak


def rows(*uses, disk=()):
    disk = disk or [1.0] * len(uses)
    return [
        Row(100 * (n + 1), float(n), (Use(*use),), size)
        for n, (use, size) in enumerate(zip(uses, disk, strict=True))
    ]


def test_what_levels_off_after_the_beginning_is_flat():
    assert grown(rows((10, 5, 500), (60, 9, 900), (64, 9, 920), (60, 12, 901)), 200) == []


def test_what_grows_is_named():
    found = grown(rows((60, 9, 900), (69, 9, 900), (60, 9, 900 * MEMORY + 1)), 100)
    assert found == ["threads of process 0: 60 to 69", "memory of process 0: 900 to 928 MiB"]
    assert grown(rows((6, 9, 900), (6, 18, 999), (6, 9, 900)), 100) == [
        "files of process 0: 9 to 18"
    ]
    disk = grown(rows(*[(6, 9, 900)] * 4, disk=(2.0, 3.0, 4.0, 3.0)), 100)
    assert disk == ["disk: 2.0 to 3.0 MiB"]
    with pytest.raises(ValueError, match="expected 3 rows after 200"):
        grown(rows((6, 9, 900), (6, 9, 900)), 200)


def test_checkpoints_may_grow_by_their_rows_of_figures():
    same = [(6, 9, 900)] * 4
    assert grown(rows(*same, disk=(0.010, 0.011, 0.012, 0.0125)), 100) == []
    assert grown(rows(*same, disk=(0.010, 0.015, 0.015, 0.015)), 100) == ["disk: 0.0 to 0.0 MiB"]


HOLDING = """
import threading, time
begun = open({path!r})
held = [open({path!r}) for _ in range(5)]
for _ in range(7): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
memory = bytearray(64 << 20)
print("ready", flush=True)
time.sleep(60)
"""


def test_threads_files_and_memory_of_a_process_by_hand(tmp_path):
    path = tmp_path / "file"
    path.write_text("")

    def held(code):
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            use = use_of(process.pid)
            process.kill()
        return use

    bare = held("import threading, time; print('ready', flush=True); time.sleep(60)")
    full = held(HOLDING.format(path=str(path)))
    assert full.threads - bare.threads == 7
    assert full.files - bare.files == 6
    assert 60 < full.mib - bare.mib < 80


COUNTING = """
import time
for n in range(1, 31):
    open({path!r}, "w").write(str(n)); time.sleep(0.1)
{end}
"""


@pytest.mark.slow
def test_a_run_is_watched_to_its_end(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")

    def run(end):
        command = [sys.executable, "-c", COUNTING.format(path=str(path), end=end)]
        return Run(command, lambda: int(path.read_text() or 0), 30)

    found = watch(run(""), tmp_path / "log.txt", every=10)
    assert [row.count // 10 for row in found][:2] == [1, 2]
    assert all(row.uses[0].threads == 1 for row in found)
    with pytest.raises(RuntimeError, match="what went wrong"):
        watch(run("raise SystemExit('what went wrong')"), tmp_path / "log.txt", every=10)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("one", 600),
        ("replicas", 600),
        ("workers", 600),
        ("predict", 600),
        ("evaluate", 15),
        ("serve", 1000),
    ],
)
def test_long_runs_do_not_grow(name, total):
    table, found = soak(name, total, print)
    assert table[-1].count >= 0.9 * total
    assert found == []
