"""kfcn-train: trains a net on pairs of image and label map."""

import argparse
import json
import os
import sys
from pathlib import Path

from kfcn import __version__, recipes
from kfcn.commands._cli import CLASSES_HELP, DATA_NAMES, run
from kfcn.machine import use_onednn


def parser() -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog="kfcn-train",
        description="Train a fully convolutional network on pairs of image and label map. "
        "Without any flag: FCN-8s on drawn scenes, a few minutes on two CPU cores, no network.",
    )
    cli.add_argument("--version", action="version", version=f"kfcn {__version__}")
    cli.add_argument(
        "--recipe",
        metavar="NAME|list",
        action=_Recipe,
        help="the settings of a result; flags beside it override them. `list` tells which there "
        "are, with their figures: " + ", ".join(recipes.names()),
    )

    net = cli.add_argument_group("net")
    net.add_argument(
        "--arch",
        metavar="NAME",
        help="fcn32s, fcn16s, fcn8s (default), fcn4s, fcn2s, fcn8s-fpn, fcn8s-atonce, "
        "heatmap, dilated, convnet",
    )
    net.add_argument(
        "--backbone",
        metavar="NAME",
        help="mobilenet_v2 (default), mobilenet_v3_large, efficientnet_v2_b0, resnet50, vgg16",
    )
    net.add_argument(
        "--output-stride",
        type=int,
        metavar="8|16",
        help="strides of the backbone beyond this are removed, later filters dilated; without "
        "--arch it trains the dilated net",
    )
    net.add_argument("--alpha", type=float, help="width of mobilenet_v2: 0.35, 0.5, 0.75, 1.0 ...")
    net.add_argument("--fc-filters", type=int, help="channels of vgg16's fc6 and fc7 (4096)")
    net.add_argument(
        "--fix-middle",
        dest="learn_middle",
        action="store_const",
        const=False,
        help="keep the 2x upsampling layers bilinear too, as in the released nets",
    )
    net.add_argument(
        "--learn-last",
        action="store_const",
        const=True,
        help="let the last upsampling learn",
    )
    net.add_argument(
        "--align",
        action="store_const",
        const=True,
        help="upsampling kernels aligned to where the backbone's cells lie",
    )
    net.add_argument(
        "--crf",
        action="store_const",
        const=True,
        help="CRF-RNN: a dense CRF on top of the net of --init-from, trained end to end",
    )
    net.add_argument(
        "--weights",
        metavar="imagenet|none|PATH",
        help="weights of the backbone (default: none for scenes, else imagenet)",
    )
    net.add_argument(
        "--init-from",
        metavar="RUN",
        help="run folder or model to start from, e.g. fcn16s from a trained fcn32s",
    )

    data = cli.add_argument_group("data")
    data.add_argument("--data", metavar="NAME", help=f"scenes (default), {DATA_NAMES}")
    data.add_argument("--data-dir", metavar="DIR", help="folder of the data set")
    data.add_argument("--classes", metavar="WHICH", help=CLASSES_HELP)
    data.add_argument("--train-split", metavar="NAME", help="default: train")
    data.add_argument("--val-split", metavar="NAME", help="default: val")
    data.add_argument("--crop", type=int, nargs=2, metavar=("H", "W"), help="training crop, pixels")
    data.add_argument(
        "--whole",
        dest="crop",
        action="store_const",
        const=(0, 0),
        help="no crops: whole pictures of any size, padded to the largest of the batch",
    )
    data.add_argument(
        "--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="random scale (0.75 1.75)"
    )
    data.add_argument("--batch-size", type=int, metavar="N", help="images in a batch")

    training = cli.add_argument_group("training")
    training.add_argument("--epochs", type=int, metavar="N", help="passes over the training split")
    training.add_argument(
        "--optimizer", metavar="NAME", help="adamw (default), or sgd with momentum"
    )
    training.add_argument(
        "--learning-rate", type=float, metavar="RATE", help="at the start; decays to 0"
    )
    training.add_argument(
        "--power", type=float, metavar="P", help="of the rate's decay (0.9); 0 keeps the rate"
    )
    training.add_argument("--momentum", type=float, metavar="M", help="of sgd (0.9)")
    training.add_argument(
        "--weight-decay", type=float, metavar="RATE", help="decoupled for adamw, L2 for sgd"
    )
    training.add_argument(
        "--ema",
        type=float,
        metavar="M",
        help="validate and save the running average of the weights, of this momentum: 0.998 "
        "spans about 500 steps (default: 0, none)",
    )
    training.add_argument(
        "--class-weights",
        metavar="none|median|sqrt",
        help="median-frequency class weights of the loss, or their square root",
    )
    training.add_argument(
        "--iou-loss",
        type=float,
        metavar="W",
        help="add the soft IoU loss of the batch, with this weight, to the cross entropy",
    )
    training.add_argument("--seed", type=int, metavar="N", help="same seed, same data and start")
    training.add_argument(
        "--precision", metavar="TYPE", help="float32 (default), mixed_bfloat16, mixed_float16"
    )
    training.add_argument(
        "--deterministic",
        action="store_const",
        const=True,
        help="the same bits every time, somewhat slower",
    )

    where = cli.add_argument_group("devices and faults")
    where.add_argument(
        "--strategy",
        default="auto",
        metavar="auto|one|mirrored|multiworker",
        help="auto: all GPUs of this machine, or the workers that TF_CONFIG or Slurm name",
    )
    where.add_argument(
        "--cpu-replicas",
        type=int,
        default=0,
        metavar="N",
        help="mirror over N logical CPU devices, to try it without GPUs",
    )
    where.add_argument(
        "--save-minutes",
        type=float,
        default=5.0,
        metavar="M",
        help="between two checkpoints within an epoch (5); 0: after every step",
    )
    where.add_argument(
        "--keep", type=int, default=3, metavar="K", help="how many checkpoints stay (3)"
    )
    where.add_argument(
        "--skip-bad",
        type=int,
        default=0,
        metavar="N",
        help="name up to N unreadable files and go on without them (0)",
    )

    output = cli.add_argument_group("output")
    output.add_argument(
        "--run-dir",
        metavar="DIR",
        help="where the run is written (default: runs/DATA-ARCH); an unfinished run goes on",
    )
    return cli


