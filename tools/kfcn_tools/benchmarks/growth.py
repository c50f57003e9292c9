"""How time and memory grow with area, batch, classes, images, huge pictures and replicas.

    python -m kfcn_tools.benchmarks.growth [AXIS...] [--json F] [--plot F]

FCN-8s on MobileNetV2, one step of training and of inference with a batch of one 240x320 image and
12 classes, but for what grows. The peaks of memory are without what importing and building took.
Data sets are folders of drawn scenes (up to 10^5 pairs; a hundred are drawn, the rest are links):
the time to index it, to open every pair once as each training does, and from there to the first
augmented batch, which includes the shuffling. "megapixels" is one picture that is segmented in
tiles, on the runtime of `kfcn-predict`; memory is without the picture itself. "replicas" is one
image of training with 1 and 2 replicas of a process and 1 and 2 workers, which share the machine's
cores (`kfcn_tools.benchmarks.train`), and the memory of the largest process.

The exponent is the slope over the last three points of the logarithms: 1 is linear.
`--table FILE...` prints and draws earlier runs again, as one.
"""

import argparse
import functools
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from kfcn.machine import import_tensorflow, recycle_memory, use_onednn
from kfcn_tools.benchmarks.timing import machine, machine_and_onednn, peak_mib

HEIGHT, WIDTH, CLASSES, REPEATS = 240, 320, 12, 5
AXES = {
    "area": (1, 2, 4, 8, 16),  # times 240x320
    "batch": (1, 2, 4, 8, 16),
    "classes": (2, 5, 12, 21, 40, 80, 150),
    "images": (100, 1000, 10_000, 100_000),
    "megapixels": (3, 10, 30, 100),
    "replicas": (1, 2),
}


def steps(axis: str, what: str, values: Sequence[int]) -> list[dict]:
    """Median time and peak memory of a step, in this process, for growing values."""
    use_onednn()
    import_tensorflow()
    from kfcn_tools.benchmarks.nets.keras_nets import Net

    found = []
    for value in values:
        side = value**0.5 if axis == "area" else 1
        # To multiples of 32: no map is then padded for being odd.
        size = [32 * round(edge * side / 32) for edge in (HEIGHT, WIDTH)]
        batch = value if axis == "batch" else 1
        net = Net(
            {
                "maker": "kfcn",
                "net": "fcn8s",
                "backbone": "mobilenet_v2",
                "stride": 32,
                "classes": value if axis == "classes" else CLASSES,
                "size": size,
            }
        )
        before = found[0]["before"] if found else peak_mib()
        step = functools.partial(getattr(net, what), batch)
        step()  # traces
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        # The areas that were asked for are met to a few per cent.
        exact = size[0] * size[1] / (HEIGHT * WIDTH) if axis == "area" else value
        mib = peak_mib() - before
        found.append({"at": exact, "seconds": float(np.median(times)), "mib": mib})
        found[-1]["before"] = before
        del net, step
    return found


