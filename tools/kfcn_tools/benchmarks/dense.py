"""Shift-and-stitch against à trous: time, peak memory and largest difference.

    python -m kfcn_tools.benchmarks.dense

For each stride f the first log2(f) stages of VGG16 at a quarter of its width, ending at stride f,
are made dense (one cell a pixel) both ways on the same image and weights. The runs alternate in
one process; each peak of memory is that of a process of its own. The largest difference is taken
over the cells whose receptive field lies inside the image, shifts included: nearer to the border
the two see zeros at different places and must differ. Beside it stands a control, the largest
difference to the map moved by one cell.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from kfcn_tools.benchmarks.timing import machine_and_onednn

if TYPE_CHECKING:
    import keras

FACTORS = (4, 8, 16, 32)
STAGES = ((2, 16), (2, 32), (3, 64), (3, 128), (3, 128))  # convolutions, width: VGG16 / 4


def slim_vgg(factor: int) -> "keras.Model":
    """VGG16's stages down to stride `factor`, He-random weights: activations keep their size."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((None, None, 3))
    for stage in range(factor.bit_length() - 1):
        depth, width = STAGES[stage]
        for _ in range(depth):
            x = layers.Conv2D(
                width, 3, padding="same", activation="relu", kernel_initializer="he_normal"
            )(x)
        x = layers.MaxPooling2D(2)(x)
    return keras.Model(inputs, x)


def prepare(factor: int, pixels: int) -> "tuple[dict[str, Callable[[], Any]], keras.Model]":
    """The two ways to the dense map, as functions of no arguments, and the coarse model."""
    import kfcn

    model = slim_vgg(factor)
    dense = kfcn.to_atrous(model, 1)
    image = np.random.default_rng(0).normal(size=(1, pixels, pixels, 3)).astype(np.float32)
    ways = {
        "stitch": lambda: kfcn.shift_and_stitch(model, image, factor, progress=False),
        "atrous": lambda: np.asarray(dense(image, training=False)),
    }
    return ways, model


def differences(
    stitched: np.ndarray, dense: np.ndarray, model: "keras.Model", factor: int, pixels: int
) -> tuple[int, float, float]:
    """Cells compared, the largest difference, and the largest to the map moved by one."""
    from kfcn.rewrite import receptive_fields

    # Cell p of the dense map is centred at p + offset. A shift moves up to factor - 1 zeros in.
    (field,) = receptive_fields(model)
    offset = max(field.offset) if isinstance(field.offset, tuple) else field.offset
    size = float(field.extent)  # the same for rows and columns, like the offset
    first = max(int(np.ceil((size - 1) / 2 - offset)), 0)
    first = -(-first // factor) * factor  # a shifted run has its own border at the shift
    first += factor - 1
    last = int(pixels - 1 - (size - 1) / 2 - offset)
    inside = slice(first, last)
    moved = slice(first + 1, last + 1)
    a, b = stitched[:, inside, inside], dense[:, inside, inside]
    control = np.abs(a - dense[:, moved, inside]).max(initial=0)
    return a.shape[1], float(np.abs(a - b).max(initial=0)), float(control)


def peak(way: str, factor: int, pixels: int, answer: Queue) -> None:
    """In a process of its own: MiB of resident memory that one run takes at its peak."""
    ways, _ = prepare(factor, pixels)
    # Linux only: forgets the peak so far, which is that of importing TensorFlow.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    ways[way]()
    answer.put((_status("VmHWM") - before) / 1024)


def _status(entry: str) -> int:
    """A size in KiB from this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry))


def peak_of(way: str, factor: int, pixels: int) -> float:
    """Starts `peak` and waits for its answer."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=peak, args=(way, factor, pixels, answer))
    process.start()
    value = answer.get()
    process.join()
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pixels", type=int, default=256, help="side of the image")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each, alternating")
    parser.add_argument("--factors", type=int, nargs="+", default=FACTORS, choices=FACTORS)
    args = parser.parse_args(argv)

    import keras
    import tensorflow as tf

    print(machine_and_onednn())
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, NumPy {np.__version__}")
    print(f"VGG16 at a quarter width, {args.pixels}x{args.pixels} pixels, output stride 1;")
    print(
        f"seconds: median of {args.repeats} alternating runs; MiB: peak of one run, own process\n"
    )
    heads = ["f", "stitch s", "à trous s", "ratio", "stitch MiB", "à trous MiB"]
    heads += ["cells", "difference", "control"]
    print("|", " | ".join(heads), "|")
    print("|" + "---:|" * len(heads))
    for factor in args.factors:
        ways, model = prepare(factor, args.pixels)
        ways["atrous"]()  # the first run allocates
        seconds, maps = {way: [] for way in ways}, {}
        for _ in range(args.repeats):
            for way, run in ways.items():
                start = time.perf_counter()
                maps[way] = run()
                seconds[way].append(time.perf_counter() - start)
        stitch, atrous = (statistics.median(seconds[way]) for way in ways)
        cells, largest, control = differences(
            maps["stitch"], maps["atrous"], model, factor, args.pixels
        )
        memory = [peak_of(way, factor, args.pixels) for way in ways]
        print(
            f"| {factor} | {stitch:.2f} | {atrous:.2f} | {stitch / atrous:.1f} | {memory[0]:.0f} "
            f"| {memory[1]:.0f} | {cells}² | {largest:.1e} | {control:.1f} |",
            flush=True,
        )
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
