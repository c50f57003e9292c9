"""Whether `kfcn-data suspects` and `kfcn-data next` help: measured on a data set with whole labels.

    python -m kfcn_tools.benchmarks.labels suspects camvid CamVid --out suspects-camvid
    python -m kfcn_tools.benchmarks.labels next camvid CamVid --out next-camvid

`suspects` plants errors in the training labels: of each kind in `--share` of the pictures, one
object a picture, another picture for each kind. Nets of K folds score all pictures as the command
does, and the average precision of the ranking is printed, over the pictures with errors of one kind
and those with none, beside what a random order has on average. The page of the command is written
too, into the folder of the seed.

- swapped: the object has another class;
- left out: it has the label of what surrounds it most, as if nobody had drawn it;
- shifted: it lies elsewhere, by 0.3 times the side of a square as large as it.

Objects are connected regions of one class, of 0.2 % to 10 % of the picture.

`next` starts from `--count` pictures drawn at random and adds as many in each of `--rounds`: those
that the command would choose by the net of the round before, or random ones. Each round is trained
anew from the weights of the backbone, with as many steps as every other, and measured on `--val`.

What was measured lies in results.json of `--out`; started again, it goes on.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np

from kfcn.data.catalog import Source
from kfcn.data.dataset import Dataset, Sample
from kfcn.data.feed.views import Subset, Wrapped, cached, split_of
from kfcn.errors import KfcnError, UsageError
from kfcn.files import make_folder, read_object, write_json
from kfcn.labelling.suspects import average_precision
from kfcn.labels import IGNORE
from kfcn_tools.benchmarks.timing import machine
from kfcn_tools.benchmarks.train import bare_loop

KINDS = ("swapped", "left out", "shifted")
LEAST, MOST = 0.002, 0.1
"""Of an object, by the pixels of its picture."""
RING = 5
"""How far around an object its surroundings are looked at, in pixels."""
FAR = 0.3
"""By how much an object is shifted, by the side of a square as large as it."""
RESULTS = "results.json"
WAYS = ("random", "next")


# Errors in labels


def objects(labels: np.ndarray) -> list[np.ndarray]:
    """The objects of a label map that an error may be planted in, bool `(H, W)` each.

    Args:
        labels: uint8 `(H, W)`; 255 has no label.
    """
    found = []
    for value in np.unique(labels[labels != IGNORE]).tolist():
        mask = (labels == value).astype(np.uint8)
        count, parts, figures, _ = cv2.connectedComponentsWithStats(mask)
        areas = figures[:, cv2.CC_STAT_AREA] / labels.size
        found += [parts == part for part in range(1, count) if LEAST <= areas[part] <= MOST]
    return found


def surroundings(labels: np.ndarray, region: np.ndarray) -> int:
    """The label that is most frequent around a region; 255 where nothing is labelled."""
    kernel = np.ones((2 * RING + 1, 2 * RING + 1), np.uint8)
    ring = cv2.dilate(region.astype(np.uint8), kernel).astype(bool) & ~region & (labels != IGNORE)
    return int(np.bincount(labels[ring]).argmax()) if ring.any() else IGNORE


def plant(
    labels: np.ndarray, kind: str, classes: int, rng: np.random.Generator
) -> np.ndarray | None:
    """A label map with an error in one of its objects, chosen at random.

    Args:
        labels: uint8 `(H, W)`; 255 has no label.
        kind: of `KINDS`.
        classes: how many there are.
        rng: chooses object, class and direction.

    Returns:
        uint8 `(H, W)`; None where there is no object to plant it in.
    """
    found = objects(labels)
    if not found:
        return None
    region = found[rng.integers(len(found))]
    value = int(labels[region][0])
    if kind == "swapped":
        other = int(rng.integers(classes - 1))
        return np.where(region, other + (other >= value), labels).astype(np.uint8)
    around = surroundings(labels, region)
    if around == IGNORE:
        return None
    wrong = np.where(region, around, labels).astype(np.uint8)
    if kind == "shifted":
        angle, length = rng.uniform(0, 2 * np.pi), FAR * np.sqrt(region.sum())
        move = np.array([[1, 0, length * np.cos(angle)], [0, 1, length * np.sin(angle)]])
        size = region.shape[1], region.shape[0]
        moved = cv2.warpAffine(region.astype(np.uint8), move, size, flags=cv2.INTER_NEAREST)
        wrong[moved.astype(bool)] = value
    return wrong


class Planted(Wrapped):
    """A data set with errors in its labels.

    Args:
        dataset: the right labels.
        share: of the pictures that get an error of each kind.
        seed: of what is planted, and where.

    Attributes:
        wrong: index of a picture -> the kind of its error.
    """

    def __init__(self, dataset: Dataset, share: float, seed: int):
        super().__init__(dataset)
        rng = np.random.default_rng(seed)
        waiting = iter(rng.permutation(len(dataset)).tolist())
        self.wrong: dict[int, str] = {}
        self._labels: dict[int, np.ndarray] = {}
        for kind in KINDS:
            for _ in range(round(share * len(dataset))):
                self._plant(waiting, kind, rng)

    def _plant(self, waiting: Iterator[int], kind: str, rng: np.random.Generator) -> None:
        for index in waiting:
            labels = plant(self._dataset[index].labels, kind, len(self.classes), rng)
            if labels is not None:
                self.wrong[index], self._labels[index] = kind, labels
                return
        raise UsageError(f"too few pictures have an object for an error; {kind} is left over")

    def __getitem__(self, index: int) -> Sample:
        sample = self._dataset[index]
        return sample._replace(labels=self._labels.get(index, sample.labels))


def chance(count: int, wrong: int) -> float:
    """The average precision that a random order has in the mean.

    A wrong one at rank i has (i - 1) (wrong - 1) / (count - 1) wrong ones before it in the mean,
    and every rank is as likely.

    Args:
        count: of all that is ranked.
        wrong: how many of them are wrong, at least 1.
    """
    ranks = np.arange(1, count + 1)
    before = (ranks - 1) * (wrong - 1) / max(count - 1, 1)
    return float(((1 + before) / ranks).mean())


# Trainings


class Training(NamedTuple):
    """What every training of a measurement has alike."""

    source: Source
    arch: str
    backbone: str
    weights: str
    crop: tuple[int, int]
    batch_size: int
    steps: int

    def run(self, dataset: Dataset, seed: int) -> Any:
        """A net trained on a data set, whatever its size, with `steps` steps."""
        import keras

        from kfcn.training import replicas
        from kfcn.training.settings import resolve

        keras.backend.clear_session()
        config = resolve(
            data=self.source.name, data_dir=self.source.data_dir, arch=self.arch, seed=seed,
            backbone=self.backbone, weights=self.weights, crop=self.crop, epochs=1,
            batch_size=self.batch_size, class_weights="none",
        )  # fmt: skip
        # One epoch of all steps: each picture comes as often as another, or once more.
        count = self.batch_size * self.steps
        often = Subset(dataset, [index % len(dataset) for index in range(count)])
        with bare_loop(config, often, replicas.start("one")) as loop:
            for _ in range(self.steps):
                loop.one_step()
        return loop.learner.model


class Results:
    """What was measured so far: results.json of a folder.

    Args:
        folder: is made where it is not there.
        settings: of the measurement; a folder of others is refused.

    Attributes:
        units: name -> figures.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.file = make_folder(folder) / RESULTS
        self.settings = json.loads(json.dumps(settings))
        self.units: dict[str, Any] = {}
        if self.file.is_file():
            stored = read_object(self.file)
            if stored.get("settings") != self.settings:
                raise UsageError(
                    f"{self.file} was measured with {stored.get('settings')}, now asked for is "
                    f"{self.settings}; name another --out"
                )
            self.units = stored["units"]

    def add(self, name: str, figures: dict[str, Any]) -> None:
        """Stores the figures of a unit and prints them in a line."""
        self.units[name] = figures
        write_json(
            self.file, {"settings": self.settings, "machine": machine(), "units": self.units}
        )
        print(f"{name}: {json.dumps(figures)[:300]}", flush=True)


