"""Damages files by the thousand and reads them in child processes: `fuzz.py --count 10000`.

A case is a kind and a number, from which all of its damage follows: `fuzz.py KIND NUMBER` tries
one again. A child that crashes, takes more than 10 seconds of processor time for one case, or
waits for ever fails that case, and another child goes on behind it.
"""

import argparse
import collections
import faulthandler
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SECONDS = 10
WAIT = 300  # wall time, after which a case can only wait for something that never comes
MEMORY = 6 << 30  # of address space, where no framework is loaded
FRAMEWORK = ("checkpoints", "clusters", "configs", "nets")


@dataclass
class Report:
    """What became of the cases of a kind.

    Attributes:
        outcomes: "read" and "refused", and how often.
        failures: number of the case -> what happened.
    """

    outcomes: collections.Counter = field(default_factory=collections.Counter)
    failures: dict[int, str] = field(default_factory=dict)


def run(kind: str, numbers: Iterable[int], module: str = "subjects") -> Report:
    """Runs cases in child processes, one after the other.

    Args:
        kind: a key of the module's `SUBJECTS`.
        numbers: of the cases.
        module: where the subjects are.
    """
    report, waiting = Report(), list(numbers)
    paths = [str(HERE), str(HERE.parent), *filter(None, sys.path)]
    while waiting:
        code = f"import fuzz; fuzz.child({module!r}, {kind!r}, {waiting!r})"
        child = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        rows = [json.loads(line[1:]) for line in child.stdout.split("\n") if line[:1] == "\x1e"]
        for number, outcome in rows:
            waiting.remove(number)
            if outcome in ("read", "refused"):
                report.outcomes[outcome] += 1
            else:
                report.failures[number] = outcome
        if waiting and child.returncode:
            ending = "\n".join(child.stderr.splitlines()[-30:])
            what = {-signal.SIGPROF: f"took more than {SECONDS} s of processor time"}
            report.failures[waiting.pop(0)] = (
                f"{what.get(child.returncode, f'ended with {child.returncode}')}: {ending}"
            )
        elif waiting:
            raise RuntimeError(f"the child left out {waiting}: {child.stderr}")
    return report


def child(module: str, kind: str, numbers: list[int]) -> None:
    """Runs cases in this process; a line for each that is done."""
    subject = __import__(module).SUBJECTS[kind]
    if kind in FRAMEWORK:
        import keras  # noqa: F401  (its import is no part of a case)

        import kfcn.training.replicas  # noqa: F401
    else:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    folder = Path(tempfile.mkdtemp(prefix="kfcn-fuzz-"))
    try:
        for number in numbers:
            faulthandler.dump_traceback_later(WAIT, exit=True)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            print(f"\x1e{json.dumps([number, case(subject, number, folder)])}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def case(subject, number: int, folder: Path) -> str:
    """The outcome of one case, or the traceback of what it should not have raised."""
    place = folder / str(number)
    place.mkdir()
    try:
        return subject(np.random.default_rng(number), place)
    except Exception:
        return traceback.format_exc()
    finally:
        shutil.rmtree(place)


def main() -> int:
    from subjects import SUBJECTS

    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("kind", nargs="?", choices=list(SUBJECTS), help="default: all")
    cli.add_argument("number", nargs="?", type=int, help="one case, in this process")
    cli.add_argument("--count", type=int, default=10_000, help="cases in all (10,000)")
    cli.add_argument("--first", type=int, default=0, help="number of the first case (0)")
    args = cli.parse_args()
    if args.number is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(case(SUBJECTS[args.kind], args.number, Path(folder)))
        return 0
    kinds = [args.kind] if args.kind else list(SUBJECTS)
    failed = 0
    for kind in kinds:
        numbers = range(args.first, args.first + -(-args.count // len(kinds)))
        report = run(kind, numbers)
        failed += len(report.failures)
        print(
            f"{kind:12} {len(numbers):6} cases  {report.outcomes['read']:6} read "
            f"{report.outcomes['refused']:6} refused {len(report.failures):4} failed",
            flush=True,
        )
        for number, what in list(report.failures.items())[:5]:
            print(f"  {kind} {number}: {what.strip().splitlines()[-1]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
