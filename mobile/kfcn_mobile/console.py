"""What the commands take from a console, and print on every one."""

import argparse
import contextlib
import io
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

Say = Callable[[str], None]
"""What takes a line for people, such as what is fetched."""


class _Version(argparse.Action):
    """Prints kfcn's version, which is looked up only then."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{"nargs": 0, "help": "print kfcn's version", **options})

    def __call__(self, parser: argparse.ArgumentParser, *_: Any):
        from importlib.metadata import version

        print(f"kfcn {version('kfcn')}")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others are, and whose flags are whole."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{"allow_abbrev": False, **options})
        self.add_argument("--version", action=_Version)

    # Without a namespace to fill, which none here has.
    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None
    ) -> argparse.Namespace:
        """As argparse does it; an empty argument, which as a path would be this folder, is none."""
        if "" in (sys.argv[1:] if args is None else args):
            self.error("received an empty argument; is a variable of the shell not set?")
        return super().parse_args(args)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(action, f"received {value!r}; expected one of {names}")

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with 2."""
        text = message.removeprefix("argument ")
        self.exit(2, f"{self.prog}: error: {text} ({self.prog} --help lists all arguments)\n")


def number(
    kind: type[int] | type[float], least: float, most: float = math.inf
) -> Callable[[str], float]:
    """What reads a flag's finite number of `least` to `most`, an int where `kind` is."""
    bounds = f"of at least {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
    expected = f"{'a whole number' if kind is int else 'a number'} {bounds}"

    def parse(text: str) -> float:
        try:
            value = kind(text)
            if not least <= value <= most or math.isinf(value):
                raise ValueError
        except (ValueError, OverflowError):
            shown = repr(text if len(text) < 80 else f"{text[:77]}...")
            raise argparse.ArgumentTypeError(f"received {shown}; expected {expected}") from None
        return value

    return parse


@contextlib.contextmanager
def closing_on_sigterm() -> Iterator[None]:
    """Closes what is open before a SIGTERM ends the process, as Ctrl-C does: a browser, folders.

    `kill`, `timeout` and schedulers send it; by itself Python would be gone at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def print_any_letters() -> None:
    """Lets a class of any name be printed, also where the console lacks its letters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