# Suspects


def suspects(
    training: Training, folder: Path, folds: int, share: float, seeds: Sequence[int]
) -> str:
    """Measures what planted errors are found, for each seed, and gives the table."""
    settings = {"what": "suspects", **_alike(training), "folds": folds, "share": share}
    results = Results(folder, settings)
    for seed in seeds:
        if f"seed {seed}" not in results.units:
            figures = _suspects(training, folder / f"seed-{seed}", folds, share, seed)
            results.add(f"seed {seed}", figures)
    return suspects_table(results.units)


def _suspects(
    training: Training, folder: Path, folds: int, share: float, seed: int
) -> dict[str, Any]:
    import keras

    from kfcn.labelling.folds import Fold
    from kfcn.labelling.search import find_suspects, write_suspects
    from kfcn.outputs import Outputs
    from kfcn.saved import save_model

    planted = Planted(cached(training.source.open("train")), share, seed)

    def nets() -> Iterator[Fold]:
        first = 0
        for number in range(folds):
            file = folder / f"fold-{number + 1}.keras"
            part = split_of(f"train[{number}/{folds}]")[1](planted)
            if file.is_file():
                net = keras.saving.load_model(file)
            else:
                net = training.run(split_of(f"train[!{number}/{folds}]")[1](planted), seed)
                make_folder(folder)
                save_model(net, file)
                print(f"{file} trained", flush=True)
            yield Fold(part, first, net)
            first += len(part)

    found = find_suspects(planted, nets())
    outputs = Outputs(folder, overwrite=True)
    with outputs.lock():
        write_suspects(found, outputs)
    scores = {"soft minimum": -found.scores, "worst region": found.picture_scores()}
    figures: dict[str, Any] = {"pictures": len(planted)}
    names = [planted.label_name(index) for index in range(len(planted))]
    for kind in KINDS if planted.wrong else ():
        wrong = np.array([planted.wrong.get(index) == kind for index in range(len(planted))])
        kept = wrong | ~np.isin(np.arange(len(planted)), list(planted.wrong))
        figures[kind] = {
            name: average_precision(values[kept], wrong[kept]) for name, values in scores.items()
        }
        figures[kind]["chance"] = chance(int(kept.sum()), int(wrong.sum()))
        figures[kind]["planted"] = [names[index] for index in np.flatnonzero(wrong)]
    return figures


