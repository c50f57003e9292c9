"""kfcn-launch with small commands in the workers' place."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from processes import Process, finish, launch_command

from kfcn.commands.launch import SHOWN, THREADS, _Worker
from kfcn.machine import cores

ENV = (
    "import json, os, sys, time; c = json.loads(os.environ['TF_CONFIG']); w = c['task']['index']\n"
)


AT_ONCE = "import sys; from kfcn.commands import launch; launch.LEFT = 0.5; sys.exit(launch.main())"
"""As kfcn-launch, but what does not end by itself after a loss is killed sooner."""


def launch(tmp_path, code, workers=2, restarts=0, start=()):
    command = launch_command([sys.executable, "-c", ENV + code], workers, restarts)
    return finish([*start, *command[1:]] if start else command, tmp_path / "log.txt")


def test_each_worker_has_its_number_and_all_addresses(tmp_path):
    code, output = launch(
        tmp_path, "print(w, *c['cluster']['worker']); print('to stderr', file=sys.stderr)", 3
    )
    assert code == 0
    told = sorted(line for line in output.splitlines() if "127.0.0.1" in line)
    assert [line[:6] for line in told] == ["[0] 0 ", "[1] 1 ", "[2] 2 "]
    assert len({line[6:] for line in told}) == 1
    assert len(set(told[0][6:].split())) == 3
    assert output.count("to stderr") == 3


def test_the_workers_divide_the_cores(tmp_path, monkeypatch):
    """Unless the user says how many threads."""
    monkeypatch.delenv(THREADS, raising=False)
    code = f"import os; print('threads', os.environ.get({THREADS!r}))"
    log = tmp_path / "log.txt"

    def threads(workers, **environment):
        command = launch_command([sys.executable, "-c", code], workers)
        _, output = finish(command, log, **environment)
        return [line.split("threads ")[1] for line in output.splitlines()]

    assert threads(1) == ["None"]
    assert threads(2) == [str(max(1, cores() // 2))] * 2
    assert threads(2 * cores()) == ["1"] * 2 * cores()
    assert threads(2, **{THREADS: "5"}) == ["5", "5"]


def test_a_lost_worker_stops_the_others_and_all_start_again_on_new_ports(tmp_path):
    code = (
        f"seen, told = (os.path.join({str(tmp_path)!r}, n) for n in ('seen', 'told'))\n"
        "print('port', c['cluster']['worker'][0])\n"
        "if os.path.exists(seen): sys.exit(0)\n"
        "if w == 0: open(told, 'w')\n"
        "while not os.path.exists(told): time.sleep(0.02)\n"
        "if w == 1: open(seen, 'w'); os.kill(os.getpid(), 9)\n"
        "time.sleep(100)\n"
        "print('slept on')\n"
    )
    status, output = launch(tmp_path, code, restarts=2, start=[sys.executable, "-c", AT_ONCE])
    assert status == 0, output
    assert "slept on" not in output  # stopped, not waited for
    assert "lost worker 1 (killed by SIGKILL); starting all again (1 of 2)" in output
    ports = {line.split("port ")[1] for line in output.splitlines() if "[0] port" in line}
    assert len(ports) == 2


def test_no_more_restarts_than_wanted(tmp_path):
    status, output = launch(tmp_path, "sys.exit(75)", restarts=1)
    assert status == 1
    assert output.count("starting all again") == 1
    assert "no restart is left" in output


@pytest.mark.parametrize("code", [1, 2])
def test_an_error_that_was_told_is_not_tried_again(tmp_path, code):
    other = f"time.sleep(w / 2); sys.exit({code} if w else 75)"
    status, output = launch(tmp_path, other, restarts=3)
    assert status == code
    assert "again" not in output


@pytest.mark.usefixtures("with_a_terminal")
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_is_passed_on_and_the_workers_may_save(tmp_path, name, status):
    """SIGHUP comes when the terminal is closed, and to kfcn-launch alone."""
    code = (
        "import signal\n"
        f"def save(*_): time.sleep(0.3); print('saved'); sys.exit({status})\n"
        f"signal.signal(signal.{name}, save); print('ready'); time.sleep(100)\n"
    )
    command = launch_command([sys.executable, "-c", ENV + code], 2, 3)
    with Process(command, tmp_path / "log.txt") as process:
        process.until(lambda: process.output.count("ready") == 2)
        process.send(signal.Signals[name])
        assert process.wait() == status
        assert process.output.count("saved") == 2
        assert "again" not in process.output


def test_what_nohup_started_does_not_stop_with_its_terminal(tmp_path):
    go_on = tmp_path / "go on"
    code = f"print('ready')\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.1)\n"
    command = ["nohup", *launch_command([sys.executable, "-c", ENV + code], 2)]
    with Process(command, tmp_path / "log.txt") as process:
        process.until(lambda: process.output.count("ready") == 2)
        process.send(signal.SIGHUP)
        go_on.touch()
        assert process.wait() == 0


def test_a_worker_whose_output_nobody_reads_is_read_to_its_end(tmp_path, monkeypatch):
    """Else it would wait for us once the pipe is full, and never save."""

    def fails(*_, **__):
        raise OSError(errno.EIO, "the terminal is gone")

    code = "print(*['x' * 99] * 5000, sep='\\n')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, encoding="utf-8"
    )
    worker = _Worker(0, process, tmp_path / "0")
    monkeypatch.setattr("builtins.print", fails)
    worker.pass_on()
    assert process.wait(timeout=20) == 0
    assert worker.lines[0] == "x" * 99 and len(worker.lines) == SHOWN


@pytest.mark.slow
def test_workers_that_do_not_stop_are_killed(tmp_path):
    code = (
        f"told = os.path.join({str(tmp_path)!r}, 'told')\n"
        "print('pid', os.getpid())\n"
        "if w: open(told, 'w'); time.sleep(1000)\n"
        "while not os.path.exists(told): time.sleep(0.02)\n"
        "sys.exit(75)\n"
    )
    status, output = launch(tmp_path, code, start=[sys.executable, "-c", AT_ONCE])
    assert status == 1 and output.count("pid") == 2
    for line in output.splitlines():
        if "pid" in line:
            with pytest.raises(ProcessLookupError):
                os.kill(int(line.split()[-1]), 0)


def test_wrong_requests(tmp_path):
    for args, told in (
        (
            ["--workers", "0", "--", "true"],
            "--workers: received '0'; expected a whole number of at least 1",
        ),
        (["--workers", "2"], "-- COMMAND"),
    ):
        code, output = finish([*launch_command([])[:1], *args], tmp_path / "log.txt")
        assert code == 2 and told in output
    code, output = finish(launch_command(["/no/such/command"]), tmp_path / "log.txt")
    assert code == 1 and "/no/such/command: No such file" in output


CRASH = (
    "import signal\n"
    "from kfcn.place import Marker; m = Marker(); m.begin(0)\n"
    "runs = os.path.join({folder!r}, f'runs-{{w}}')\n"
    "before = os.path.exists(runs) and int(open(runs).read()) or 0\n"
    "open(runs, 'w').write(str(before + 1))\n"
    "m.reach({steps}[before]); print('reached', {steps}[before])\n"
    "print('what the library said')\n"
    "if w == 1: {end}\n"
    "time.sleep(0.3)\n"
)


def crash(tmp_path, steps, end, restarts=4):
    return launch(tmp_path, CRASH.format(folder=str(tmp_path), steps=steps, end=end), 2, restarts)


@pytest.mark.slow
def test_a_crash_that_repeats_at_the_same_step_is_shown_and_not_tried_again(tmp_path):
    status, output = crash(tmp_path, [40, 300, 301, 302, 303], "os.abort()")
    assert status == 1, output
    assert output.count("starting all again") == 2  # after 40 and after 300
    before, shown = output.split(
        "kfcn-launch: worker 1 (killed by SIGABRT) crashed twice after step 301"
    )
    assert "[1] reached 301" in before
    shown = [line for line in shown.splitlines() if line.startswith("kfcn-launch: ")]
    assert shown[:2] == ["kfcn-launch:   reached 301", "kfcn-launch:   what the library said"]
    assert "try the command without kfcn-launch" in shown[2] and len(shown) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "hint"),
    [
        ("os.kill(os.getpid(), 9)", "a smaller --batch-size"),
        ("os._exit(3)", "what these lines ask"),
    ],
)
def test_what_to_try_depends_on_how_a_worker_crashed(tmp_path, end, hint):
    status, output = crash(tmp_path, [7, 7, 7], end)
    assert status == 1, output
    assert output.count("starting all again") == 1
    assert hint in output.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "end"),
    [
        ([100, 200, 400], "os.abort()"),  # it gets on
        ([100, 100, 100], "sys.exit(75)"),  # it only misses another
        ([100, 100, 100], "os.abort() if before != 1 else os.kill(os.getpid(), 9)"),
    ],
)
def test_other_losses_are_tried_again(tmp_path, steps, end):
    status, output = crash(tmp_path, steps, end, restarts=2)
    assert status == 1, output
    assert output.count("starting all again") == 2
    assert "twice" not in output and "no restart is left" in output


def test_a_crash_before_the_first_step_repeats_too(tmp_path):
    code = "from kfcn.place import Marker; m = Marker(); w and os.abort(); time.sleep(0.3)"
    status, output = launch(tmp_path, code, restarts=3)
    assert status == 1, output
    assert "(killed by SIGABRT) crashed twice before its first step" in output
    assert output.count("starting all again") == 1
