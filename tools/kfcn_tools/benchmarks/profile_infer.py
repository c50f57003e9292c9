"""Where the time of a net goes, by kind of operation: inference of one image.

    python -m kfcn_tools.benchmarks.profile_infer [--arch fcn8s] [--backbone NAME] [--classes 21]

as TensorFlow's profiler sees it, with what TensorFlow itself fuses shown as it runs.
"""

import argparse
import collections
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kfcn.commands._cli import run
from kfcn_tools.benchmarks.profile_train import read
from kfcn_tools.benchmarks.timing import machine_and_onednn

REPEATS = 10


def by_kind(step: Callable[[], Any], repeats: int = REPEATS) -> dict[str, tuple[float, float]]:
    """Milliseconds of one call and number of operations by kind, the longest first."""
    import tensorflow as tf

    spent: dict[str, float] = collections.defaultdict(float)
    count: dict[str, float] = collections.defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(repeats):
                step()
        for _, kind, seconds in read(folder):
            spent[kind] += 1e3 * seconds / repeats
            count[kind] += 1 / repeats
    longest = sorted(spent.items(), key=lambda pair: pair[1], reverse=True)
    return {kind: (ms, count[kind]) for kind, ms in longest}


def work(args: argparse.Namespace) -> None:
    """Measures and prints a table."""
    from kfcn.fused import run_net
    from kfcn.nets import architectures

    model = architectures.build(args.arch, args.classes, args.backbone)
    image = np.random.default_rng(0).uniform(0, 255, (1, *args.size, 3)).astype(np.float32)
    times = []
    for _ in range(REPEATS + 2):
        start = time.perf_counter()
        run_net(model, image)
        times.append(1e3 * (time.perf_counter() - start))
    kinds = by_kind(lambda: run_net(model, image))
    total = sum(ms for ms, _ in kinds.values())
    print(machine_and_onednn())
    height, width = args.size
    print(f"{args.arch} on {args.backbone}, {args.classes} classes, {height}x{width}:", end=" ")
    print(f"{np.median(times[2:]):.1f} ms; operations of several threads overlap")
    print("| operation | ms | share | how many |\n|---|---|---|---|")
    for kind, (ms, count) in kinds.items():
        if ms > 0.01 * total:
            print(f"| {kind} | {ms:.1f} | {100 * ms / total:.0f} % | {count:.0f} |")


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m kfcn_tools.benchmarks.profile_infer`."""
    cli = argparse.ArgumentParser(description=__doc__)
    cli.formatter_class = argparse.RawDescriptionHelpFormatter
    cli.add_argument("--arch", default="fcn8s")
    cli.add_argument("--backbone", default="mobilenet_v2")
    cli.add_argument("--classes", type=int, default=21)
    cli.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("H", "W"))
    return run(cli, work, argv)


if __name__ == "__main__":
    sys.exit(main())
