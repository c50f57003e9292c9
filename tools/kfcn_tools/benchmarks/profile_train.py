"""Where the time of a training step goes, by kind of work and by layer.

Run as `python -m kfcn_tools.benchmarks.profile_train --data camvid --data-dir CamVid`. The
profiler of TensorFlow notes each operation of some steps; an operation belongs to the layer whose
name stands in its own, and counts forward and back together. Where operations run at the same time
their sum is longer than the step: look at the shares.

Beside a layer's time stands that of copying its map once: whatever a layer does, forward and back,
it cannot be much quicker than a few of these.

Memory is how much more the process held at its peak than before its first step. Beside it stands
the size of all layers' outputs, which make up most of what a backward pass needs.
"""

import argparse
import collections
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kfcn.machine import use_onednn
from kfcn_tools.benchmarks import train as bench_train
from kfcn_tools.benchmarks.timing import machine_and_onednn, peak_mib

MIB = 2**20
# By what stands in the operation's name and type; the first that fits.
KINDS = {
    "loss": ("segmentation",),  # forward and back, as `SegmentationLoss` is called
    "reading and augmenting": ("PyFunc", "Iterator"),
    "optimizer": ("adam_w", "Assign"),
    "depthwise convolution": ("Depthwise",),
    "convolution": ("Conv2D",),  # transposed ones too: one is the other's gradient
    "batch normalisation": ("BatchNorm",),
    "activation": ("Relu", "Sigmoid", "Swish"),
    "padding, cutting, joining": ("Pad", "Slice", "Gather", "UnsortedSegment", "Concat", "Split"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints both tables; returns 0."""
    cli = bench_train.options(__doc__ or "")
    cli.add_argument("--layers", type=int, default=15, help="how many of the slowest to print")
    args = cli.parse_args(argv)
    use_onednn()
    print(machine_and_onednn())
    found = profile(args)
    events, total = found.events, sum(seconds for *_, seconds in found.events)
    print(
        f"{args.arch} on {args.backbone}: {1e3 * found.seconds:.0f} ms a step of "
        f"{args.batch_size}; memory {found.memory:.0f} MiB, {found.memory / found.maps:.2f} "
        f"times the layers' maps ({found.maps:.0f} MiB)"
    )
    for title, key, rows in (("kind", 1, len(KINDS) + 1), ("layer", 0, args.layers)):
        print(f"\n{title:36}       ms   share{'   a copy, ms' if title == 'layer' else ''}")
        shares: dict[str, float] = collections.defaultdict(float)
        for event in events:
            shares[str(event[key])] += event[2]
        for name, took in sorted(shares.items(), key=lambda pair: -pair[1])[:rows]:
            copy = f"{1e3 * found.copies[name]:13.2f}" if name in found.copies else ""
            print(f"{name:36} {1e3 * took:8.1f}  {100 * took / total:5.1f} %{copy}")
    return 0


class Profile(NamedTuple):
    """What was noted of a training step.

    Attributes:
        events: the operations as (layer, kind, seconds a step).
        seconds: of a step.
        memory: MiB held at the peak beyond those before the first step.
        maps: MiB of the outputs of all layers.
        copies: seconds that a copy of each layer's output takes.
    """

    events: list[tuple[str, str, float]]
    seconds: float
    memory: float
    maps: float
    copies: dict[str, float]


def profile(args: argparse.Namespace) -> Profile:
    """Trains some steps under the profiler."""
    import keras
    import tensorflow as tf

    with bench_train.loop(args) as loop, tempfile.TemporaryDirectory() as folder:
        before = peak_mib()
        for _ in range(3):  # the first one traces
            loop.one_step()
        memory, seconds = peak_mib() - before, loop.progress.seconds
        tf.profiler.experimental.start(folder)
        for _ in range(args.steps):
            loop.one_step()
        tf.profiler.experimental.stop()
        seconds = (loop.progress.seconds - seconds) / args.steps
        names = [layer.name for layer in loop.learner.model.layers]
        events = [
            (layer_of(path, names), kind_of(f"{path}:{operation}"), took / args.steps)
            for path, operation, took in read(folder)
        ]
        outputs = keras.Model(
            loop.learner.model.inputs, [layer.output for layer in loop.learner.model.layers]
        )
        maps = outputs(tf.zeros((args.batch_size, *args.crop, 3)), training=False)
        sizes = [x.dtype.size * int(tf.size(x)) for x in keras.tree.flatten(maps)]
        a_byte = seconds_to_copy_a_byte()
        copies = {name: size * a_byte for name, size in zip(names, sizes, strict=True)}
        return Profile(events, seconds, memory, sum(sizes) / MIB, copies)


def seconds_to_copy_a_byte() -> float:
    """By a copy of 64 MiB on one core, more than caches hold; the median of five."""
    source = np.zeros(64 * MIB, np.uint8)
    target = np.ones_like(source)  # both have been written to: their pages are there
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - begun)
    return float(np.median(times)) / source.size


def read(folder: str) -> Iterator[tuple[str, str, float]]:
    """The noted operations as (name, type, seconds)."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    for path in Path(folder).rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in space.planes:
            for line in plane.lines:
                for event in line.events:
                    name = plane.event_metadata[event.metadata_id].name.split("#")[0]
                    path, _, operation = name.rpartition(":")
                    # What runs operations is noted as well: `ExecutorState::Process`, `Eager...`.
                    if operation and path and not path.endswith(":") and "Eager" not in path:
                        yield path, operation, event.duration_ps / 1e12


def kind_of(operation: str) -> str:
    """The kind of work of an operation `name:type`."""
    return next(
        (kind for kind, parts in KINDS.items() if any(part in operation for part in parts)),
        "other",
    )


def layer_of(path: str, layers: list[str]) -> str:
    """The layer in an operation's name: `gradient_tape/fcn8s_1/block_1_expand_1/Conv2D`."""
    for part in path.split("/"):
        for name in (part, part.rpartition("_")[0]):  # a second call of a layer is numbered
            if name in layers:
                return name
    return "input, loss, optimizer"


if __name__ == "__main__":
    raise SystemExit(main())
