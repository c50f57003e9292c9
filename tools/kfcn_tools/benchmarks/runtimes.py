"""Labels of one image by every runtime of the machine, in turn and in one process.

    python -m kfcn_tools.benchmarks.runtimes [NET...] [--threads 1] [--rounds 9]

TensorFlow computes as kfcn has it compute (`kfcn.fused`), LiteRT the program that `kfcn-predict`
runs, ONNX Runtime and OpenVINO (where they are installed) the ONNX file of the same program. All
start from a picture in uint8 and end with its labels, which are compared. "New size" is what the
first image of a size costs that no image before had. oneDNN is switched for TensorFlow by
`TF_ENABLE_ONEDNN_OPTS` and `ONEDNN_MAX_CPU_ISA`.

Milliseconds are those of the processor, of all threads: with one thread they are what a quiet
machine's clock would show, on a machine that has other work as well.
"""

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kfcn.machine import import_tensorflow, onednn_is_on, use_onednn
from kfcn_tools.benchmarks.timing import machine

# Architecture, backbone, output stride, alpha, classes, height and width.
NETS = {
    "fcn8s, mobilenet_v2 0.35": ("fcn8s", "mobilenet_v2", None, 0.35, 21, (375, 500)),
    "fcn8s, mobilenet_v2": ("fcn8s", "mobilenet_v2", None, None, 12, (360, 480)),
    "fcn8s-fpn, mobilenet_v2, stride 16": ("fcn8s-fpn", "mobilenet_v2", 16, None, 12, (360, 480)),
    "fcn8s, mobilenet_v3_large": ("fcn8s", "mobilenet_v3_large", None, None, 21, (360, 480)),
    "fcn8s, efficientnet_lite0": ("fcn8s", "efficientnet_lite0", None, None, 21, (360, 480)),
    "fcn8s, resnet50": ("fcn8s", "resnet50", None, None, 21, (360, 480)),
}


def ways(model: Any, threads: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Functions from images uint8 `(1, H, W, 3)` to labels, by the runtime's name."""
    from kfcn.inference.runtime.from_keras import program_of
    from kfcn.inference.runtime.net import KerasNet
    from kfcn.inference.runtime.on_litert import LiteRTNet
    from kfcn.inference.runtime.onnx_graph import write_onnx

    program = program_of(model)
    found = {
        "TensorFlow": KerasNet(model).labels,
        "LiteRT": LiteRTNet(program, threads).labels,
    }
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(write_onnx(program), options)
        found["ONNX Runtime"] = lambda images: session.run(None, {"image": images})[0]
    if importlib.util.find_spec("openvino"):
        import openvino

        core = openvino.Core()
        hints = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # as all others compute
        }
        compiled = core.compile_model(core.read_model(write_onnx(program)), "CPU", hints)
        found["OpenVINO"] = lambda images: compiled(images)[0]
    return found


def milliseconds(run: Callable[[np.ndarray], object], images: np.ndarray) -> float:
    """Processor time of one call."""
    start = time.process_time()
    run(images)
    return 1e3 * (time.process_time() - start)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m kfcn_tools.benchmarks.runtimes",
        description="Labels of one image by every runtime of the machine, in turn.",
    )
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(NETS)}; all")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each (1)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="in turn (9)")
    args = parser.parse_args(argv)
    if unknown := set(args.nets) - set(NETS):
        parser.error(f"unknown net {unknown.pop()!r}; expected some of {', '.join(NETS)}")
    use_onednn()
    import_tensorflow()
    import keras
    import tensorflow as tf

    from kfcn.nets import architectures

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "all instructions")
    print(f"{machine()}; oneDNN in TensorFlow: {isa if onednn_is_on() else 'off'}")
    print(f"{args.threads} threads, ms, median (range) of {args.rounds} rounds; other labels than")
    print("TensorFlow's, pixels in a million")
    print("| net | runtime | ms | new size | other labels |\n|---|---|---|---|---|")
    for name in args.nets or NETS:
        arch, backbone, stride, alpha, classes, size = NETS[name]
        keras.utils.set_random_seed(0)
        body = {} if alpha is None else {"alpha": alpha}
        model = architectures.build(arch, classes, backbone, stride, {}, body)
        spread_scores(model)
        rng = np.random.default_rng(0)
        image, other = (
            rng.integers(0, 256, (1, *s, 3), np.uint8) for s in (size, (size[0] - 7, size[1] + 9))
        )
        found = ways(model, args.threads)
        labels = {runtime: run(image) for runtime, run in found.items()}
        new = {runtime: milliseconds(run, other) for runtime, run in found.items()}
        times = {runtime: [] for runtime in found}
        for _ in range(args.rounds):
            for runtime, run in found.items():
                times[runtime].append(milliseconds(run, image))
        for runtime, taken in times.items():
            differ = 1e6 * (labels[runtime] != labels["TensorFlow"]).mean()
            print(
                f"| {name} | {runtime} | {statistics.median(taken):.0f} "
                f"({min(taken):.0f}–{max(taken):.0f}) | {new[runtime]:.0f} | {differ:.0f} |",
                flush=True,
            )
    return 0


def spread_scores(model: Any) -> None:
    """Random weights for the score layers: a fresh net's are zeros, and so are its labels."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.startswith("score") and layer.weights:
            layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])


if __name__ == "__main__":
    sys.exit(main())