def suspects_table(units: dict[str, Any]) -> str:
    """Markdown: average precision in percent by kind, of several seeds mean, least and greatest."""
    rows = ["| error | planted | soft minimum | worst region | chance |", "|---|---|---|---|---|"]
    for kind in KINDS:
        found = [unit[kind] for unit in units.values() if kind in unit]
        if not found:
            continue
        counts = sorted({len(figures["planted"]) for figures in found})
        cells = [
            _spread([figures[name] for figures in found])
            for name in ("soft minimum", "worst region", "chance")
        ]
        rows.append(f"| {kind} | {', '.join(map(str, counts))} | {' | '.join(cells)} |")
    return "\n".join([*rows, "", f"Average precision in percent; {', '.join(units)}."])


# What to label next


def next_rounds(
    training: Training, folder: Path, val: str, count: int, rounds: int, seeds: Sequence[int]
) -> str:
    """Measures rounds of chosen and of random pictures, for each seed, and gives the table."""
    settings = {"what": "next", **_alike(training), "val": val, "count": count, "rounds": rounds}
    results = Results(folder, settings)
    pool, validation = (cached(training.source.open(split)) for split in ("train", val))
    if len(pool) < (rounds + 1) * count:
        raise UsageError(
            f"{rounds} rounds of {count} after the first {count}: expected at most the "
            f"{len(pool)} pictures of {training.source.name}/train"
        )
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(pool)).tolist()
        for number in range(rounds + 1):
            for way in WAYS if number else WAYS[1:]:
                name = f"seed {seed}, round {number}, {way}"
                if name in results.units:
                    continue
                if way == "random":
                    labelled = order[: (number + 1) * count]
                elif number == 0:
                    labelled = order[:count]  # both ways begin with these
                else:
                    before = results.units[f"seed {seed}, round {number - 1}, next"]
                    labelled = [*before["labelled"], *before["chosen"]]
                last = way == "random" or number == rounds
                figures = _round(training, pool, validation, labelled, 0 if last else count, seed)
                results.add(name, figures)
    return next_table(results.units, count)


def _round(
    training: Training,
    pool: Dataset,
    validation: Dataset,
    labelled: list[int],
    count: int,
    seed: int,
) -> dict[str, Any]:
    """Trains on the labelled pictures, measures, and chooses `count` of the others."""
    from kfcn.inference.evaluate import measure
    from kfcn.inference.runtime.net import quickest
    from kfcn.inference.segment import image_logits
    from kfcn.labelling.next_pictures import choose, describer, description, picture_uncertainty

    model = training.run(Subset(pool, labelled), seed)
    net = quickest(model)
    figures = {"labelled": labelled, "mean_iou": measure(net, validation).scores["mean_iou"]}
    if count:
        rest = sorted(set(range(len(pool))) - set(labelled))
        body = describer(model)
        unsure = [picture_uncertainty(image_logits(net, pool[index].image)) for index in rest]
        shown = {index: description(body, pool[index].image) for index in (*rest, *labelled)}
        vectors, known = (np.stack([shown[i] for i in which]) for which in (rest, labelled))
        figures["chosen"] = [rest[place] for place in choose(unsure, vectors, count, known)]
    return figures


