"""Nets that have not seen what they judge: K trainings, each on all but one part of a split."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from kfcn.cards import open_model
from kfcn.data import Dataset
from kfcn.data.catalog import Source
from kfcn.data.reading import Reading
from kfcn.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Fold:
    """One part of a split, and the net that was trained on the others.

    Attributes:
        dataset: the part.
        first: index of its first picture in the whole split.
        model: the net.
    """

    dataset: Dataset
    first: int
    model: keras.Model


def train_folds(
    source: Source,
    split: str,
    folds: int,
    out: Path,
    progress: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> Iterator[Fold]:
    """Trains K nets; each is given as soon as it is there.

    Parts are runs of neighbours in the order of the split: frames of one film stay together, or a
    net would have seen their twins. Stopped and started again, training goes on where it was.

    Args:
        source: the data set.
        split: of it.
        folds: K, at least 2.
        out: folder for the run folders `fold-1`, `fold-2` and so on.
        progress: gets a line before each training.
        settings: of `kfcn.train`.

    Raises:
        UsageError: fewer pictures than folds need, or `out` has folds of other settings or data.
    """
    from kfcn.training import train
    from kfcn.training.resolution import OtherStartError

    whole = source.open(split)
    if folds < 2 or len(whole) < 2 * folds:
        raise UsageError(
            f"folds {folds}: expected 2 or more, with two pictures in each; {source.name}/{split} "
            f"has {len(whole)}"
        )
    first, reading = 0, source.as_read
    for number in range(folds):
        part, rest = f"{split}[{number}/{folds}]", f"{split}[!{number}/{folds}]"
        progress(f"fold {number + 1} of {folds}: training on {rest}")
        try:
            result = train(
                out / f"fold-{number + 1}",
                verbose=True,
                data=source.name,
                data_dir=source.data_dir,
                seed=source.seed,
                classes=source.classes,
                ignore=reading.ignore,
                pages=reading.pages,
                unlabelled=reading.unlabelled,
                train_split=rest,
                val_split=part,
                **settings,
            )
        except OtherStartError as error:  # whose net has seen labels that it would judge
            raise UsageError(
                f"{error.difference}; continue with what it was started with, or choose another "
                "--out"
            ) from error
        net, card = open_model(result.run_dir)
        # As its training read them: the stretch of deep pictures is the fold's own.
        dataset = dataclasses.replace(source, reading=Reading.of_card(card)).open(part)
        yield Fold(dataset, first, net)
        first += len(dataset)
