"""`kfcn-data suspects`: which of the errors planted in the training labels it finds.

Nets of K folds score all pictures as the command does. The average precision of the ranking is
over the pictures with errors of one kind and those with none, beside what a random order has on
average. The page of the command is written too, into the folder of the seed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfcn.data.feed.views import split_of
from kfcn.files import make_folder
from kfcn.labelling.suspects import average_precision
from kfcn_tools.benchmarks.labels.planted import KINDS, Planted
from kfcn_tools.benchmarks.labels.training import Results, Training
from kfcn_tools.figures import spread


def measure_suspects(
    training: Training, folder: Path, folds: int, share: float, seeds: Sequence[int]
) -> None:
    """Measures what planted errors are found, for each seed."""
    results = Results(folder, training.settings("suspects", folds=folds, share=share))
    for seed in seeds:
        if f"seed {seed}" not in results.units:
            figures = _suspects(training, folder / f"seed-{seed}", folds, share, seed)
            results.add(f"seed {seed}", figures)


def _suspects(
    training: Training, folder: Path, folds: int, share: float, seed: int
) -> dict[str, Any]:
    import keras

    from kfcn.labelling.folds import Fold
    from kfcn.labelling.search import find_suspects, write_suspects
    from kfcn.outputs import Outputs
    from kfcn.saved import save_model

    planted = Planted(training.open("train"), share, seed)

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


def suspects_table(settings: dict[str, Any], units: dict[str, Any]) -> str:
    """Markdown: average precision in percent by kind, of several seeds mean, least and greatest."""
    rows = ["| error | planted | soft minimum | worst region | chance |", "|---|---|---|---|---|"]
    for kind in KINDS:
        found = [unit[kind] for unit in units.values() if kind in unit]
        if not found:
            continue
        counts = sorted({len(figures["planted"]) for figures in found})
        cells = [
            spread([figures[name] for figures in found])
            for name in ("soft minimum", "worst region", "chance")
        ]
        rows.append(f"| {kind} | {', '.join(map(str, counts))} | {' | '.join(cells)} |")
    return "\n".join(rows)
