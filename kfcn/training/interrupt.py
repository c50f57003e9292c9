"""Asked to stop, as by Ctrl-C or a closed terminal, a run finishes its step and saves first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from kfcn.errors import Stopped

# Windows has no SIGTERM from other processes; SIGBREAK is what `kfcn-launch` can send there. SIGHUP
# comes when the terminal is closed, as by the end of an ssh.
_NAMES = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")
_HANGUP = getattr(signal, "SIGHUP", None)


def stop_signals() -> list[signal.Signals]:
    """The signals that ask this process to stop."""
    found = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    if _HANGUP is not None and signal.getsignal(_HANGUP) is signal.SIG_IGN:  # so does `nohup`
        found.remove(_HANGUP)
    return found


class Interrupt:
    """A context in which the signals wait for a good moment.

    The first signal sets `code`, and the loop stops after its step; between `anytime` everything
    is saved and a signal raises at once. A second one always does, but for SIGHUP, which the shell
    and the system both send when a terminal is closed. Outside of the main thread (where Python
    allows no handlers) nothing changes.

    Attributes:
        code: exit code of the signal that came, 128 + its number; 0 as long as none did.
        message: what `Stopped` says.
    """

    def __init__(self, message: str):
        self.message = message
        self.code = 0
        self._at_once = False
        self._before: dict[int, Any] = {}  # as `signal.signal` gives and takes it

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._came) for s in stop_signals()}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _came(self, number, frame):
        again, self.code = bool(self.code) and number != _HANGUP, 128 + number
        if self._at_once or again:
            raise Stopped(self.message, self.code)

    @contextlib.contextmanager
    def anytime(self) -> Iterator[None]:
        """While the body runs, nothing is lost by stopping at once."""
        self._at_once = True
        try:
            if self.code:
                raise Stopped(self.message, self.code)
            yield
        except Exception as error:
            # TensorFlow makes an error of its own of what a handler raises in an exchange with
            # another worker that has stopped already.
            if self.code:
                raise Stopped(self.message, self.code) from error
            raise
        finally:
            self._at_once = False
