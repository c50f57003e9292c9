"""Images per second of the input pipeline, beside what the field uses doing the same work.

    python -m kfcn_tools.benchmarks.input [--seconds 4] [--rounds 3]

Draws pairs of JPEG and PNG at 480x360 and reads, augments (random scale 0.75 to 1.75, crop to
352x480, flip, brightness, contrast, saturation) and batches them by four as float32: from the
folder, from decoded pictures in memory, and from prepared record files. What is installed of
albumentations (with OpenCV's decoder) and torchvision (v2 transforms and its own decoder) does the
same from the same files in threads and in processes (of torch's DataLoader, where torch is there),
as many as there are cores, each with one thread of OpenCV or torch. The sources take turns, each in
a process of its own; the best round of each is printed.
"""

import argparse
import json
import multiprocessing
import multiprocessing.pool
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kfcn.labels import IGNORE
from kfcn.machine import cores

HEIGHT, WIDTH, CROP, BATCH = 360, 480, (352, 480), 4
GREY = 117
"""What kfcn pads with: `kfcn.data.feed.augment.PAD`, which would bring OpenCV to every source."""


def draw_pairs(root: Path, count: int) -> None:
    """A folder data set of pictures with the noise and detail of photos."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    (root / "classes.txt").write_text("".join(f"class {i}\n" for i in range(12)))
    for index in range(count):
        coarse = rng.integers(0, 256, (23, 30, 3), np.uint8)
        image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        noisy = np.asarray(image, np.float32) + rng.normal(0, 8, (HEIGHT, WIDTH, 1))
        labels = rng.integers(0, 12, (12, 16), np.uint8).repeat(30, 0).repeat(30, 1)
        name = f"p{index:05d}"
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        picture.save(root / "images/train" / f"{name}.jpg", quality=92)
        Image.fromarray(labels).save(root / "labels/train" / f"{name}.png")


def kfcn_batches(name: str, folder: Path, cache: bool) -> Iterator:
    """Batches of kfcn's own pipeline."""
    from kfcn import data
    from kfcn.data.feed.batches import training_batches

    dataset = data.load(name, "train", folder)
    return iter(training_batches(dataset, BATCH, CROP, seed=0, cache=cache))


def albumentations() -> Callable:
    """Reads and changes a pair as albumentations does it."""
    import albumentations as A  # noqa: N812
    import cv2

    change = A.Compose(
        [
            A.RandomScale((-0.25, 0.75), p=1.0),
            A.PadIfNeeded(*CROP, border_mode=cv2.BORDER_CONSTANT, fill=GREY, fill_mask=IGNORE),
            A.RandomCrop(*CROP),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter((0.9, 1.1), (0.75, 1.25), (0.75, 1.25), (0.0, 0.0), p=1.0),
        ]
    )

    return _read_and(change)


def albumentations_window() -> Callable:
    """The same by `RandomSizedCrop`, which resizes the window and not the picture.

    The pictures are first padded to the largest window.
    """
    import albumentations as A  # noqa: N812
    import cv2

    least, most = (round(CROP[0] / scale) for scale in (1.75, 0.75))
    sides = round(CROP[0] / 0.75), round(CROP[1] / 0.75)
    change = A.Compose(
        [
            A.PadIfNeeded(*sides, border_mode=cv2.BORDER_CONSTANT, fill=GREY, fill_mask=IGNORE),
            A.RandomSizedCrop((least, most), CROP, w2h_ratio=CROP[1] / CROP[0]),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter((0.9, 1.1), (0.75, 1.25), (0.75, 1.25), (0.0, 0.0), p=1.0),
        ]
    )

    return _read_and(change)


def _read_and(change: Callable) -> Callable:
    """Reads a pair by OpenCV, with one thread, and changes it."""
    import cv2

    cv2.setNumThreads(0)

    def pair(image: str, labels: str):
        pixels = cv2.imread(image, cv2.IMREAD_COLOR_RGB)
        changed = change(image=pixels, mask=cv2.imread(labels, cv2.IMREAD_UNCHANGED))
        return changed["image"], changed["mask"]

    return pair


