"""kfcn's nets beside their peers: training, inference, memory and start-up, measured in turn.

    python -m kfcn_tools.benchmarks.peers [resnet50] [mobilenet_v3_large] [mobilenet_v2] [--json F]

Peers are what is installed: torch and torchvision, KerasHub, LiteRT. Each net has a process of its
own that waits for its turn; in each round every net of a group does one step, in an order that is
drawn anew. A ratio is the median, over the rounds, of the peer's time by the time of the kfcn net
that it is to be compared with, which has the same backbone and output stride. All weights are
random: nothing here says how well a net segments.

Each library takes as many threads as there are cores, or as `--cores` leaves it. TensorFlow
computes with oneDNN, which kfcn's commands switch on, unless `TF_ENABLE_ONEDNN_OPTS=0`. With
`ONEDNN_MAX_CPU_ISA=AVX2` a machine with AVX-512 shows what the convolutions of TensorFlow and torch
do without; what `torch.compile` writes itself keeps AVX-512, and LiteRT has no such switch. Freed
memory is given back, as `kfcn-train` does; `kfcn-predict` keeps it (`kfcn.machine.recycle_memory`).

`--table FILE...` prints the tables of earlier runs again, as one.
"""

import argparse
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kfcn_tools.benchmarks.timing import SIDE, alternate, keep_to_cores, machine

RESNET, MOBILE3, MOBILE2 = "resnet50", "mobilenet_v3_large", "mobilenet_v2"


def _net(maker, net, backbone, stride, beside=None, **more) -> dict:
    """What there is to know of a net; `beside` is the kfcn net that it is compared with."""
    return {
        "maker": maker,
        "net": net,
        "backbone": backbone,
        "stride": stride,
        "beside": beside,
    } | more


# The output stride is that of the backbone's last map. KerasHub's net refuses 360 rows, which are
# no multiple of 32, and is given 384.
GROUPS = {
    RESNET: [
        _net("kfcn", "fcn8s", RESNET, 32),
        _net("torch", "fcn8s", RESNET, 32, "kfcn fcn8s"),
        _net("torch", "fcn8s compiled", RESNET, 32, "kfcn fcn8s"),
        _net("KerasHub", "deeplab_v3_plus", RESNET, 32, "kfcn fcn8s", size=(384, 480)),
        _net("kfcn", "dilated", RESNET, 8),
        _net("torchvision", "fcn_resnet50", RESNET, 8, "kfcn dilated"),
    ],
    MOBILE3: [
        _net("kfcn", "fcn8s", MOBILE3, 32),
        _net("torch", "fcn8s", MOBILE3, 32, "kfcn fcn8s"),
        _net("torch", "fcn8s compiled", MOBILE3, 32, "kfcn fcn8s"),
        _net("torchvision", "lraspp_mobilenet_v3_large", MOBILE3, 16, "kfcn fcn8s"),
    ],
    MOBILE2: [
        _net("kfcn", "fcn8s", MOBILE2, 32),
        _net("torch", "fcn8s", MOBILE2, 32, "kfcn fcn8s"),
        _net("torch", "fcn8s compiled", MOBILE2, 32, "kfcn fcn8s"),
        _net("LiteRT", "kfcn-convert", MOBILE2, 32),
        _net("LiteRT", "naive", MOBILE2, 32, "LiteRT kfcn-convert"),
    ],
}
PACKAGES = {"torch": ("torch", "torchvision"), "torchvision": ("torch", "torchvision")}
PACKAGES |= {"KerasHub": ("keras_hub",), "LiteRT": ("ai_edge_litert",), "kfcn": ("kfcn",)}

# Mean IoU as published, in per cent, and on what: never ours, and not comparable with each other.
CARD = "COCO val2017 subset, VOC's classes (torchvision's card)"
PUBLISHED = {
    "torchvision fcn_resnet50": f"60.5, {CARD}",
    "torchvision lraspp_mobilenet_v3_large": f"57.9, {CARD}",
    "KerasHub deeplab_v3_plus": "63, VOC with SBD (KerasHub's preset)",
}


def name(net: dict) -> str:
    """How a net is called in its group."""
    return f"{net['maker']} {net['net']}"


