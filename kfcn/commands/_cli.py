"""What every command shares: the exit codes and how an error is told."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from kfcn.errors import KfcnError, UsageError


def run(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses `argv`, does `work(args)` and returns the exit code.

    0 when the work is done, 1 when it failed, 2 when the request makes no sense, 130 when
    Ctrl-C stopped it. `work` may return an exit code of its own.
    """
    args = parser.parse_args(argv)
    # TensorFlow prints its start-up notes before anything of ours; only errors are wanted.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return work(args) or 0
    except KfcnError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        return 130