def torchvision() -> Callable:
    """Reads and changes a pair as torchvision's v2 transforms do it."""
    import torch
    from torchvision import io, tv_tensors
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    fill = {tv_tensors.Image: GREY, tv_tensors.Mask: IGNORE}
    change = v2.Compose(
        [
            v2.RandomResize(round(0.75 * HEIGHT), round(1.75 * HEIGHT) + 1, antialias=True),
            v2.RandomCrop(CROP, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter((0.9, 1.1), (0.75, 1.25), (0.75, 1.25)),
        ]
    )

    def pair(image: str, labels: str):
        pixels = io.decode_image(image, io.ImageReadMode.RGB)
        stored = io.decode_image(labels, io.ImageReadMode.UNCHANGED)[0]
        pixels, stored = change(tv_tensors.Image(pixels), tv_tensors.Mask(stored))
        return pixels.numpy().transpose(1, 2, 0), stored.numpy()

    return pair


PEERS = {f.__name__: f for f in (albumentations, albumentations_window, torchvision)}


class Pairs:
    """The pairs of a folder as a peer makes them: a data set as torch's DataLoader wants it."""

    def __init__(self, peer: str, folder: Path):
        kinds = (sorted((folder / kind / "train").iterdir()) for kind in ("images", "labels"))
        self.paths = [tuple(map(str, pair)) for pair in zip(*kinds, strict=True)]
        self.peer, self._read = peer, None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._read is None:  # made where it is used: it does not travel between processes
            self._read = PEERS[self.peer]()
        return self._read(*self.paths[index])

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """A batch of bytes."""
        images, labels = zip(*(self[index] for index in indices), strict=True)
        return np.stack(images), np.stack(labels)

    def __getstate__(self):
        return {**self.__dict__, "_read": None}


def _orders(count: int) -> Iterator[list[int]]:
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(count).tolist()
        yield from (order[k : k + BATCH] for k in range(0, count - BATCH + 1, BATCH))


def by_pool(pairs: Pairs, pool: Pool) -> Iterator:
    """Batches by the workers of a pool; bytes travel, as they are a quarter of the floats."""
    waiting, orders = [], _orders(len(pairs))
    while True:
        while len(waiting) < 8:  # what a data loader fetches ahead
            waiting.append(pool.apply_async(pairs.batch, (next(orders),)))
        images, labels = waiting.pop(0).get()
        yield images.astype(np.float32), labels


def by_loader(pairs: Pairs) -> Iterator:
    """Batches by torch's DataLoader, in shared memory."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        pairs,
        batch_sampler=[order for order, _ in zip(_orders(len(pairs)), range(10000), strict=False)],
        num_workers=cores(),
        prefetch_factor=4,
        multiprocessing_context="spawn",
    )
    for images, labels in loader:
        yield images.float(), labels


def by_threads(pairs: Pairs) -> Iterator:
    """Batches by threads of one process."""
    return by_pool(pairs, multiprocessing.pool.ThreadPool(cores()))


def by_processes(pairs: Pairs) -> Iterator:
    """Batches by processes, through pipes."""
    return by_pool(pairs, multiprocessing.get_context("spawn").Pool(cores()))


def all_sources(folder: Path, prepared: Path) -> dict[str, tuple]:
    """Name -> the function that gives its batches, and the arguments of that."""
    sources: dict[str, tuple] = {
        "kfcn, folder": (kfcn_batches, "folder", folder, False),
        "kfcn, cached": (kfcn_batches, "folder", folder, True),
        "kfcn, prepared": (kfcn_batches, "prepared", prepared, False),
    }
    loader = by_loader if find_spec("torch") else by_processes
    for peer in PEERS:
        if find_spec(peer.partition("_")[0]) is None:
            print(f"{peer} is not installed: nothing to compare with")
            continue
        sources[f"{peer}, threads"] = (by_threads, Pairs(peer, folder))
        sources[f"{peer}, {loader.__name__[3:]}"] = (loader, Pairs(peer, folder))
    return sources


def serve(connection: Connection, make: Callable, *args: Any) -> None:
    """The process of one source: measures when it is asked to, for so many seconds.

    TensorFlow and torch cannot live in one process: both bring an LLVM of their own.
    """
    batches = make(*args)
    while request := connection.recv():
        connection.send(rate(batches, *request))
    os._exit(0)  # with all threads and workers that still read ahead


def rate(batches: Iterator, seconds: float, warm_up: int) -> float:
    """Images per second."""
    for _ in range(warm_up):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += len(next(batches)[1])
    return count / (time.perf_counter() - start)


def measure_rates(
    sources: dict[str, tuple], seconds: float, rounds: int, images: int
) -> dict[str, list[float]]:
    """Images per second of each source in each round; they take turns."""
    context = multiprocessing.get_context("spawn")
    connections, rates = {}, {name: [] for name in sources}
    for name, source in sources.items():
        connections[name], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, *source)).start()
    for turn in range(rounds):
        # At first until the cache is full, then until what waited ready is used up.
        warm_up = 8 if turn else 8 + images // BATCH
        for name, connection in connections.items():
            connection.send((seconds, warm_up))
            rates[name].append(round(connection.recv(), 1))
    for connection in connections.values():
        connection.send(None)
    return rates


def measure_memory(folder: Path, images: int) -> list[float]:
    """Resident memory (MiB) at ten places of a pass over so many images, nothing cached."""
    import psutil

    batches, seen = kfcn_batches("prepared", folder, cache=False), []
    for step in range(images // BATCH):
        next(batches)
        if step % max(1, images // BATCH // 10) == 0:
            seen.append(round(psutil.Process().memory_info().rss / 2**20, 1))
    return seen


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("--images", type=int, default=200, metavar="N", help="pairs to draw (200)")
    cli.add_argument("--seconds", type=float, default=4.0, help="of each measurement (4)")
    cli.add_argument("--rounds", type=int, default=3, help="of which the best counts (3)")
    cli.add_argument("--memory", type=int, default=0, metavar="N", help="also read N images")
    cli.add_argument("--json", metavar="FILE", help="write the figures there as well")
    args = cli.parse_args(argv)

    from kfcn.data.catalog import Source
    from kfcn.data.prepare.prepare import prepare

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "folder"
        draw_pairs(folder, args.images)
        prepared = prepare(
            Source("folder", folder), Path(scratch) / "prepared", ["train"], workers=1
        )
        sources = all_sources(folder, prepared)
        rates = measure_rates(sources, args.seconds, args.rounds, args.images)
        result = {"images_per_second": rates, "crop": CROP, "batch": BATCH}
        for name, found in rates.items():
            print(f"{name:34} {max(found):7.1f} images/s (rounds: {found})")
        if args.memory:
            result["memory_mib"] = measure_memory(prepared, args.memory)
            print(f"memory over {args.memory} images, MiB: {result['memory_mib']}")
        if args.json:
            Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
