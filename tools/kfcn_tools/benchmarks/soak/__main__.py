"""The command; see `kfcn_tools.benchmarks.soak`."""

import argparse
from collections.abc import Sequence

from kfcn_tools.benchmarks.soak.ways import WAYS, soak
from kfcn_tools.benchmarks.timing import machine


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables; returns 1 where something grew."""
    cli = argparse.ArgumentParser(description="Whether a long run grows.")
    cli.add_argument("ways", nargs="+", choices=WAYS, metavar="WAY", help=", ".join(WAYS))
    cli.add_argument("--count", type=int, help="steps, pictures, ... (5000; evaluations: 50)")
    args = cli.parse_args(argv)
    failed = False
    for name in args.ways:
        total = args.count or WAYS[name].total
        print(f"{name}: {total} {WAYS[name].unit}, {machine()}", flush=True)
        rows, found = soak(name, total, lambda line: print(line, flush=True))
        speed = (rows[-1].count - rows[0].count) / (rows[-1].seconds - rows[0].seconds)
        print(f"{speed:.1f} {WAYS[name].unit} a second; {'; '.join(found) or 'flat'}\n", flush=True)
        failed = failed or bool(found)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