class Process:
    """A net in a process of its own.

    Args:
        spec: of the net, see `kfcn_tools.benchmarks.nets`.

    Attributes:
        hello: what it said first: "versions", "parameters", "imported" (MiB after the imports).
        started: when, by `time.perf_counter`.
    """

    def __init__(self, spec: dict):
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (lives as long as the process)
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kfcn_tools.benchmarks.nets.child", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.hello = self._answer()

    def ask(self, command: str) -> dict:
        """Sends a command and waits until it is done."""
        print(command, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        assert self._process.stdout is not None  # a pipe
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            code = self._process.wait()
            raise RuntimeError(f"a net's process ended with {code}: {self._log.read()[-2000:]}")
        return json.loads(line)

    def end(self) -> None:
        """Ends it."""
        self._process.communicate("quit\n")


def measure(nets: list[dict], args: argparse.Namespace) -> dict:
    """Measures the nets of a group in turn: name -> figures."""
    found = {name(net): {**net, "ratios": {}, "seconds": {}, "mib": {}} for net in nets}
    product = Process({"maker": "matrix"})
    trained = [net for net in nets if net["maker"] != "LiteRT"]
    for what in args.what:
        chosen, batches = (nets, (1, 8)) if what == "infer" else (trained, (args.train_batch,))
        running = {}
        for net in chosen:
            running[name(net)] = process = Process(net)
            figures = found[name(net)]
            figures |= process.hello
            if what == "infer":
                process.ask("infer 1")
                figures["start"] = time.perf_counter() - process.started
        for batch in batches:
            step = f"{what} {batch}"
            here = {n: p for n, p in running.items() if batch == 1 or "LiteRT" not in n}
            runs = {n: functools.partial(p.ask, step) for n, p in here.items()}
            runs["product"] = functools.partial(product.ask, "infer 1")
            times = alternate(runs, 4 * args.rounds if step == "infer 1" else args.rounds)
            _note(found, times, step, here)
        for each, process in running.items():
            if "LiteRT" not in each:  # last: counting takes memory
                found[each] |= process.ask("flops")
            process.end()
    product.end()
    return found


def _note(found: dict, times: dict, step: str, running: dict) -> None:
    """Writes down medians, ratios of pairs, memory, and the rate of the matrix product."""
    peak = 2 * SIDE**3 / (1e-3 * float(np.median(times["product"])))
    for each, process in running.items():
        figures = found[each]
        figures["seconds"][step] = 1e-3 * float(np.median(times[each]))
        figures["mib"][step] = process.ask("memory")["mib"]
        figures.setdefault("peak", {})[step] = peak
        if figures["beside"] in times:
            ratios = times[each] / times[figures["beside"]]
            figures["ratios"][step] = [float(v) for v in np.percentile(ratios, (50, 0, 100))]


def missing(net: dict) -> str | None:
    """The package that a net needs and that is not installed."""
    return next((p for p in PACKAGES[net["maker"]] if not importlib.util.find_spec(p)), None)


def work(args: argparse.Namespace) -> None:
    """Measures the groups and prints their tables."""
    if args.cores:
        keep_to_cores(args.cores)
    print(machine(), flush=True)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for group in args.groups:
            nets = []
            for net in GROUPS[group]:
                if package := missing(net):
                    print(f"left out: {name(net)}, for {package} is not installed")
                    continue
                nets.append({"classes": args.classes, "size": tuple(args.size)} | net)
                if net["maker"] == "LiteRT":
                    nets[-1] |= {"file": f"{folder}/{net['net']}.tflite"}
                    writer = [sys.executable, "-m", "kfcn_tools.benchmarks.nets.litert_nets"]
                    subprocess.run([*writer, json.dumps(nets[-1])], check=True, capture_output=True)
            results[group] = measure(nets, args)
            print(f"{group}: done, {os.getloadavg()[0]:.1f} load", flush=True)
    settings = {name: getattr(args, name) for name in ("classes", "size", "train_batch", "cores")}
    result = {"machine": machine(), **settings, "nets": results}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(tables([result]))


def _cores(count: int | None) -> str:
    return f", {count} core{'s' * (count > 1)}" if count else ""


def tables(results: list[dict]) -> str:
    """The figures of runs as Markdown."""
    versions, peaks = {}, []
    train = [
        "| net | stride | GFLOP/image | images/s | of peak | time by kfcn's (range) | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    infer = [
        "| net | images/s, 1 | of peak | time by kfcn's | images/s, 8 | of peak | time by kfcn's "
        "| MiB, 1 | MiB, 8 | start-up s | M parameters | published mean IoU |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for group, nets in _merged(results).items():
        for each, figures in nets.items():
            if not figures["seconds"]:  # a file is not trained
                continue
            versions |= figures["versions"]
            peaks += figures["peak"].values()
            figures.setdefault("flops", nets["kfcn fcn8s"]["flops"])  # a file is of that net
            title = each if group in each else f"{each}, {group}"
            for step in figures["seconds"]:
                if step.startswith("train"):
                    gflop = f"{1e-9 * figures['flops']:.1f}"
                    cells = [title, str(figures["stride"]), gflop, *_speed(figures, step)]
                    train.append(f"| {' | '.join(cells)} | {figures['mib'][step]:.0f} |")
            if "infer 1" in figures["seconds"]:
                cells = [title, *_speed(figures, "infer 1"), *_speed(figures, "infer 8")]
                cells += [_cell(figures["mib"].get(f"infer {b}"), ".0f") for b in (1, 8)]
                cells.append(f"{figures['start']:.1f}")
                count = figures["parameters"]
                cells.append(_cell(count and count / 1e6, ".1f"))
                infer.append(f"| {' | '.join(cells)} | {PUBLISHED.get(each, '–')} |")
    height, width = results[0]["size"]
    low, high = (1e-9 * f(peaks) for f in (min, max))
    lines = [
        "; ".join(dict.fromkeys(result["machine"] for result in results)),
        ", ".join(f"{package} {v}" for package, v in sorted(versions.items())),
        f"{height}x{width} pixels, {results[0]['classes']} classes, float32, training batch "
        f"{results[0]['train_batch']}{_cores(results[0].get('cores'))}",
        f"peak: {low:.0f} to {high:.0f} GFLOP/s, float32 product of {SIDE}x{SIDE}",
    ]
    return "\n".join([*lines, "", "Training", "", *train, "", "Inference", "", *infer])


def _merged(results: list[dict]) -> dict:
    """Group -> name -> figures, of runs of which one trained and another inferred."""
    merged = {}
    for result in results:
        for group, nets in result["nets"].items():
            for each, figures in nets.items():
                known = merged.setdefault(group, {}).setdefault(each, {})
                for key, value in figures.items():
                    both = key in known and isinstance(value, dict)
                    known[key] = known[key] | value if both else value
    return merged


def _speed(figures: dict, step: str) -> list[str]:
    """Images per second, share of the peak, and the ratio to kfcn's net."""
    if step not in figures["seconds"]:
        return ["–"] * 3
    kind, batch = step.split()
    speed = int(batch) / figures["seconds"][step]
    # Backwards is twice forwards: to the weights and to the map before.
    work = figures["flops"] * (3 if kind == "train" else 1)
    ratio = "–"
    if step in figures["ratios"]:
        ratio = "{:.2f} ({:.2f}–{:.2f})".format(*figures["ratios"][step])
    return [f"{speed:.2f}", f"{100 * work * speed / figures['peak'][step]:.0f} %", ratio]


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m kfcn_tools.benchmarks.peers`."""
    cli = argparse.ArgumentParser(prog="python -m kfcn_tools.benchmarks.peers", description=__doc__)
    cli.formatter_class = argparse.RawDescriptionHelpFormatter
    cli.add_argument("groups", nargs="*", default=list(GROUPS), metavar="GROUP")
    cli.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("H", "W"))
    cli.add_argument("--classes", type=int, default=21)
    cli.add_argument("--train-batch", type=int, default=2, metavar="B")
    cli.add_argument("--what", nargs="+", choices=["train", "infer"], default=["train", "infer"])
    cli.add_argument("--rounds", type=int, default=4, help="four times as many of single images")
    cli.add_argument("--cores", type=int, metavar="N", help="let each use only so many")
    cli.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    cli.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="print these again")
    args = cli.parse_args(argv)
    if unknown := set(args.groups) - set(GROUPS):
        cli.error(f"group {', '.join(sorted(unknown))}: expected some of {', '.join(GROUPS)}")
    if args.table:
        print(tables([json.loads(path.read_text(encoding="utf-8")) for path in args.table]))
    else:
        work(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
