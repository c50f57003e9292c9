"""`python -m kfcn_mobile.targets NAME ...`: makes targets ready ahead of time and describes them.

What a target needs is fetched when it is first used. This fetches it earlier, for a machine that
will have no network, or for one whose measurements should not be disturbed.
"""

import sys

from kfcn_mobile.targets import TargetError, make_targets


def main(names: list[str]) -> int:
    """Starts each target; the exit code is 1 where one cannot be used."""
    failed = False
    for name in names:
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
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
