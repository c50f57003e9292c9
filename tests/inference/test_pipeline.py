"""The three steps run beside each other, in order, and end as they should."""

import threading

import pytest

from kfcn.errors import KfcnError
from kfcn.inference.pipeline import AHEAD, WRITERS, pipelined


@pytest.mark.parametrize("at_once", [1, 3])
def test_results_come_in_order_with_the_errors_of_each_step(at_once):
    def failing(step, item):
        if item == step:
            raise KfcnError(f"{step} failed")
        return item

    found = list(
        pipelined(
            ["a", "read", "b", "work", "write", "c"],
            lambda item: failing("read", item),
            lambda given: failing("work", given) * 2,
            lambda item, given, made: failing("write", item) and (given, made),
            at_once=at_once,
        )
    )
    assert [item for item, _ in found] == ["a", "read", "b", "work", "write", "c"]
    assert [str(outcome) for _, outcome in found if isinstance(outcome, KfcnError)] == [
        "read failed",
        "work failed",
        "write failed",
    ]
    assert [outcome for _, outcome in found if isinstance(outcome, tuple)] == [
        ("a", "aa"),
        ("b", "bb"),
        ("c", "cc"),
    ]


def test_the_three_steps_run_at_the_same_time():
    """Each waits for the two others, so that one after the other would never end."""
    meet = threading.Barrier(3, timeout=20)
    seen = threading.local()

    def step(item):
        if not getattr(seen, "met", False):
            seen.met = True
            meet.wait()
        return item

    def work(given):
        if given == 1:  # while 2 is read and 0 is written
            meet.wait()
        return given

    def read(item):
        return step(item) if item == 2 else item

    def write(item, given, made):
        return step(item) if item == 0 else item

    assert [outcome for _, outcome in pipelined(range(4), read, work, write)] == [0, 1, 2, 3]


def test_so_many_are_worked_on_at_the_same_time_and_no_more():
    meet, lock, working, most = threading.Barrier(3, timeout=20), threading.Lock(), [0], [0]

    def work(given):
        with lock:
            working[0] += 1
            most[0] = max(most[0], working[0])
        meet.wait()  # for two others, so that fewer would never end
        with lock:
            working[0] -= 1
        return -given

    found = pipelined(range(12), lambda item: item, work, lambda *of: of, at_once=3)
    assert list(found) == [(item, (item, item, -item)) for item in range(12)]
    assert most == [3]


def test_no_more_is_read_than_is_wanted_soon_and_no_more_waits_to_be_written():
    read, written, release, ahead, behind = [], [], threading.Event(), [], []

    def work(given):
        ahead.append(len(read) - given)  # read, and not yet worked on: this one and those behind
        behind.append(given - len(written))
        return given

    def write(item, given, made):
        release.wait(20)
        written.append(item)
        return made

    outcomes = pipelined(range(40), lambda item: read.append(item) or item, work, write)
    threading.Timer(0.3, release.set).start()
    assert [outcome for _, outcome in outcomes] == list(range(40))
    assert 1 < max(ahead) <= AHEAD + 1
    assert 1 < max(behind) <= WRITERS + 1
    assert len(read) == len(written) == 40


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_large_item_is_alone(at_once):
    writing, together = set(), []

    def work(given):
        together.append((given, set(writing)))
        writing.add(given)
        threading.Event().wait(0.01 * min(given, 4))  # 2 is not done when 1 is
        writing.discard(given)
        return given

    def write(item, given, made):
        writing.add(item)
        threading.Event().wait(0.04)
        writing.discard(item)
        return made

    items = [1, 2, 3, 100, 4, 5]
    found = pipelined(
        items, lambda item: item, work, write, large=lambda given: given > 50, at_once=at_once
    )
    assert [outcome for _, outcome in found] == items
    beside = dict(together)
    assert not beside[100] and 100 not in beside[4]
    assert beside[3]  # the control


@pytest.mark.parametrize(("end", "at_once"), [("work", 1), ("consumer", 1), ("consumer", 2)])
def test_an_interruption_finishes_what_is_being_written_and_begins_nothing(end, at_once):
    begun, finished, started = [], [], threading.Event()

    def work(given):
        if end == "work" and given == 3:
            started.wait(20)
            raise KeyboardInterrupt
        return given

    def write(item, given, made):
        begun.append(item)
        started.set()
        threading.Event().wait(0.2)
        finished.append(item)
        return item

    outcomes = pipelined(range(100), lambda item: item, work, write, at_once=at_once)
    if end == "work":
        with pytest.raises(KeyboardInterrupt):
            list(outcomes)
    else:
        next(outcomes)
        outcomes.close()
    assert set(begun) == set(finished) and 1 <= len(begun) <= WRITERS + at_once
    written = list(finished)
    threading.Event().wait(0.4)
    assert finished == written and len(begun) == len(finished)  # no thread goes on


def test_what_is_being_worked_on_at_an_interruption_is_not_written():
    working, go, written = threading.Barrier(2, timeout=20), threading.Event(), []

    def items():
        yield from range(3)
        working.wait()  # for the first item
        threading.Timer(0.2, go.set).start()
        raise KeyboardInterrupt

    def work(given):
        working.wait()
        go.wait(20)
        return given

    def write(item, given, made):
        written.append(item)

    with pytest.raises(KeyboardInterrupt):
        list(pipelined(items(), lambda item: item, work, write, at_once=2))
    assert go.is_set() and not written


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_is_no_error_of_ours_is_raised(at_once):
    def work(given):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(pipelined([1], lambda item: item, work, lambda *_: None, at_once=at_once))
