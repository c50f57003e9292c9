"""`python -m kfcn_mobile.targets NAME ...`: makes targets ready ahead of time and describes them.

What a target needs is fetched when it is first used. This fetches it earlier, for a machine that
will have no network, or for one whose measurements should not be disturbed.
"""

import sys
from collections.abc import Sequence

from kfcn_mobile.console import Parser
from kfcn_mobile.errors import TargetError
from kfcn_mobile.targets import KINDS, make_targets, spelled


def main(argv: Sequence[str] | None = None) -> int:
    """Starts each target; the exit code is 1 where one cannot be used."""
    parser = Parser(prog="python -m kfcn_mobile.targets", description=__doc__)
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="; ".join(f"{spelled(name)} ({kind.needs})" for name, kind in KINDS.items()),
    )
    failed = False
    for name in parser.parse_args(argv).names:
        try:
            for target in make_targets(name, print):
                with target:
                    print(f"{target.name}: {target.machine}", flush=True)
        except TargetError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
