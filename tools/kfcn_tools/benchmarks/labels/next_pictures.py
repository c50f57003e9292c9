"""`kfcn-data next`: rounds of pictures that it chooses, against random ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfcn.data.dataset import Dataset
from kfcn.data.feed.views import Subset
from kfcn.errors import UsageError
from kfcn_tools.benchmarks.labels.training import Results, Training, by_seed, gain
from kfcn_tools.figures import spread

WAYS = ("random", "next")


def measure_next(
    training: Training, folder: Path, val: str, count: int, rounds: int, seeds: Sequence[int]
) -> None:
    """Measures rounds of chosen and of random pictures, for each seed."""
    results = Results(folder, training.settings("next", val=val, count=count, rounds=rounds))
    pool, validation = training.open("train"), training.open(val)
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
    figures = {"mean_iou": measure(net, validation).scores["mean_iou"], "labelled": labelled}
    if count:
        rest = sorted(set(range(len(pool))) - set(labelled))
        body = describer(model)
        unsure = [picture_uncertainty(image_logits(net, pool[index].image)) for index in rest]
        shown = {index: description(body, pool[index].image) for index in (*rest, *labelled)}
        vectors, known = (np.stack([shown[i] for i in which]) for which in (rest, labelled))
        figures["chosen"] = [rest[place] for place in choose(unsure, vectors, count, known)]
    return figures


def next_table(settings: dict[str, Any], units: dict[str, Any]) -> str:
    """Markdown: mean IoU by round and way, of several seeds mean, least and greatest.

    The last row is of the differences within a seed.
    """
    found, count = by_seed(units), settings["count"]
    rounds = sorted({int(name.split(", ")[0].removeprefix("round ")) for name in found})

    def scores(way, number):  # both ways begin with the same pictures
        return found.get(f"round {number}, {way if number else WAYS[1]}", {})

    rows = [
        f"| labelled pictures | {' | '.join(str((number + 1) * count) for number in rounds)} |",
        "|---" * (len(rounds) + 1) + "|",
    ]
    for way in WAYS:
        cells = [spread(list(scores(way, number).values())) for number in rounds]
        rows.append(f"| {way} | {' | '.join(cells)} |")
    cells = [gain(scores("next", number), scores("random", number)) for number in rounds]
    rows.append(f"| next - random | {' | '.join(cells)} |")
    return "\n".join(rows)
