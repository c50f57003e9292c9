"""The mean of the weights of several nets, which is often better than each of them.

    kfcn-train --recipe voc_animals_fcn8s_fpn/4 --init-from runs/a --seed 4 --run-dir runs/b ...
    kfcn-train --recipe voc_animals_fcn8s_fpn/4 --init-from runs/a --seed 5 --run-dir runs/c ...
    python -m kfcn_tools.average runs/b runs/c --out runs/mean

It costs one more training for each net, and nothing when the mean is used. Nets that were trained
on from one net lie in one valley of the loss, in the middle of which the loss is lower still
(Wortsman et al., "Model soups", ICML 2022). Nets that began apart have no such mean: whoever uses
one measures it first (`kfcn-evaluate runs/mean --data-dir DIR`).

The moving statistics of batch normalisation are averaged as the weights are.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kfcn.cards import data_of_run, open_model
from kfcn.commands._cli import MODEL_HELP, Parser, run
from kfcn.errors import UsageError
from kfcn.files import sha256, write_json
from kfcn.outputs import new_folder
from kfcn.saved import CARD, MODEL, model_path, save_model

if TYPE_CHECKING:
    import keras

_ALIKE = ("architecture", "backbone", "net", "classes", "input")
"""What cards must agree on: a net of another output stride, say, has the same weights."""
_OF_ONE_NET = ("epoch", "metrics")
"""What a card says of one run and not of the mean of several."""


def average(models: Sequence[Path | str], out: Path | str) -> Path:
    """Writes the mean of some nets to a new folder, which is used as a run's.

    Its card is the first net's without the metrics, which nobody has measured yet, and names
    the nets by SHA-256 in `average_of`.

    Args:
        models: two or more run folders or `.keras` files of one architecture and the same classes.
        out: the folder to make.

    Raises:
        UsageError: fewer than two nets, one twice, another architecture or other classes than the
            first, or the folder exists.
        KfcnError: one of them is no net whose weights are numbers.
    """
    if len(models) < 2:
        raise UsageError(f"received {len(models)} net; expected two or more")
    files = {str(model): sha256(model_path(model)) for model in models}
    if len(set(files.values())) < len(models):
        raise UsageError("received the same net twice; expected different ones")
    net, card = open_model(models[0])
    means = [np.asarray(weight, np.float64) for weight in net.weights]
    for number, model in enumerate(models[1:], start=2):
        other, its = open_model(model)
        if differ := [k for k in _ALIKE if (card or {}).get(k) != (its or {}).get(k)]:
            raise UsageError(
                f"{model}: {', '.join(differ)} differ from those of {models[0]}; expected the same"
            )
        if _shapes(other) != _shapes(net):
            raise UsageError(
                f"{model}: weights of other shapes than those of {models[0]}; expected one "
                "architecture"
            )
        for mean, weight in zip(means, other.weights, strict=True):
            mean += (np.asarray(weight, np.float64) - mean) / number
    for weight, mean in zip(net.weights, means, strict=True):
        weight.assign(mean)
    with new_folder(out) as folder:
        save_model(net, folder / MODEL)
        if card is not None:
            known = {key: value for key, value in card.items() if key not in _OF_ONE_NET}
            said = {"sha256": sha256(folder / MODEL), "average_of": list(files.values())}
            write_json(folder / CARD, known | said)
    return Path(out)


def _shapes(net: "keras.Model") -> list[tuple[str, tuple[int, ...]]]:
    # In their order: in nested models several weights have one path.
    return [(weight.path, tuple(weight.shape)) for weight in net.weights]


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    cli = Parser(prog="python -m kfcn_tools.average", description=__doc__)
    cli.formatter_class = argparse.RawDescriptionHelpFormatter
    cli.add_argument("models", nargs="+", metavar="MODEL", help=MODEL_HELP)
    cli.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    return cli


def work(args: argparse.Namespace) -> None:
    """Averages, and says what to do next."""
    out = average(args.models, args.out)
    print(f"model    {out / MODEL}, the mean of {len(args.models)} nets")
    known = data_of_run(args.models[0])
    place = [] if known is None or known.data_dir is None else ["--data-dir", known.data_dir]
    print(f"measure  {shlex.join(['kfcn-evaluate', str(out), *place])}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
