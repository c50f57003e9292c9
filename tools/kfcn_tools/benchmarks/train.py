"""Images per second of training, the share of time that it waits for input, and memory.

Run as `python -m kfcn_tools.benchmarks.train --data camvid --data-dir CamVid`; measures one and two
replicas of one process and one and two workers, in turn, each time in new processes on this
machine, with the same global batch. On a machine without GPUs all of them share the same cores:
what the second replica or worker costs there is the price of the exchange. `--ways "1 replica"
recompute bfloat16` shows what `--recompute` and `--precision mixed_bfloat16` save and cost.

Memory is the greatest that a process held: in all, and beyond that before its first step.

The pictures are decoded while it runs, as in the first epoch of a run.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kfcn.machine import use_onednn
from kfcn_tools.benchmarks.timing import machine_and_onednn, peak_mib

if TYPE_CHECKING:
    from kfcn.data import Dataset
    from kfcn.training.loop import Loop
    from kfcn.training.replicas import Replicas
    from kfcn.training.settings import Settings

WAYS = {
    "1 replica": ("--strategy", "one"),
    "2 replicas": ("--cpu-replicas", "2"),
    "1 worker": ("--workers", "1"),
    "2 workers": ("--workers", "2"),
    "recompute": ("--strategy", "one", "--recompute"),
    "bfloat16": ("--strategy", "one", "--precision", "mixed_bfloat16"),
}
USUAL = ("1 replica", "2 replicas", "1 worker", "2 workers")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns 0, or 1 where a way failed."""
    cli = options(__doc__ or "")
    cli.add_argument("--ways", nargs="+", choices=WAYS, default=USUAL, metavar="WAY")
    cli.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    cli.add_argument("--rounds", type=int, default=3, help="in which all ways take turns (3)")
    args = cli.parse_args(argv)
    use_onednn()
    if args.measure:
        measure(args)
        return 0
    common = [*(sys.argv[1:] if argv is None else argv), "--measure"]
    height, width = args.crop
    print(f"{args.arch} on {args.backbone}, {args.data} {height}x{width}, batch {args.batch_size}")
    print(machine_and_onednn())
    found: dict[str, list[tuple[float, ...]]] = {way: [] for way in args.ways}
    for number in range(args.rounds):
        for way in args.ways:
            try:
                found[way].append(in_new_processes(way, common))
            except RuntimeError as error:
                print(f"{way:10}  failed: {error}")
                return 1
            speed = found[way][-1][0]
            print(f"round {number + 1}  {way:10}  {speed:8.2f} images/s", flush=True)
    first = np.asarray(found[args.ways[0]])[:, 0]
    print(f"medians of {args.rounds} rounds (range)")
    print(f"way         images/s            of {args.ways[0]}   waits for input   MiB    of steps")
    for way in args.ways:
        figures = np.asarray(found[way])
        ratio = np.median(figures[:, 0] / first)
        speed, wait, peak, steps = np.median(figures, 0)
        extent = f"({figures[:, 0].min():.2f} to {figures[:, 0].max():.2f})"
        print(
            f"{way:10}  {speed:8.2f} {extent:17} {ratio:5.2f}   {100 * wait:13.1f} % "
            f"{peak:8.0f} {steps:8.0f}",
            flush=True,
        )
    return 0


def in_new_processes(way: str, options: Sequence[str]) -> tuple[float, float, float, float]:
    """One way: images per second, the share of time that it waited for input, and memory.

    Returns:
        Both, the greatest memory of a process in MiB, and how much of it came with the steps.

    Raises:
        RuntimeError: it failed; the message is the end of what it printed.
    """
    command = [sys.executable, "-m", "kfcn_tools.benchmarks.train", *options]
    flags = WAYS[way]
    if "--workers" in flags:
        launcher = [sys.executable, "-m", "kfcn.commands.launch", *flags]
        command = [*launcher, "--restarts", "0", "--", *command]
    else:
        command += flags
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    found = [line for line in done.stdout.splitlines() if '"images_per_second"' in line]
    if done.returncode or not found:
        raise RuntimeError((done.stderr or done.stdout).strip()[-300:])
    figures = [json.loads(line[line.index("{") :]) for line in found]
    slowest = min(f["images_per_second"] for f in figures)
    waiting, peak, steps = (max(f[key] for f in figures) for key in ("waiting", "mib", "steps"))
    return slowest, waiting, peak, steps


