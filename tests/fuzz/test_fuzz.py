"""Damaged files are read to the right value or refused by one line; nothing hangs or crashes."""

import os
import signal

import fuzz
import pytest
import subjects
from subjects.annotations import coco
from subjects.outcomes import READ, told

FEW, MANY = 40, 720  # times 14 kinds: 10,080


def shown(report):
    return {number: what.strip().splitlines()[-1] for number, what in report.failures.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", subjects.SUBJECTS)
def test_damaged_files(kind):
    report = fuzz.run(kind, range(FEW))
    assert shown(report) == {}
    assert report.outcomes.total() == FEW
    assert report.outcomes["read"] > 0 and report.outcomes["refused"] > FEW // 4


@pytest.mark.long
@pytest.mark.parametrize("kind", subjects.SUBJECTS)
def test_ten_thousand_damaged_files(kind):
    report = fuzz.run(kind, range(MANY))
    assert shown(report) == {}
    assert report.outcomes.total() == MANY


def planted(rng, folder):
    """The control: each of these must be found, and the cases behind it must still be run."""
    number = int(folder.name)
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 2:
        raise ValueError("a traceback")
    if number == 3:
        told(ValueError("two\nlines"))
    if number == 4:
        signal.setitimer(signal.ITIMER_PROF, 0.2)  # in place of ten seconds
        while True:
            pass
    if number == 5:
        bytearray(fuzz.MEMORY)
    return READ


SUBJECTS = {"planted": planted}


def test_a_crash_a_hang_and_a_wrong_value_are_failures_and_not_the_end():
    report = fuzz.run("planted", range(8), module="test_fuzz")
    assert report.outcomes == {"read": 3}
    found = shown(report)
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert report.failures[1].startswith("ended with -11")
    assert found[2] == "ValueError: a traceback"
    assert found[3].startswith("AssertionError: not one line")
    assert report.failures[4].startswith("took more than 10 s")
    assert found[5] == "MemoryError"


def test_a_case_follows_from_its_number(tmp_path):
    outcomes = []
    for _ in range(2):
        outcomes.append([fuzz.case(coco, n, tmp_path) for n in range(30)])
    assert outcomes[0] == outcomes[1] and len(set(outcomes[0])) == 2
