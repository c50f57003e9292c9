"""DenseCRF beside pydensecrf2, the field's C++ code, in turn and in one process.

    python -m kfcn_tools.benchmarks.crf [--turns 11]
    TF_ENABLE_ONEDNN_OPTS=0 python -m kfcn_tools.benchmarks.crf

Needs `pip install pydensecrf2`. All get the same image and the same unaries, set-up included (the
lattice is part of every image). pydensecrf2 has no gradient: a training step, too, is held against
its inference.

Milliseconds are those of the processor, with one thread: they are what a quiet machine's clock
would show, on a machine that has other work as well.
"""

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kfcn.machine import import_tensorflow, use_onednn
from kfcn_tools.benchmarks.timing import machine, onednn

SIZE = (240, 320)
THETAS = ((80.0, 13.0), (160.0, 3.0))
CLASSES = (6, 21)
ITERATIONS = 5
WEIGHTS = (3.0, 5.0)


def scene(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Shapes of `classes` shaded colours with noise, as uint8 (H, W, 3), and logits (H, W, C)."""
    height, width = SIZE
    rng = np.random.default_rng(0)
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


def milliseconds(run: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    run()
    return 1e3 * (time.process_time() - start)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m kfcn_tools.benchmarks.crf",
        description="DenseCRF beside pydensecrf2, in turn, on one thread.",
    )
    parser.add_argument("--turns", type=int, default=11, metavar="N", help="of each row (11)")
    args = parser.parse_args(argv)
    use_onednn()
    import_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    versions = (f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    print(f"{', '.join(versions)}; {machine()}")
    print(
        f"{SIZE[1]}x{SIZE[0]}, {ITERATIONS} iterations, one thread, processor time: pydensecrf2's"
    )
    print(f"median in ms, the others by its time in the same turn, median (range) of {args.turns}")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for thetas in THETAS:
        for classes in CLASSES:
            print(row(thetas, classes, args.turns), flush=True)
    return 0


COLUMNS = (
    "oneDNN", "widths", "classes", "pydensecrf2 ms", "forward", "training step", "labels equal, %"
)  # fmt: skip
PACKAGES = ("tensorflow", "keras", "numpy", "pydensecrf2")


def row(thetas: tuple[float, float], classes: int, turns: int) -> str:
    """One line of the table."""
    image, logits = scene(classes)
    runs = [
        pydensecrf(image, logits, *thetas),
        ours(image, logits, *thetas),
        ours(image, logits, *thetas, train=True),
    ]
    results = [run() for run in runs]  # traces the graphs, too
    equal = np.mean(results[0].argmax(-1) == results[1][0].argmax(-1))
    times = np.array([[milliseconds(run) for run in runs] for _ in range(turns)])  # (turn, run)
    ratios = (times[:, 1:] / times[:, :1]).T
    cells = [
        onednn(),
        "{:g}/{:g}".format(*thetas),
        str(classes),
        f"{np.median(times[:, 0]):.0f}",
        *(f"{np.median(r):.2f} ({r.min():.2f}–{r.max():.2f})" for r in ratios),
        f"{100 * equal:.3f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
