"""What the benchmarks share: timing in turn, and what machine it was."""

import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from kfcn.machine import cores, cpu_name, import_tensorflow, instruction_set, onednn_is_on

SIDE = 4096
"""Rows and columns of the matrices whose product stands for what the CPU can do at most."""

PAUSE = 0.02
"""Seconds between two runs: the threads of many libraries spin for a while after their work."""


def alternate(runs: dict[str, Callable[[], None]], rounds: int, seed: int = 0) -> dict:
    """Times functions in turn: name -> milliseconds, float64 (rounds,).

    Each runs once unmeasured. In each round every one runs once, in an order that is drawn anew:
    noise from outside hits all of them alike, and ratios are taken within the round.
    """
    rng = np.random.default_rng(seed)
    names = list(runs)
    times = {name: np.empty(rounds) for name in names}
    for name in names:
        runs[name]()
    for i in range(rounds):
        for k in rng.permutation(len(names)):
            time.sleep(PAUSE)
            start = time.perf_counter()
            runs[names[k]]()
            times[names[k]][i] = 1e3 * (time.perf_counter() - start)
    return times


def keep_to_cores(count: int) -> None:
    """Leaves this process, and those that it starts, so many cores; on Linux.

    Libraries look at that and take as many threads.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def onednn() -> str:
    """What oneDNN does in TensorFlow, which is imported: "off", "on", or kept to a set."""
    if not onednn_is_on():
        return "off"
    kept = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"kept to {kept}" if kept else "on"


def machine() -> str:
    """CPU with its widest vectors, cores and load of this machine, in one line.

    A processor's name does not say which instructions a virtual machine hands on to it.
    """
    parts = (cpu_name(), instruction_set(), f"{cores()} cores")
    return ", ".join((*filter(None, parts), f"load {os.getloadavg()[0]:.1f}"))


def machine_and_onednn() -> str:
    """`machine`, and what oneDNN does in TensorFlow, in one line; imports TensorFlow."""
    import_tensorflow()
    return f"{machine()}; oneDNN in TensorFlow: {onednn()}"


def peak_mib() -> float:
    """The greatest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
