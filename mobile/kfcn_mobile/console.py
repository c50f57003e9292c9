"""What the commands print, on every console."""

import io
import sys


def print_any_letters() -> None:
    """Lets a class of any name be printed, also where the console lacks its letters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
