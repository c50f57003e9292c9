"""Errors that are meant for people: one line with what was received, expected and what to do."""

import importlib
import reprlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any


class KfcnError(Exception):
    """Work that cannot be done; a command prints the message without a traceback and exits 1."""

    def __str__(self):
        return one_line(super().__str__())


class UsageError(KfcnError):
    """A request that makes no sense as it stands (an unknown name, a bad flag); exit code 2."""


class DataError(KfcnError):
    """A file of a data set that cannot be used; the message names the file."""


class WriteError(KfcnError):
    """A file that could not be written: nothing half is left, and what was there before still is.

    Args:
        failure: which file, and what failed.
        advice: what to do about it; empty where nothing is known.
    """

    def __init__(self, failure: str, advice: str = ""):
        super().__init__(failure, advice)  # as `args` they come whole out of another process
        self.failure, self.advice = failure, advice

    def __str__(self):
        return one_line(f"{self.failure}; {self.advice}" if self.advice else self.failure)

    def advising(self, advice: str) -> "WriteError":
        """The same with further advice."""
        return WriteError(self.failure, f"{self.advice}; {advice}" if self.advice else advice)


class WorkerLostError(KfcnError):
    """Another worker of a cluster has gone; started again, the run goes on from its checkpoint."""

    code = 75  # "try again" (EX_TEMPFAIL of sysexits.h)


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, and has saved its state; the message says how to continue.

    Attributes:
        code: exit code, 128 + the signal's number.
    """

    def __init__(self, message: str, code: int = 130):
        super().__init__(message)
        self.code = code


def one_line(text: str) -> str:
    """A text whose line breaks, as of a file's name, are written out."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def first_line(error: BaseException) -> str:
    """The first line of another library's error, short enough to stand inside one of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def received(value: Any) -> str:
    """A value of a damaged file, short enough to stand inside a message."""
    return _short.repr(value)


def shortlist(things: Iterable) -> str:
    """The first five, and how many more there are."""
    things = [str(thing) for thing in things]
    more = f" and {len(things) - 5} more" if len(things) > 5 else ""
    return ", ".join(things[:5]) + more


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with what it counts: "1 picture", "2 pictures".

    Args:
        number: how many.
        noun: of one.
        plural: of none or several, where it is not the noun with an s.
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def require(module: str, purpose: str, extra: str) -> ModuleType:
    """Imports an optional package, before anything is read that would need it.

    Args:
        module: what is imported, such as "scipy.io".
        purpose: what it is needed for, as the beginning of a sentence.
        extra: the extra of kfcn that installs it.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UsageError(
            f"{purpose} needs the package {package}, which is not installed; "
            f"pip install 'kfcn[{extra}]'"
        ) from error