def huge_picture(megapixels: int) -> dict:
    """Time and memory of segmenting a picture, in this process."""
    recycle_memory()  # as kfcn-predict does
    use_onednn()
    import_tensorflow()
    from kfcn import fcn8s
    from kfcn.data import load
    from kfcn.inference.runtime.net import quickest
    from kfcn.inference.segment import segment

    net = quickest(fcn8s(CLASSES, "mobilenet_v2"))
    scene = load("scenes", "val")[0].image
    side = round((1e6 * megapixels / 12) ** 0.5)  # 3:4
    size = 3 * side, 4 * side
    times = [-(-whole // part) for whole, part in zip(size, scene.shape[:2], strict=True)]
    image = np.tile(scene, (*times, 1))[: size[0], : size[1]]
    before, start = peak_mib(), time.perf_counter()
    segment(net, image)
    seconds = time.perf_counter() - start
    return {"at": megapixels, "seconds": seconds, "mib": peak_mib() - before}


def replicas(values: Sequence[int]) -> dict[str, list[dict]]:
    """Seconds an image and memory of training with so many replicas, and workers."""
    from kfcn_tools.benchmarks.train import in_new_processes

    curves: dict[str, list[dict]] = {}
    for kind in ("replica", "worker"):
        for value in values:
            way = f"{value} {kind}{'s' * (value > 1)}"
            speed, _, mib, _ = in_new_processes(way, ["--data", "scenes", "--measure"])
            curves.setdefault(f"{kind}s", []).append(
                {"at": value, "seconds": 1 / speed, "mib": mib}
            )
    return curves


def data_set(folder: str) -> dict:
    """Time and memory of a data set's way to the first batch, in this process."""
    use_onednn()
    import_tensorflow()  # before the clock starts

    from kfcn import data
    from kfcn.data.feed.batches import training_batches
    from kfcn.data.feed.views import cached

    before, times = peak_mib(), [time.perf_counter()]
    dataset = data.load("folder", "train", folder)
    times.append(time.perf_counter())
    memory = [peak_mib()]
    dataset = cached(dataset)
    data.check(dataset)
    times.append(time.perf_counter())
    memory.append(peak_mib())
    next(iter(training_batches(dataset, 8, (128, 128), seed=0)))
    times.append(time.perf_counter())
    memory.append(peak_mib())
    seconds = dict(zip(("index", "check", "first batch"), np.diff(times).tolist(), strict=True))
    mib = dict(zip(seconds, (m - before for m in memory), strict=True))
    return {"at": len(dataset), "seconds": seconds, "mib": mib}


def draw(root: Path, count: int) -> str:
    """A folder of so many pairs, of which a hundred are drawn and the others links to them."""
    from PIL import Image

    from kfcn.data.sets.scenes import CLASSES as NAMES
    from kfcn.data.sets.scenes import Scenes

    images, labels = (root / kind / "train" for kind in ("images", "labels"))
    for folder in (images, labels):
        folder.mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(NAMES.names) + "\n")
    scenes = Scenes("train")
    for index in range(count):
        if index < 100:
            image, truth, _ = scenes[index]
            Image.fromarray(image).save(images / f"{index:06d}.jpg")
            Image.fromarray(truth).save(labels / f"{index:06d}.png")
            continue
        for folder, suffix in ((images, "jpg"), (labels, "png")):
            drawn = folder / f"{index % 100:06d}.{suffix}"
            (folder / f"{index:06d}.{suffix}").hardlink_to(drawn)
    return str(root)


def measure(axis: str, values: Sequence[int]) -> dict:
    """The points of an axis: curve -> list of points."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as process:
        if axis == "replicas":
            return replicas(values)
        if axis == "megapixels":
            # Each in a process of its own: what the larger one takes would hide the smaller.
            points = [process.submit(huge_picture, value).result() for value in values]
            return {"segment": points}
        if axis != "images":
            return {
                what: process.submit(steps, axis, what, values).result()
                for what in ("train", "infer")
            }
        points = []
        for count in values:
            with tempfile.TemporaryDirectory() as folder:
                points.append(process.submit(data_set, draw(Path(folder) / "set", count)).result())
        return {
            stage: [
                {"at": p["at"], "seconds": p["seconds"][stage], "mib": p["mib"][stage]}
                for p in points
            ]
            for stage in points[0]["seconds"]
        }


def exponent(points: list[dict], what: str) -> float:
    """The slope of the logarithms over the last three points."""
    x, y = (np.log([max(p[key], 1e-9) for p in points[-3:]]) for key in ("at", what))
    return float(np.polyfit(x, y, 1)[0])


def tables(axes: dict) -> str:
    """The figures as Markdown, an axis a table."""
    lines = []
    for axis, curves in axes.items():
        lines += ["", f"| {axis} | " + " | ".join(f"{c} s | MiB" for c in curves) + " |"]
        lines.append("|" + "---|" * (1 + 2 * len(curves)))
        for points in zip(*curves.values(), strict=True):
            cells = [f"{p['seconds']:.3g} | {p['mib']:.0f}" for p in points]
            lines.append(f"| {points[0]['at']:.4g} | {' | '.join(cells)} |")
        fits = [[f"{exponent(c, w):.2f}" for w in ("seconds", "mib")] for c in curves.values()]
        lines.append(f"| exponent | {' | '.join(' | '.join(pair) for pair in fits)} |")
    return "\n".join(lines)


def plot(axes: dict, path: Path) -> None:
    """Draws time above and memory below, an axis a column, both logarithmic."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, cells = plt.subplots(2, len(axes), figsize=(3.2 * len(axes), 5.6), squeeze=False)
    for column, (axis, curves) in enumerate(axes.items()):
        for row, (what, title) in enumerate((("seconds", "seconds"), ("mib", "peak MiB"))):
            cell = cells[row, column]
            for name, points in curves.items():
                x, y = ([p[key] for p in points] for key in ("at", what))
                cell.loglog(x, np.maximum(y, 1e-3), "o-", label=name, markersize=4)
            # What is linear runs along this line, what is worse crosses it upwards.
            end = max(points[-1][what] for points in curves.values())
            last = list(curves.values())[-1]
            x = np.array([last[0]["at"], last[-1]["at"]])
            cell.loglog(x, end * x / x[-1], "--", color="0.6", label="linear")
            cell.set_title(f"{title} by {axis}", fontsize=10)
            cell.grid(alpha=0.3)
        cells[0, column].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m kfcn_tools.benchmarks.growth`."""
    cli = argparse.ArgumentParser(description=__doc__)
    cli.formatter_class = argparse.RawDescriptionHelpFormatter
    cli.add_argument("axes", nargs="*", default=list(AXES), metavar="AXIS")
    cli.add_argument("--values", type=int, nargs="+", help="of the axis, instead of its own")
    cli.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    cli.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures there, SVG or PNG")
    cli.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="show these again")
    args = cli.parse_args(argv)
    if unknown := set(args.axes) - set(AXES):
        cli.error(f"axis {', '.join(sorted(unknown))}: expected some of {', '.join(AXES)}")
    if args.table and args.json:
        cli.error("--json is for what is measured, --table for what was: choose one")
    use_onednn()
    where = machine() if args.table else machine_and_onednn()
    print(where, flush=True)
    found = {}
    for path in args.table or ():
        found |= json.loads(path.read_text(encoding="utf-8"))["axes"]
    for axis in () if args.table else args.axes:
        found[axis] = measure(axis, args.values or AXES[axis])
        print(f"{axis}: done", flush=True)
        if args.json:  # after each, which take minutes
            content = {"machine": where, "axes": found}
            args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        plot(found, args.plot)
    print(tables(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
