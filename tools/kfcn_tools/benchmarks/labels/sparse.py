"""Points and scribbles in the place of whole training labels, with and without the gated CRF loss.

What is touched is drawn from the full labels (`kfcn_tools.benchmarks.labels.strokes`); those of the
split that is measured on stay whole.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kfcn.data.dataset import Dataset
from kfcn.labels import IGNORE
from kfcn_tools.benchmarks.labels.strokes import KINDS, touched
from kfcn_tools.benchmarks.labels.training import (
    Relabelled,
    Results,
    Training,
    by_seed,
    gain,
    spread,
)

WHOLE, ALONE, REGULARISED = "whole", "cross entropy", "gated CRF"


def measure_sparse(
    training: Training, folder: Path, val: str, gated_crf: float, seeds: Sequence[int]
) -> str:
    """Measures trainings on whole labels, points and scribbles, and gives the table."""
    settings = training.settings("sparse", val=val, gated_crf=gated_crf)
    results = Results(folder, settings)
    train, validation = training.open("train"), training.open(val)
    for seed in seeds:
        for kind in (WHOLE, *KINDS):
            dataset = train if kind == WHOLE else Relabelled(train, partial(touched, kind=kind))
            for way in (ALONE,) if kind == WHOLE else (ALONE, REGULARISED):
                name = f"seed {seed}, {kind}, {way}"
                if name in results.units:
                    continue
                weight = gated_crf if way == REGULARISED else 0.0
                model = training.run(dataset, seed, gated_crf=weight)
                results.add(
                    name,
                    {
                        "mean_iou": training.mean_iou(model, validation),
                        "touched": _labelled(dataset) / max(_labelled(train), 1),
                    },
                )
    return sparse_table(settings, results.units)


def _labelled(dataset: Dataset) -> int:
    return sum(int((dataset[i].labels != IGNORE).sum()) for i in range(len(dataset)))


def sparse_table(settings: dict[str, Any], units: dict[str, Any]) -> str:
    """Markdown: mean IoU by what is touched, of several seeds mean, least and greatest."""
    found, shares = by_seed(units), by_seed(units, "touched")
    rows = [
        f"| training labels | touched | {ALONE} | with the {REGULARISED} loss, "
        f"{settings['gated_crf']:g} | gain |",
        "|---|---|---|---|---|",
    ]
    for kind in (WHOLE, *KINDS):
        alone, more = (found.get(f"{kind}, {way}", {}) for way in (ALONE, REGULARISED))
        share = list(shares.get(f"{kind}, {ALONE}", {}).values())[:1]  # is the same for all seeds
        cells = (spread(share), *(spread(list(way.values())) for way in (alone, more)))
        rows.append(f"| {kind} | {' | '.join(cells)} | {gain(more, alone)} |")
    return "\n".join(rows)