class _Recipe(argparse.Action):
    """Stores the name; `list` prints the run cards, as --help prints the help."""

    def __call__(self, parser, namespace, values, option_string=None):
        if values == "list":
            print("\n\n".join(f"{name}: {recipes.card(name).strip()}" for name in recipes.names()))
            parser.exit()
        setattr(namespace, self.dest, values)


def work(args: argparse.Namespace) -> None:
    from kfcn.errors import WorkerLostError
    from kfcn.training import train

    try:
        result = train(**vars(args))
    except WorkerLostError as error:
        print(f"kfcn-train: error: {error}", file=sys.stderr, flush=True)
        os._exit(error.code)  # an orderly end would wait for the lost worker
    if result.worker:
        return  # the first one tells
    print(f"\nbest net on {result.evaluation.data}, full resolution:")
    print(result.evaluation.table())
    print(f"\nmodel    {result.model}")
    print(f"overlays {result.overlays}")


def _kernels(args: argparse.Namespace) -> None:
    """A run goes on with the kernels that it began with: others differ in rounding."""
    folder = Path(args.run_dir) if args.run_dir else None
    configs = [folder / "config.json", *sorted(folder.glob("*/config.json"))] if folder else []
    for file in filter(Path.is_file, configs):
        try:
            machine = json.loads(file.read_text(encoding="utf-8")).get("machine", {})
        except (ValueError, AttributeError):
            return  # damaged: said by who reads the settings in it
        if "onednn" in machine:  # before 0.2 TensorFlow's own choice was taken
            use_onednn(machine["onednn"])
        return
    use_onednn()


def main(argv=None) -> int:
    return run(parser(), work, argv, _kernels)
