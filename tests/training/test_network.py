"""Two workers at two addresses, on a line that is slow, that breaks, or with one that stands still.

A run goes on, or all workers stop with one line; then the same commands go on, to the same bits.
"""

import contextlib
import json
import re
import signal
import time

import pytest
from network import ADDRESSES, Line
from processes import Process, checkpoints, difference, train_command

pytestmark = pytest.mark.long

LOST = "another worker was lost; start all of them again to continue from the checkpoint"


@pytest.fixture(scope="module")
def line():
    with Line() as line:
        yield line


@contextlib.contextmanager
def workers(line, pairs, folder, run, port, *flags):
    """Both workers of a run, which checkpoints after each of its 6 steps."""
    cluster = {"worker": [f"{address}:{port}" for address in ADDRESSES]}
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(2):
            task = {"type": "worker", "index": number}
            command = train_command(pairs, folder / run, "--save-minutes", 0, *flags)
            process = Process(
                line.inside(number, command),
                folder / f"{port}-{number}.txt",
                TF_CONFIG=json.dumps({"cluster": cluster, "task": task}),
            )
            started.append(stack.enter_context(process))
        yield started


def finished(both):
    """Waits for both; their exit codes must be 0."""
    for process in both:
        assert process.wait() == 0, process.output


def step(folder):
    found = checkpoints(folder)
    return int(found[-1].stem[5:]) if found else 0


@pytest.fixture(scope="module")
def undisturbed(line, pairs, tmp_path_factory):
    """The last checkpoint of the run on a good line."""
    folder = tmp_path_factory.mktemp("undisturbed")
    carried = line.carried
    with workers(line, pairs, folder, "run", 4000) as both:
        finished(both)
    assert line.carried > carried + 100  # it does go over the line
    return checkpoints(folder / "run")[-1]


def test_a_worker_behind_50_ms(line, undisturbed, pairs, tmp_path):
    line.delay = 0.025  # each way
    try:
        with workers(line, pairs, tmp_path, "run", 4001) as both:
            finished(both)
    finally:
        line.delay = 0.0
    assert difference(undisturbed, checkpoints(tmp_path / "run")[-1]) == 0.0


@contextlib.contextmanager
def standing_still(line, both):
    both[1].send(signal.SIGSTOP)
    try:
        yield
    finally:
        both[1].send(signal.SIGCONT)


@contextlib.contextmanager
def without_a_line(line, both):
    line.cut = True
    try:
        yield
    finally:
        line.cut = False


@pytest.mark.parametrize("trouble", [standing_still, without_a_line])
def test_three_seconds_are_waited_for(line, undisturbed, pairs, tmp_path, trouble):
    with workers(line, pairs, tmp_path, "run", 4002) as both:
        both[0].until(lambda: step(tmp_path / "run") >= 2)
        with trouble(line, both):
            time.sleep(3)
        finished(both)
    assert difference(undisturbed, checkpoints(tmp_path / "run")[-1]) == 0.0


@pytest.mark.parametrize("trouble", [standing_still, without_a_line])
def test_after_thirty_seconds_all_stop_and_go_on_when_started_again(
    line, undisturbed, pairs, tmp_path, trouble
):
    with workers(line, pairs, tmp_path, "run", 4003) as both:
        both[0].until(lambda: step(tmp_path / "run") >= 2)
        with trouble(line, both):
            time.sleep(30)
        codes = [process.wait(limit=60) for process in both]
        for process in both:
            assert LOST in process.output
            assert "Traceback" not in process.output
            assert len(re.findall("^kfcn-train: ", process.output, re.MULTILINE)) == 1
        assert codes == [75, 75]
    assert 2 <= step(tmp_path / "run") < 6
    with workers(line, pairs, tmp_path, "run", 4004) as both:
        finished(both)
    assert "continuing" in both[0].output
    assert difference(undisturbed, checkpoints(tmp_path / "run")[-1]) == 0.0
