"""A part of the training labels, with and without the other pictures as unlabelled ones.

Which pictures are labelled is drawn at random by the seed; a smaller part is the beginning of a
larger one. Both ways train for as many steps.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfcn.data.feed.views import Subset
from kfcn_tools.benchmarks.labels.training import Results, Training, by_seed, gain
from kfcn_tools.figures import spread

ALONE, WITH = "labels alone", "with unlabelled"


def measure_unlabelled(
    training: Training, folder: Path, val: str, parts: Sequence[int], seeds: Sequence[int]
) -> None:
    """Measures trainings on 1/N of the labels for each N of `parts`."""
    results = Results(folder, training.settings("unlabelled", val=val))
    pool, validation = training.open("train"), training.open(val)
    for part in parts:
        for seed in seeds:
            order = np.random.default_rng(seed).permutation(len(pool)).tolist()
            count = max(1, round(len(pool) / part))
            labelled, others = Subset(pool, order[:count]), Subset(pool, order[count:])
            for way in (ALONE, WITH):
                name = f"seed {seed}, 1/{part}, {way}"
                if name in results.units:
                    continue
                model = training.run(labelled, seed, others if way == WITH else None)
                score = training.mean_iou(model, validation)
                results.add(name, {"mean_iou": score, "pictures": count})


def unlabelled_table(settings: dict[str, Any], units: dict[str, Any]) -> str:
    """Markdown: mean IoU by part, of several seeds mean, least and greatest."""
    found, pictures = by_seed(units), by_seed(units, "pictures")
    parts = {name.split(", ")[0] for name in found}
    rows = [
        f"| labels | pictures | seeds | {ALONE} | {WITH} | gain |",
        "|---|---|---|---|---|---|",
    ]
    for part in sorted(parts, key=lambda text: -int(text.removeprefix("1/"))):
        alone, more = (found.get(f"{part}, {way}", {}) for way in (ALONE, WITH))
        seeds = ", ".join(seed.removeprefix("seed ") for seed in alone)
        count = next(iter(pictures[f"{part}, {ALONE}"].values()))
        ways = " | ".join(spread(list(way.values())) for way in (alone, more))
        rows.append(f"| {part} | {count} | {seeds} | {ways} | {gain(more, alone)} |")
    return "\n".join(rows)
