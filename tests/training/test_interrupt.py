"""Signals wait for a good moment, and end what must not go on without one."""

import signal

import pytest

from kfcn.errors import Stopped
from kfcn.training.interrupt import Interrupt, stop_signals


@pytest.fixture(params=["SIGINT", "SIGTERM", "SIGHUP"])
def number(request, with_a_terminal):
    if not hasattr(signal, request.param):
        pytest.skip("no such signal here")
    return signal.Signals[request.param]


def test_a_signal_is_kept_until_it_may_raise(number):
    with Interrupt("saved") as interrupt:
        signal.raise_signal(number)
        assert interrupt.code == 128 + number
        with pytest.raises(Stopped, match="saved") as caught, interrupt.anytime():
            raise AssertionError("the body is not begun")
        assert caught.value.code == 128 + number


def test_whoever_asks_twice_does_not_want_to_wait(number):
    with Interrupt("saved") as interrupt:
        signal.raise_signal(number)
        if number.name == "SIGHUP":  # of one closed terminal there are two
            signal.raise_signal(number)
        else:
            with pytest.raises(Stopped):
                signal.raise_signal(number)
        assert interrupt.code == 128 + number


def test_an_error_that_a_signal_brings_about_is_the_stop(number):
    """Within an exchange of workers TensorFlow raises an error of its own in its place."""
    with Interrupt("saved") as interrupt:
        with pytest.raises(Stopped) as caught, interrupt.anytime():
            try:
                signal.raise_signal(number)
            except Stopped as stop:
                raise RuntimeError("UnavailableError REPLACED BY Stopped") from stop
        assert caught.value.code == 128 + number
    with Interrupt("saved") as interrupt, pytest.raises(RuntimeError), interrupt.anytime():
        raise RuntimeError("without a signal an error stays what it is")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that hang up")
def test_a_terminal_that_may_be_closed_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert signal.SIGHUP not in stop_signals() and signal.SIGTERM in stop_signals()
        with Interrupt("saved") as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert interrupt.code == 0
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert signal.SIGHUP in stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
