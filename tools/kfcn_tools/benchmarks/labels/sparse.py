"""Points and scribbles in the place of whole training labels, with and without the gated CRF loss.

What is touched is drawn from the full labels (`kfcn_tools.benchmarks.labels.strokes`); those of the
split that is measured on stay whole.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kfcn.data.dataset import Dataset
from kfcn.data.feed.views import cached
from kfcn.labels import IGNORE
from kfcn_tools.benchmarks.labels.strokes import KINDS, touched
from kfcn_tools.benchmarks.labels.training import (
    Relabelled,
    Results,
    Training,
    by_seed,
    gain,
)
from kfcn_tools.figures import spread

WHOLE, ALONE, REGULARISED = "whole", "cross entropy", "gated CRF"


def measure_sparse(
    training: Training, folder: Path, val: str, gated_crf: float, seeds: Sequence[int]
) -> None:
    """Measures trainings on whole labels, points and scribbles."""
    results = Results(folder, training.settings("sparse", val=val, gated_crf=gated_crf))
    train, validation = training.open("train"), training.open(val)
    # Each label map is touched once, not in every step that sees it.
    some = {kind: cached(Relabelled(train, partial(touched, kind=kind))) for kind in KINDS}
    datasets = {WHOLE: train, **some}
    labelled = {kind: _labelled(dataset) for kind, dataset in datasets.items()}
    for seed in seeds:
        for kind, dataset in datasets.items():
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
                        "touched": labelled[kind] / max(labelled[WHOLE], 1),
                    },
                )


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