def options(description: str) -> argparse.ArgumentParser:
    """A parser of what is trained."""
    cli = argparse.ArgumentParser(description=description.splitlines()[0])
    cli.add_argument("--data", default="camvid")
    cli.add_argument("--data-dir")
    cli.add_argument("--arch", default="fcn8s")
    cli.add_argument("--backbone", default="mobilenet_v2")
    cli.add_argument("--crop", type=int, nargs=2, default=(352, 480), metavar=("H", "W"))
    cli.add_argument("--batch-size", type=int, default=4)
    cli.add_argument("--steps", type=int, default=15, help="measured, after 3 to warm up")
    cli.add_argument("--strategy", default="auto", help=argparse.SUPPRESS)
    cli.add_argument("--cpu-replicas", type=int, default=0, help=argparse.SUPPRESS)
    cli.add_argument("--recompute", action="store_true", help="as of kfcn-train")
    cli.add_argument("--precision", default="float32", help="as of kfcn-train")
    return cli


@contextlib.contextmanager
def loop(args: argparse.Namespace) -> "Iterator[Loop]":
    """The training loop of `options`, from random weights, in a run folder that goes away."""
    from kfcn import data as data_sets
    from kfcn.training import replicas
    from kfcn.training.resolution import resolve

    where = replicas.start(args.strategy, args.cpu_replicas)
    config = resolve(
        data=args.data, data_dir=args.data_dir, crop=args.crop, arch=args.arch,
        backbone=args.backbone, weights="none", batch_size=args.batch_size, learning_rate=1e-4,
        recompute=args.recompute, precision=args.precision, epochs=40,
    )  # fmt: skip
    with bare_loop(config, data_sets.load(config.data, "train", config.data_dir), where) as made:
        yield made


@contextlib.contextmanager
def bare_loop(
    config: "Settings",
    train_set: "Dataset",
    where: "Replicas",
    class_weights: np.ndarray | None = None,
    unlabelled: "Dataset | None" = None,
) -> "Iterator[Loop]":
    """A training loop to take single steps of: nothing is validated, nothing is kept.

    Args:
        config: of the training; its `class_weights` are not looked at.
        train_set: the training split.
        where: the replicas.
        class_weights: float32 `(C,)`, of the loss.
        unlabelled: pictures without labels to learn from as well, where `config` has a folder of
            them, which is not looked at.
    """
    from kfcn.training.checkpoint import Saving
    from kfcn.training.loop import Loop
    from kfcn.training.recorder import Progress
    from kfcn.training.run_folder import RunFolder
    from kfcn.training.stages import Stage
    from kfcn.training.start import new_learner

    with where.strategy.scope():
        learner = new_learner(config, train_set, class_weights, lambda line: None)
    with tempfile.TemporaryDirectory() as folder:
        stage, never = Stage(config, RunFolder(folder)), Saving(seconds=float("inf"))
        yield Loop(
            stage, learner, train_set, where, Progress(),
            None,  # pyright: ignore[reportArgumentType]: no epoch comes to its end here
            never, unlabelled,
        )  # fmt: skip


def measure(args: argparse.Namespace) -> None:
    """Trains a few steps in this process and prints its figures as JSON."""
    with loop(args) as run:
        before = peak_mib()
        for _ in range(3):  # the first one traces
            run.one_step()
        run.progress.seconds = run.progress.waited = 0.0
        for _ in range(args.steps):
            run.one_step()
        figures = {
            "images_per_second": args.steps * args.batch_size / run.progress.seconds,
            "waiting": run.progress.waited / run.progress.seconds,
            "mib": peak_mib(),
            "steps": peak_mib() - before,
        }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
