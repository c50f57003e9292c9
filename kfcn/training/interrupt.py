"""Asked to stop by SIGTERM, Ctrl-C or Ctrl-Break, a run finishes its step and saves first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from kfcn.errors import Stopped


class Interrupt:
    """A context in which the signals wait for a good moment.

    The first signal sets `code`, and the loop stops after its step; between `anytime` everything
    is saved and a signal raises at once. A second one always does. Outside of the main thread
    (where Python allows no handlers) nothing changes.

    Attributes:
        code: exit code of the signal that came, 128 + its number; 0 as long as none did.
        message: what `Stopped` says.
    """

    # Windows has no SIGTERM from other processes; SIGBREAK is what `kfcn-launch` can send there.
    SIGNALS = tuple(
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
    )

    def __init__(self, message: str):
        self.message = message
        self.code = 0
        self._at_once = False
        self._before: dict[int, Any] = {}  # as `signal.signal` gives and takes it

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._came) for s in self.SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _came(self, number, frame):
        again, self.code = bool(self.code), 128 + number
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
        finally:
            self._at_once = False
