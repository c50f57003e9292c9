"""Latency of a bundle's files beside the same net converted naively, measured in turn.

    python -m kfcn_tools.benchmarks.convert MODEL BUNDLE [--rounds 30] [--threads 1]

Naively means `tf.lite.TFLiteConverter.from_keras_model(model)` and nothing else: float image in,
float logits out, dense transposed convolutions. Once with the model as it is, for any size, and
once with the model wrapped at the bundle's size, which is the better of the two for the runtime.
In each round every file runs once, in an order that is drawn anew: noise from outside hits all of
them alike, and the ratio is taken within the round.
"""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from kfcn_mobile.bundle import read_bundle

from kfcn.commands._cli import run
from kfcn_tools.benchmarks.timing import alternate
from kfcn_tools.litert import open_interpreter

if TYPE_CHECKING:
    import keras

BASELINE = "naive, fixed size"


def naive_files(model: "keras.Model", size: tuple[int, int]) -> dict[str, bytes]:
    """The model converted without any care: for any size, and for one."""
    import keras
    import tensorflow as tf

    fixed = keras.Input(batch_shape=(1, *size, 3))
    models = {"naive, any size": model, BASELINE: keras.Model(fixed, model(fixed))}
    # The converter prints what it saved where to standard output, where the table goes.
    with contextlib.redirect_stdout(io.StringIO()):
        return {
            name: tf.lite.TFLiteConverter.from_keras_model(each).convert()
            for name, each in models.items()
        }


def runner(content: bytes, image: np.ndarray, threads: int) -> Callable[[], None]:
    """A function that runs a file once on an image."""
    interpreter = open_interpreter(content, threads=threads, shape=(1, *image.shape))
    (given,) = interpreter.get_input_details()
    batch = image[None].astype(given["dtype"])
    outputs = [detail["index"] for detail in interpreter.get_output_details()]

    def once():
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        for index in outputs:
            interpreter.get_tensor(index)

    return once


def work(args: argparse.Namespace) -> int:
    """Measures and prints a table."""
    import keras

    from kfcn.saved import load_model

    loaded = load_model(args.model)
    model = keras.Model(loaded.inputs[0], loaded.outputs[0])
    bundle = read_bundle(args.bundle)
    image = bundle.golden[0].image
    contents = naive_files(model, bundle.size)
    contents |= {m["mode"]: (bundle.path / m["file"]).read_bytes() for m in bundle.models}
    runs = {name: runner(content, image, args.threads) for name, content in contents.items()}
    times = alternate(runs, args.rounds)
    rows = [
        {
            "file": name,
            "kib": len(contents[name]) / 1024,
            "median_ms": float(np.median(times[name])),
            "min_ms": float(times[name].min()),
            # Medians of the ratios within each round.
            "times_naive": float(np.median(times[BASELINE] / times[name])),
            "times_float32": float(np.median(times["float32"] / times[name]))
            if "float32" in times
            else None,
        }
        for name in contents
    ]
    print("| file | KiB | median ms | min ms | x naive | x float32 |\n|---|---|---|---|---|---|")
    for row in rows:
        ours = "–" if row["times_float32"] is None else f"{row['times_float32']:.2f}"
        print(
            f"| {row['file']} | {row['kib']:.0f} | {row['median_ms']:.1f} | {row['min_ms']:.1f}"
            f" | {row['times_naive']:.2f} | {ours} |"
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m kfcn_tools.benchmarks.convert`."""
    cli = argparse.ArgumentParser(description=__doc__)
    cli.formatter_class = argparse.RawDescriptionHelpFormatter
    cli.add_argument("model", metavar="MODEL")
    cli.add_argument("bundle", metavar="BUNDLE")
    cli.add_argument("--rounds", type=int, default=30)
    cli.add_argument("--threads", type=int, default=1)
    cli.add_argument("--json", type=Path, metavar="FILE")
    return run(cli, work, argv)


if __name__ == "__main__":
    sys.exit(main())
