"""Time and memory of DenseCRF against pydensecrf, the field's C++ code, in one run.

    python -m kfcn_tools.benchmarks.crf

Needs `pip install pydensecrf2`. Both get the same image and the same unaries, set-up included
(the lattice is part of every image), and run in turns: each figure is the median over the pairs,
the ratio the median of the pairs' ratios. pydensecrf has no gradient, so a training step is held
against DenseCRF's own forward pass. Memory is the peak of the resident set above what the process
held before the first call, each in a process of its own.
"""

import argparse
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kfcn_tools.benchmarks.timing import machine

SIZES = ((240, 320), (375, 500))
THETAS = ((80.0, 13.0), (160.0, 3.0))
CLASSES, ITERATIONS = 21, 5
WEIGHTS = (3.0, 5.0)


def scene(
    height: int, width: int, classes: int = CLASSES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Shapes of `classes` shaded colours with noise, as uint8 (H, W, 3), and logits (H, W, C)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), int)
    for shape in range(3 * classes):
        centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.03, 0.2, 2)
        inside = ((y / height - centre[0]) / radius[0]) ** 2
        inside = inside + ((x / width - centre[1]) / radius[1]) ** 2 < 1
        labels[inside] = shape % classes
    shade = 25 * np.sin(4 * x / width) * np.cos(3 * y / height)
    image = rng.uniform(30, 225, (classes, 3))[labels] + shade[..., None]
    image = image + rng.normal(0, 6, image.shape)
    logits = 3 * np.eye(classes)[labels] + rng.normal(0, 1, (height, width, classes))
    return np.clip(image, 0, 255).astype(np.uint8), logits.astype(np.float32)


def pydensecrf(
    image: np.ndarray, logits: np.ndarray, alpha: float, beta: float
) -> Callable[[], np.ndarray]:
    """A function that runs the reference: probabilities (H, W, C)."""
    from pydensecrf import densecrf

    height, width, classes = logits.shape
    after = densecrf.NORMALIZE_AFTER
    unary = np.ascontiguousarray(-logits.reshape(-1, classes).T)

    def run():
        field = densecrf.DenseCRF2D(width, height, classes)
        field.setUnaryEnergy(unary)
        field.addPairwiseGaussian(sxy=3, compat=WEIGHTS[0], normalization=after)
        field.addPairwiseBilateral(
            sxy=alpha, srgb=beta, rgbim=image, compat=WEIGHTS[1], normalization=after
        )
        return np.array(field.inference(ITERATIONS)).T.reshape(height, width, classes)

    return run


def ours(
    image: np.ndarray, logits: np.ndarray, alpha: float, beta: float, train: bool = False
) -> Callable[[], Any]:
    """A function that runs DenseCRF: logits (1, H, W, C), or the gradients of a training step."""
    import tensorflow as tf

    from kfcn.crf import DenseCRF

    layer = DenseCRF(ITERATIONS, ITERATIONS, alpha, beta, 3.0, *WEIGHTS)
    layer.build([(1, *logits.shape), (1, *image.shape)])
    scores, pixels = tf.constant(logits[None]), tf.constant(image[None], tf.float32)
    labels = tf.argmax(scores, -1)

    @tf.function
    def forward(logits, image):
        return layer([logits, image])

    @tf.function
    def step(logits, image):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            refined = layer([logits, image], training=True)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, refined)
            loss = tf.reduce_mean(loss)
        sources = [logits, *(v.value for v in layer.trainable_variables)]
        return tape.gradient(loss, sources)

    def run():
        if train:
            return [np.asarray(gradient) for gradient in step(scores, pixels)]
        return np.asarray(forward(scores, pixels))

    return run


def seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall time and processor time (of all threads) of one call."""
    wall, cpu_time = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu_time


def megabytes() -> float:
    """Peak resident set of this process so far (getrusage would count its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def peak_memory(what: str, size: tuple[int, int], thetas: tuple[float, float]) -> float:
    """Peak MB above the start of `what` ("pydensecrf", "forward" or "step") in a new process."""
    command = [
        sys.executable,
        "-m",
        "kfcn_tools.benchmarks.crf",
        "--peak",
        what,
        *map(str, (*size, *thetas)),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(answer.stdout.split()[-1])


def print_peak(what: str, height: str, width: str, alpha: str, beta: str) -> None:
    """The child's side of `peak_memory`."""
    image, logits = scene(int(height), int(width))
    arguments = image, logits, float(alpha), float(beta)
    if what == "pydensecrf":
        run = pydensecrf(*arguments)
    else:
        # A trial run on a few pixels: the libraries and their threads are no part of the figure.
        ours(image[:8, :8], logits[:8, :8], 80.0, 13.0, train=what == "step")()
        run = ours(*arguments, train=what == "step")
    start = megabytes()
    for _ in range(3):
        run()
    print(megabytes() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=15, help="turns of each pair (default 15)")
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        return print_peak(*arguments.peak)

    versions = (f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    print(f"{', '.join(versions)}; {machine()}")
    print(f"{CLASSES} classes, {ITERATIONS} iterations, median of {arguments.pairs} turns")
    print("ms: wall time (processor time of all threads)\n")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for size in SIZES:
        for thetas in THETAS:
            print(row(size, thetas, arguments.pairs), flush=True)
    return None


COLUMNS = (
    "size",
    "alpha/beta",
    "pydensecrf ms",
    "forward ms",
    "forward / pydensecrf",
    "step ms",
    "step / forward",
    "labels equal",
    "peak MB: pydensecrf",
    "forward",
    "step",
)
PACKAGES = ("tensorflow", "keras", "numpy", "pydensecrf2")


def row(size: tuple[int, int], thetas: tuple[float, float], pairs: int) -> str:
    """One line of the table."""
    image, logits = scene(*size)
    runs = [
        pydensecrf(image, logits, *thetas),
        ours(image, logits, *thetas),
        ours(image, logits, *thetas, train=True),
    ]
    results = [run() for run in runs]  # traces the graphs, too
    equal = np.mean(results[0].argmax(-1) == results[1][0].argmax(-1))
    for run in runs:
        run()
    times = np.array([[seconds(run) for run in runs] for _ in range(pairs)])  # (turn, run, 2)
    medians = [f"{wall:.0f} ({work:.0f})" for wall, work in np.median(times, 0) * 1e3]
    forward_ratio, step_ratio = (
        "{:.2f} ({:.2f})".format(*np.median(times[:, i + 1] / times[:, i], 0)) for i in (0, 1)
    )
    peaks = [peak_memory(what, size, thetas) for what in ("pydensecrf", "forward", "step")]
    cells = [
        f"{size[1]}x{size[0]}",
        f"{thetas[0]:g}/{thetas[1]:g}",
        *medians[:2],
        forward_ratio,
        medians[2],
        step_ratio,
        f"{equal:.5f}",
        *(f"{peak:.0f}" for peak in peaks),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
