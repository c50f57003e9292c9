"""Labels of pictures by every runtime of the machine, in turn.

    python -m kfcn_tools.benchmarks.runtimes [NET...] [--cores 1] [--sizes N] [--rounds 9]

TensorFlow computes as kfcn has it compute (`kfcn.fused`), LiteRT the program that `kfcn-predict`
runs, ONNX Runtime and OpenVINO (where they are installed) the ONNX file of the same program. torch,
eager and compiled, computes the same net (`nets.torch_nets`) in processes of its own; compiled for
one size only, for it takes a minute for another. All start from a picture in uint8 and end with its
labels; those are compared, but for torch's, which has weights of its own. "First" is a picture of a
size that no picture before had.

Milliseconds are those of a clock, for a picture of a turn, which has five or all sizes: the machine
should have nothing else to do. Freed memory is not kept as `kfcn-predict` keeps it
(`kfcn.machine.recycle_memory`): that would hold for every runtime of the process.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kfcn.machine import cores, use_onednn
from kfcn_tools.benchmarks.folder import SIDES
from kfcn_tools.benchmarks.peers import Process
from kfcn_tools.benchmarks.timing import alternate, keep_to_cores, machine_and_onednn

# Architecture, backbone, output stride, alpha, classes, height and width.
NETS = {
    "fcn8s, mobilenet_v2 0.35": ("fcn8s", "mobilenet_v2", None, 0.35, 21, (375, 500)),
    "fcn8s, mobilenet_v2": ("fcn8s", "mobilenet_v2", None, None, 12, (360, 480)),
    "fcn8s-fpn, mobilenet_v2, stride 16": ("fcn8s-fpn", "mobilenet_v2", 16, None, 12, (360, 480)),
    "fcn8s, mobilenet_v3_large": ("fcn8s", "mobilenet_v3_large", None, None, 21, (360, 480)),
    "fcn8s, efficientnet_lite0": ("fcn8s", "efficientnet_lite0", None, None, 21, (360, 480)),
    "fcn8s, efficientnet_v2_b0": ("fcn8s", "efficientnet_v2_b0", None, None, 21, (360, 480)),
    "fcn8s, resnet50": ("fcn8s", "resnet50", None, None, 21, (360, 480)),
    "fcn8s, vgg16": ("fcn8s", "vgg16", None, None, 21, (360, 480)),
}
TURN = 5
"""Pictures in a turn at least: one after the others' turns finds caches and threads cold."""
IN_TORCH = ("fcn8s, mobilenet_v2", "fcn8s, mobilenet_v3_large", "fcn8s, resnet50")

Run = Callable[[np.ndarray], np.ndarray]


def ways(model: Any, threads: int) -> dict[str, Run]:
    """Functions from images uint8 `(1, H, W, 3)` to labels, by the runtime's name."""
    from kfcn.inference.runtime.from_keras import program_of
    from kfcn.inference.runtime.net import KerasNet
    from kfcn.inference.runtime.on_litert import LiteRTNet
    from kfcn.inference.runtime.onnx_graph import write_onnx

    program = program_of(model)
    found: dict[str, Run] = {
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


def torch_processes(name: str, compiled: bool) -> dict[str, Process]:
    """The net in torch, also compiled, where it is written there and torch is installed."""
    if name not in IN_TORCH or not importlib.util.find_spec("torchvision"):
        return {}
    _, backbone, _, _, classes, size = NETS[name]
    spec = {"maker": "torch", "backbone": backbone, "classes": classes, "size": size}
    names = {"torch": "fcn8s"} | ({"torch compiled": "fcn8s compiled"} if compiled else {})
    return {runtime: Process({**spec, "net": net}) for runtime, net in names.items()}


def measure(name: str, sizes: int, rounds: int) -> None:
    """Prints the rows of a net: for a picture of its size, or for pictures of so many sizes."""
    import keras

    from kfcn.nets import architectures

    arch, backbone, stride, alpha, classes, size = NETS[name]
    keras.utils.set_random_seed(0)
    body = {} if alpha is None else {"alpha": alpha}
    model = architectures.build(arch, classes, backbone, stride, {}, body)
    spread_scores(model)
    rng = np.random.default_rng(0)
    pairs = rng.permutation([(height, width) for height in SIDES for width in SIDES])
    shapes = [size] if sizes == 1 else [tuple(pair) for pair in pairs[:sizes]]
    warm, *pictures = (
        rng.integers(0, 256, (1, *shape, 3), np.uint8)
        for shape in [(size[0] - 7, size[1] + 9), *shapes]
    )
    turn = pictures * -(-TURN // len(pictures))
    labels: dict[str, list[np.ndarray]] = {}
    first: dict[str, float] = {}
    runs: dict[str, Callable[[], Any]] = {}

    def add(runtime: str, run: Callable[[np.ndarray], Any]) -> None:
        run(warm)
        start = time.perf_counter()
        labels[runtime] = [run(picture) for picture in pictures]
        first[runtime] = 1e3 * (time.perf_counter() - start) / len(pictures)
        runs[runtime] = lambda: [run(picture) for picture in turn]

    for runtime, run in ways(model, cores()).items():
        add(runtime, run)
    processes = torch_processes(name, compiled=sizes == 1)
    for runtime, process in processes.items():
        add(runtime, lambda picture, p=process: p.ask("labels {1} {2}".format(*picture.shape)))
    times = alternate(runs, rounds)
    for process in processes.values():
        process.end()
    for runtime in runs:
        middle, low, high = np.percentile(times[runtime] / len(turn), (50, 0, 100))
        pairs = zip(labels[runtime], labels["TensorFlow"], strict=True)
        differ = (
            "–"
            if runtime in processes
            else f"{1e6 * np.mean([(a != b).mean() for a, b in pairs]):.0f}"
        )
        ratio = np.median(times[runtime] / times["LiteRT"])
        print(
            f"| {name} | {runtime} | {middle:.1f} ({low:.1f}–{high:.1f}) | {ratio:.2f} "
            f"| {first[runtime]:.0f} | {differ} |",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m kfcn_tools.benchmarks.runtimes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(NETS)}; all")
    parser.add_argument("--cores", type=int, default=1, metavar="N", help="and threads (1)")
    parser.add_argument(
        "--sizes",
        type=int,
        choices=range(1, len(SIDES) ** 2 + 1),
        default=1,
        metavar="N",
        help=f"pictures of so many sizes, drawn, at most {len(SIDES) ** 2} (1)",
    )
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="in turn (9)")
    args = parser.parse_args(argv)
    if unknown := set(args.nets) - set(NETS):
        parser.error(f"unknown net {unknown.pop()!r}; expected some of {', '.join(NETS)}")
    keep_to_cores(args.cores)
    use_onednn()
    print(machine_and_onednn())
    print(
        f"{args.cores} of the cores; ms a picture, median (range) of {args.rounds} rounds, time by"
    )
    print("LiteRT's in the same round; labels other than TensorFlow's, pixels in a million")
    print("| net | runtime | ms | by LiteRT's | first | other labels |\n|---|---|---|---|---|---|")
    for name in args.nets or NETS:
        measure(name, args.sizes, args.rounds)
    return 0


def spread_scores(model: Any) -> None:
    """Random weights for the score layers: a fresh net's are zeros, and so are its labels."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.startswith("score") and layer.weights:
            layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])


if __name__ == "__main__":
    sys.exit(main())
