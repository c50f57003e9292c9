"""kfcn-train: trains a net on pairs of image and label map."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from kfcn import recipes
from kfcn.commands._cli import Parser, add_flags, run
from kfcn.machine import use_onednn
from kfcn.training.settings import Conduct, Settings, default_words


def parser() -> argparse.ArgumentParser:
    cli = Parser(
        prog="kfcn-train",
        description="Train a fully convolutional network on pairs of image and label map. "
        "Without any flag: FCN-8s on drawn scenes, some ten minutes on two CPU cores, no network.",
    )
    add_flags(cli, Settings, default_words)
    add_flags(cli, Conduct)
    output = cli.add_argument_group("output")
    output.add_argument(
        "--run-dir",
        metavar="DIR",
        help="where the run is written (default: runs/DATA-ARCH); an unfinished run continues",
    )
    return cli


def work(args: argparse.Namespace) -> None:
    from kfcn.errors import WorkerLostError

    given = {name: value for name, value in vars(args).items() if value is not None}
    _check(given)
    from kfcn.training import train

    try:
        result = train(**given)
    except WorkerLostError as error:
        print(f"kfcn-train: error: {error}", file=sys.stderr, flush=True)
        os._exit(error.code)  # an orderly end would wait for the lost worker
    if result.worker:
        return  # the first one tells
    print(f"\nbest net on {result.evaluation.data}, full resolution:")
    print(result.evaluation.table())
    print(f"\nmodel    {result.model}")
    print(f"overlays {result.overlays}")


def _check(given: Mapping[str, Any]) -> None:
    """Tells of settings that make no sense and of a folder that is not there.

    `train` does, too, after the seconds that TensorFlow takes to be imported. No more is looked at:
    what opens data may start TensorFlow before its devices are set up.
    """
    from kfcn.data.catalog import check_place
    from kfcn.training.stages import plan

    alone = not os.environ.keys() & {"TF_CONFIG", "SLURM_PROCID"}  # others would wait for this one
    named = {field.name for field in fields(Settings)}
    settings = {name: value for name, value in given.items() if name in named}
    for stage in plan(given.get("run_dir"), settings):
        if alone and not stage.finished:
            check_place(stage.config.data, stage.config.data_dir)


def print_recipes() -> None:
    """The run cards of all recipes."""
    print("\n\n".join(f"{name}: {recipes.card(name).strip()}" for name in recipes.names()))


def _kernels(args: argparse.Namespace) -> None:
    """A run goes on with the kernels that it began with: others differ in rounding."""
    from kfcn.training.run_folder import read_config

    folder = Path(args.run_dir) if args.run_dir else None
    configs = [folder / "config.json", *sorted(folder.glob("*/config.json"))] if folder else []
    for file in filter(Path.is_file, configs):
        try:
            machine = read_config(file).get("machine", {})
        except ValueError:
            return  # damaged: said by who reads the settings in it
        if "onednn" in machine:  # before 0.2 TensorFlow's own choice was taken
            use_onednn(machine["onednn"])
        return
    use_onednn()


def main(argv: Sequence[str] | None = None) -> int:
    cli = parser()
    if cli.parse_args(argv).recipe == "list":  # needs no TensorFlow, as --help needs none
        return run(cli, lambda args: print_recipes(), argv, lambda args: None)
    return run(cli, work, argv, _kernels)
