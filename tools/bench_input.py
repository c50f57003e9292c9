"""Images per second of the input pipeline, beside albumentations doing the same work.

    python -m kfcn_tools.bench_input [--seconds 6] [--rounds 3]

Draws pairs of JPEG and PNG at 480x360 and reads, augments (random scale 0.75 to 1.75, crop to
352x480, flip, brightness, contrast, saturation) and batches them by four as float32: from the
folder, from decoded pictures in memory, and from prepared record files. Where albumentations is
installed it does the same from the same files, with OpenCV's decoder, in as many processes and in
as many threads as there are cores. The rounds take turns; the best of each is printed.
"""

import argparse
import json
import multiprocessing
import multiprocessing.pool
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH, CROP, BATCH = 360, 480, (352, 480), 4


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
    from kfcn.data.pipeline import training_batches

    dataset = data.load(name, "train", folder)
    return iter(training_batches(dataset, BATCH, CROP, seed=0, cache=cache))


def peer_pair(paths: tuple[str, str]):
    """One pair as albumentations makes it; a process of its own does this."""
    import cv2

    image = cv2.cvtColor(cv2.imread(paths[0]), cv2.COLOR_BGR2RGB)
    labels = cv2.imread(paths[1], cv2.IMREAD_UNCHANGED)
    changed = _peer_transform()(image=image, mask=labels)
    return changed["image"], changed["mask"]


_TRANSFORM = []


def _peer_transform():
    if not _TRANSFORM:
        import albumentations as A  # noqa: N812
        import cv2

        cv2.setNumThreads(1)
        _TRANSFORM.append(
            A.Compose(
                [
                    A.RandomScale((-0.25, 0.75), p=1.0),
                    A.PadIfNeeded(*CROP, border_mode=cv2.BORDER_CONSTANT, fill=117, fill_mask=255),
                    A.RandomCrop(*CROP),
                    A.HorizontalFlip(p=0.5),
                    A.ColorJitter((0.9, 1.1), (0.75, 1.25), (0.75, 1.25), (0.0, 0.0), p=1.0),
                ]
            )
        )
    return _TRANSFORM[0]


def peer_batch(paths: list[tuple[str, str]]):
    """A batch of albumentations, as a worker of a data loader makes it."""
    pairs = [peer_pair(pair) for pair in paths]
    return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])


def peer_batches(pool, folder: Path) -> Iterator:
    """Batches of albumentations from as many processes, or threads, as there are cores."""
    images = sorted(map(str, (folder / "images/train").iterdir()))
    labels = sorted(map(str, (folder / "labels/train").iterdir()))
    pairs = list(zip(images, labels, strict=True))

    def endless():
        rng = np.random.default_rng(0)
        while True:
            order = rng.permutation(len(pairs))
            for start in range(0, len(pairs) - BATCH + 1, BATCH):
                yield [pairs[i] for i in order[start : start + BATCH]]

    waiting, source = [], endless()
    while True:
        while len(waiting) < 8:  # what a data loader fetches ahead
            waiting.append(pool.apply_async(peer_batch, (next(source),)))
        images, labels = waiting.pop(0).get()  # bytes travel: a quarter of floats
        yield images.astype(np.float32), labels


def rate(batches: Iterator, seconds: float, warm_up: int = 10) -> float:
    """Images per second."""
    for _ in range(warm_up):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += len(next(batches)[1])
    return count / (time.perf_counter() - start)


def memory() -> float:
    """Resident memory of this process, MiB."""
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def measure_memory(folder: Path, images: int) -> list[float]:
    """Resident memory (MiB) at ten places of a pass over so many images, nothing cached."""
    batches, seen = kfcn_batches("prepared", folder, cache=False), []
    for step in range(images // BATCH):
        next(batches)
        if step % max(1, images // BATCH // 10) == 0:
            seen.append(round(memory(), 1))
    return seen


def main(argv=None) -> int:
    """Entry point."""
    cli = argparse.ArgumentParser(prog="bench_input", description=__doc__.splitlines()[0])
    cli.add_argument("--images", type=int, default=200, metavar="N", help="pairs to draw (200)")
    cli.add_argument("--seconds", type=float, default=6.0, help="of each measurement (6)")
    cli.add_argument("--rounds", type=int, default=3, help="of which the best counts (3)")
    cli.add_argument("--memory", type=int, default=0, metavar="N", help="also read N images")
    cli.add_argument("--json", metavar="FILE", help="write the figures there as well")
    args = cli.parse_args(argv)

    from kfcn.data.prepare import prepare

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "folder"
        draw_pairs(folder, args.images)
        prepared = prepare("folder", Path(scratch) / "prepared", folder, ["train"], workers=1)
        sources = {
            "folder": kfcn_batches("folder", folder, cache=False),
            "cached": kfcn_batches("folder", folder, cache=True),
            "prepared": kfcn_batches("prepared", prepared, cache=False),
        }
        pool = threads = None
        try:
            import albumentations  # noqa: F401

            pool = multiprocessing.get_context("spawn").Pool(os.cpu_count())
            threads = multiprocessing.pool.ThreadPool(os.cpu_count())
            sources["albumentations, processes"] = peer_batches(pool, folder)
            sources["albumentations, threads"] = peer_batches(threads, folder)
        except ImportError:
            print("albumentations is not installed: nothing to compare with")
        rates: dict[str, list[float]] = {name: [] for name in sources}
        warm_up = 2 * args.images // BATCH  # so that the cache is full
        for _ in range(args.rounds):
            for name, batches in sources.items():
                rates[name].append(rate(batches, args.seconds, 0 if rates[name] else warm_up))
        best = {name: round(max(found), 1) for name, found in rates.items()}
        for name, value in best.items():
            print(f"{name:26} {value:7.1f} images/s")
        result = {"images_per_second": best, "crop": CROP, "batch": BATCH}
        if args.memory:
            result["memory_mib"] = measure_memory(prepared, args.memory)
            print(f"memory over {args.memory} images, MiB: {result['memory_mib']}")
        for workers in (pool, threads):
            if workers is not None:
                workers.terminate()
        if args.json:
            Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
