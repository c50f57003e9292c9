"""A folder of pictures through `kfcn.predict`: reading, net and writing, alone and together.

    python -m kfcn_tools.benchmarks.folder [--folder DIR] [--model RUN]

Takes photographs of mixed sizes (drawn ones, unless it is given a folder), segments them all once
so that every size has been seen, and then lets the ways take turns: each of the three steps alone,
all three one after another, and `kfcn.predict`, where they run at the same time. Its time is
compared with that of the slowest step alone.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from kfcn.machine import recycle_memory, use_onednn
from kfcn_tools.benchmarks.timing import machine_and_onednn

SIDES = (240, 320, 375, 427, 480, 500, 640)


def draw_pictures(folder: Path, count: int) -> list[Path]:
    """Writes JPEG pictures of drawn scenes, their sides taken from `SIDES` at random."""
    from PIL import Image

    from kfcn.data import load

    scenes = load("scenes", "val")
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        width, height = rng.choice(SIDES, 2).tolist()
        picture = Image.fromarray(scenes[number % len(scenes)].image)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 6, (height, width, 3))  # photographs are not as smooth as drawings
        paths.append(folder / f"{number:05d}.jpg")
        noisy = (np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(paths[-1], quality=92)
    return paths


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """So many of the paths, from the first to the last, or all where there are fewer."""
    from kfcn.data import dataset

    return [paths[number] for number in dataset.spread(len(paths), count)]


def ways(
    net: Any, model: Any, paths: Sequence[Path], root: Path
) -> dict[str, Callable[[], object]]:
    """The ways to be timed, by their names; each writes into a folder of its own."""
    import kfcn
    from kfcn.data.formats.images import read_image
    from kfcn.inference.formats import writer_for
    from kfcn.inference.segment import segment
    from kfcn.outputs import Outputs

    images = [read_image(path) for path in paths]
    labels = [segment(net, image) for image in images]

    def new_writer():
        outputs = Outputs(tempfile.mkdtemp(dir=root))
        return writer_for(net.classes, None, outputs, "png")

    def write() -> None:
        writer = new_writer()
        for path, image, found in zip(paths, images, labels, strict=True):
            writer.write(path, image, found)

    def one_after_another() -> None:
        writer = new_writer()
        for path in paths:
            image = read_image(path)
            writer.write(path, image, segment(net, image))

    return {
        "read": lambda: [read_image(path) for path in paths],
        "net": lambda: [segment(net, image) for image in images],
        "write": write,
        "one after another": one_after_another,
        "predict": lambda: kfcn.predict(model, paths, tempfile.mkdtemp(dir=root)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m kfcn_tools.benchmarks.folder",
        description=__doc__,
    )
    parser.add_argument("--pictures", type=int, default=200, metavar="N", help="(200)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="of photographs instead")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="in turn (3)")
    parser.add_argument("--alpha", type=float, default=0.35, help="width of MobileNetV2 (0.35)")
    parser.add_argument("--model", metavar="RUN", help="a trained net instead")
    args = parser.parse_args(argv)

    from kfcn.inference.collect import collect
    from kfcn.inference.runtime.net import quickest
    from kfcn.saved import load_model

    recycle_memory()  # as the commands do
    use_onednn()

    if args.model:
        model = load_model(args.model)
    else:
        from kfcn import fcn8s

        model = fcn8s(21, backbone="mobilenet_v2", alpha=args.alpha)
    print(machine_and_onednn())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if args.folder:
            paths = spread(collect([args.folder]), args.pictures)
        else:
            paths = draw_pictures(root, args.pictures)
        found = ways(quickest(model), model, paths, root)
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(args.repeats):
            for name, way in found.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    print(f"{len(paths)} pictures, medians of {args.repeats} runs in turn")
    print("                   seconds (range)            images/s   of one after another")
    whole = statistics.median(seconds["one after another"])
    for name, times in seconds.items():
        middle, extent = statistics.median(times), f"({min(times):.2f} to {max(times):.2f})"
        rate, share = len(paths) / middle, middle / whole
        print(f"{name:18} {middle:7.2f}  {extent:18} {rate:8.1f} {share:12.0%}")
    steps = [seconds[name] for name in ("read", "net", "write")]
    ratios = [
        whole / max(of_step) for whole, *of_step in zip(seconds["predict"], *steps, strict=True)
    ]
    print(f"predict / slowest  {statistics.median(ratios):7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
