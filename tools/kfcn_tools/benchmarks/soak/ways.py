"""The runs that are watched: training, prediction, evaluation and a server, on drawn pictures."""

import http.client
import itertools
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kfcn.labels import IGNORE
from kfcn_tools.benchmarks.soak.watching import (
    EPOCH,
    HEAD,
    HEAD_OF_EACH,
    KEPT,
    Row,
    Run,
    grown,
    watch,
)


def draw_pairs(folder: Path, count: int, validation: int = 8, seed: int = 0) -> Path:
    """A data set `folder` of grey pictures with a square in them, 48x56, two classes.

    Of each picture some rows are not labelled, from none to a third.
    """
    from PIL import Image

    rng = np.random.default_rng(seed)
    for split, number in (("train", count), ("val", validation)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(number):
            image = rng.normal(120, 20, (48, 56, 3))
            labels = np.zeros((48, 56), np.uint8)
            y, x = rng.integers(0, 28, 2)
            image[y : y + 20, x : x + 20] += (90, -40, -40)
            labels[y : y + 20, x : x + 20] = 1
            labels[: rng.integers(0, 17)] = IGNORE
            name = f"{index:05d}.png"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
                folder / "images" / split / name
            )
            Image.fromarray(labels).save(folder / "labels" / split / name)
    (folder / "classes.txt").write_text("ground #808080\nsquare #ff0000\n")
    return folder


def draw_pictures(folder: Path, count: int, sizes: int, seed: int = 0) -> Path:
    """Pictures of so many different sizes, 33 to 160 pixels a side, each size as often."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    every = list(itertools.product(range(33, 161), repeat=2))
    chosen = [every[i] for i in rng.choice(len(every), sizes, replace=False)]
    folder.mkdir(parents=True)
    for index in range(count):
        image = rng.integers(0, 256, (*chosen[index % sizes], 3), np.uint8)
        Image.fromarray(image).save(folder / f"{index:05d}.png", compress_level=1)
    return folder


def untrained(folder: Path) -> Path:
    """A run folder with a small FCN-8s of random weights."""
    import keras

    from kfcn.files import write_json
    from kfcn.nets import architectures
    from kfcn.saved import CARD, MODEL, save_model

    keras.utils.set_random_seed(0)
    net = architectures.build("fcn8s", 2, "mobilenet_v2", None, backbone_options={"alpha": 0.35})
    rng = np.random.default_rng(0)
    for weights in net.trainable_variables:  # those of the scores begin as zeros
        if not weights.numpy().any():
            weights.assign(rng.normal(0, 0.1, weights.shape))
    folder.mkdir()
    save_model(net, folder / MODEL)
    classes = {"classes": ["ground", "square"], "palette": [[128, 128, 128], [255, 0, 0]]}
    write_json(folder / CARD, classes)
    return folder


def command_of(name: str) -> list[str]:
    """The words that start a command of kfcn in this Python."""
    start = f"import sys; from kfcn.commands.{name} import main; sys.exit(main())"
    return [sys.executable, "-c", start]


def training(folder: Path, steps: int, *flags: str, workers: int = 0) -> Run:
    """A training run of eight small convolutions with batch normalisation, a step a few ms."""
    data, run = draw_pairs(folder / "pairs", 4 * EPOCH), folder / "run"
    words = {
        "data": "folder", "data-dir": data, "arch": "convnet", "batch-size": 4,
        "epochs": max(steps // EPOCH, 1), "learning-rate": 1e-3, "run-dir": run, "keep": KEPT,
    }  # fmt: skip
    named = [str(part) for name, value in words.items() for part in (f"--{name}", value)]
    command = [*command_of("train"), *named, "--crop", "32", "40", *flags]
    if workers:
        head = ["--workers", str(workers), "--restarts", "0", "--"]
        command = [*command_of("launch"), *head, *command]
    return training_run(command, run, steps, bool(workers))


def training_run(command: Sequence[str | Path], run: Path, steps: int, launched: bool) -> Run:
    """A training command, which is as far as the newest checkpoint of its run folder says."""

    def checkpoints() -> list[Path]:
        return sorted((run / "checkpoints").glob("step-*.npz"))

    def step() -> int:
        return int(saved[-1].stem[5:]) if (saved := checkpoints()) else 0

    def disk() -> float:
        return sum(path.stat().st_size for path in checkpoints()) / 2**20

    return Run(command, step, steps, disk, launched)


def one(folder: Path, steps: int) -> Run:
    """One process on one device."""
    return training(folder, steps, "--strategy", "one")


def replicas(folder: Path, steps: int) -> Run:
    """One process with two replicas."""
    return training(folder, steps, "--cpu-replicas", "2")


def workers(folder: Path, steps: int) -> Run:
    """Two workers on this machine."""
    return training(folder, steps, workers=2)


def predict(folder: Path, count: int) -> Run:
    """`kfcn-predict` over pictures of 200 sizes, all of them in turn."""
    pictures = draw_pictures(folder / "pictures", count, sizes=200)
    out = folder / "out"
    words = [*command_of("predict"), untrained(folder / "net"), pictures, "--out", out]
    return Run(words, lambda: len(list(out.glob("*_overlay.jpg"))), count)


EVALUATE = """
import sys
from kfcn import evaluate
for epoch in range(int(sys.argv[3])):
    evaluate(sys.argv[1], "folder", "val", sys.argv[2])
    print("evaluated", flush=True)