def next_table(units: dict[str, Any], count: int) -> str:
    """Markdown: mean IoU by round and way, of several seeds mean, least and greatest.

    The last row is of the differences within a seed.
    """
    found: dict[tuple[str, int], dict[str, float]] = {}
    for name, figures in units.items():
        seed, number, way = name.split(", ")
        place = int(number.removeprefix("round "))
        for row in (way, *WAYS) if place == 0 else (way,):
            found.setdefault((row, place), {})[seed] = figures["mean_iou"]
    rounds = sorted({place for _, place in found})
    seeds = sorted({seed for values in found.values() for seed in values})
    rows = [
        f"| labelled pictures | {' | '.join(str((place + 1) * count) for place in rounds)} |",
        "|---" * (len(rounds) + 1) + "|",
    ]
    for way in WAYS:
        cells = [_spread(list(found.get((way, place), {}).values())) for place in rounds]
        rows.append(f"| {way} | {' | '.join(cells)} |")
    cells = []
    for place in rounds:
        ours, others = (found.get((way, place), {}) for way in ("next", "random"))
        cells.append(_spread([ours[seed] - others[seed] for seed in ours if seed in others], "+"))
    rows.append(f"| next - random | {' | '.join(cells)} |")
    return "\n".join([*rows, "", f"Mean IoU in percent; {', '.join(seeds)}."])


# What both share


def _alike(training: Training) -> dict[str, Any]:
    values = training._asdict()
    source = values.pop("source")
    return {"data": source.name, **values, "weights": Path(training.weights).name}


def _spread(values: Sequence[float], sign: str = "") -> str:
    """Percent: the mean, and of several the least and the greatest; a dash where there is none."""
    if not len(values):
        return "–"
    shown = [f"{100 * value:{sign}.1f}" for value in (np.mean(values), min(values), max(values))]
    return shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("data", metavar="DATA", help="a data set of kfcn-train's --data")
    shared.add_argument("data_dir", type=Path, nargs="?", metavar="DIR", help="its folder")
    shared.add_argument("--out", type=Path, required=True, metavar="DIR", help="results.json")
    shared.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="(0)")
    shared.add_argument("--arch", default="fcn8s", metavar="NAME", help="(fcn8s)")
    shared.add_argument("--backbone", default="efficientnet_lite0", metavar="NAME")
    shared.add_argument("--weights", default="imagenet", metavar="imagenet|none|PATH")
    shared.add_argument("--crop", type=int, nargs=2, default=(160, 224), metavar=("H", "W"))
    shared.add_argument("--batch-size", type=int, default=4, metavar="N", help="(4)")
    shared.add_argument("--steps", type=int, default=200, metavar="N", help="a training (200)")
    cli = argparse.ArgumentParser(
        prog="python -m kfcn_tools.benchmarks.labels",
        description="Whether kfcn-data suspects and kfcn-data next help.",
    )
    actions = cli.add_subparsers(dest="what", required=True, metavar="suspects|next")
    ours = actions.add_parser("suspects", parents=[shared], help="what planted errors are found")
    ours.add_argument("--folds", type=int, default=3, metavar="K", help="parts of train (3)")
    ours.add_argument(
        "--share", type=float, default=0.05, help="of the pictures, for each kind; 0: none (0.05)"
    )
    ours = actions.add_parser("next", parents=[shared], help="chosen against random pictures")
    ours.add_argument("--val", default="val", metavar="SPLIT", help="measured on (val)")
    ours.add_argument("--count", type=int, default=20, metavar="N", help="a round (20)")
    ours.add_argument("--rounds", type=int, default=4, metavar="N", help="after the first (4)")
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints the table."""
    args = parser().parse_args(argv)
    height, width = args.crop
    try:
        training = Training(
            Source(args.data, args.data_dir), args.arch, args.backbone, args.weights,
            (height, width), args.batch_size, args.steps,
        )  # fmt: skip
        if args.what == "suspects":
            table = suspects(training, args.out, args.folds, args.share, args.seeds)
        else:
            table = next_rounds(training, args.out, args.val, args.count, args.rounds, args.seeds)
    except KfcnError as error:
        print(f"labels: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    print(f"{table}\n\n{machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