"""


def evaluate(folder: Path, count: int) -> Run:
    """`kfcn.evaluate` on a run folder after each epoch, by a program that goes on."""
    data = draw_pairs(folder / "pairs", 4, validation=16)
    words = [sys.executable, "-c", EVALUATE, untrained(folder / "net"), data, str(count)]
    log = folder / "log.txt"
    return Run(words, lambda: log.read_text().count("evaluated"), count)


CLIENTS = 4
"""Browsers that ask the server at the same time."""


def serve(folder: Path, count: int) -> Run:
    """`kfcn-serve` under requests of several browsers, most over connections that stay."""
    from kfcn.data import Source
    from kfcn_tools.convert import convert

    pictures = draw_pairs(folder / "pairs", 8)
    bundle = folder / "bundle"
    convert(
        untrained(folder / "net"), bundle, size=(64, 64),
        data=Source("folder", pictures), modes=["float32"],
    )  # fmt: skip
    done = itertools.count()
    answered = [0]
    lock = threading.Lock()

    def browse(host: str, port: int, addresses: Sequence[str]) -> None:
        while True:
            connection = http.client.HTTPConnection(host, port, timeout=30)
            for _ in range(20):
                with lock:
                    number = next(done)
                if number >= count:
                    return
                connection.request("GET", f"/{addresses[number % len(addresses)]}")
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    raise RuntimeError(f"{addresses[number % len(addresses)]}: {response.status}")
                with lock:
                    answered[0] += 1
            connection.close()

    def drive(log: Path) -> None:
        while not (found := re.search(r"http://([^:/]+):(\d+)/", log.read_text())):
            time.sleep(0.1)
        host, port = found[1], int(found[2])
        addresses = ["index.html", "app.js", "nets.json"]
        for _ in range(CLIENTS):
            threading.Thread(target=browse, args=(host, port, addresses), daemon=True).start()

    words = [sys.executable, "-m", "kfcn_mobile.serve", bundle, "--port", "0"]
    return Run(words, lambda: answered[0], count, drive=drive)


class Way(NamedTuple):
    """A kind of run.

    Attributes:
        make: of a folder and a count gives the `Run`.
        total: its count when nothing else is asked for.
        unit: what is counted.
    """

    make: Callable[[Path, int], Run]
    total: int
    unit: str


WAYS = {
    "one": Way(one, 5000, "steps"),
    "replicas": Way(replicas, 5000, "steps"),
    "workers": Way(workers, 5000, "steps"),
    "predict": Way(predict, 5000, "pictures"),
    "evaluate": Way(evaluate, 50, "evaluations"),
    "serve": Way(serve, 5000, "requests"),
}


def soak(
    name: str, total: int, say: Callable[[str], None] = lambda line: None
) -> tuple[list[Row], list[str]]:
    """Watches a run of one kind to its end.

    Args:
        name: of `WAYS`.
        total: steps, pictures, evaluations or requests.
        say: is called with each line of the table.

    Returns:
        The rows, and what grew.
    """
    way = WAYS[name]
    trains = way.unit == "steps"
    every = EPOCH if trains else max(total // 50, 1)
    settled = 200 if total >= 600 else max(total // 5, every)
    with tempfile.TemporaryDirectory(prefix="kfcn-soak-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        run = way.make(folder, total)
        say(HEAD + "   ".join([HEAD_OF_EACH] * (2 if run.launched else 1)))
        rows = watch(run, folder / "log.txt", every, say)
    return rows, grown(rows, settled)
