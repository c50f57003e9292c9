"""The command; see `kfcn_tools.benchmarks.labels`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from kfcn.commands._cli import Parser, run
from kfcn.data.catalog import CLASSES_HELP, Source
from kfcn.errors import UsageError
from kfcn_tools.benchmarks.labels.next_pictures import measure_next
from kfcn_tools.benchmarks.labels.report import section
from kfcn_tools.benchmarks.labels.sparse import measure_sparse
from kfcn_tools.benchmarks.labels.suspects import measure_suspects
from kfcn_tools.benchmarks.labels.training import Training
from kfcn_tools.benchmarks.labels.unlabelled import measure_unlabelled


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    shared = Parser(add_help=False)
    shared.add_argument("data", metavar="DATA", help="a data set of kfcn-train's --data")
    shared.add_argument("data_dir", type=Path, nargs="?", metavar="DIR", help="its folder")
    shared.add_argument("--out", type=Path, required=True, metavar="DIR", help="results.json")
    shared.add_argument("--classes", metavar="FILE|LIST", help=CLASSES_HELP)
    shared.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="(0)")
    shared.add_argument(
        "--shrink", type=int, default=1, metavar="N", help="make pictures N times smaller (1)"
    )
    shared.add_argument("--arch", default="fcn8s", metavar="NAME", help="(fcn8s)")
    shared.add_argument("--backbone", default="efficientnet_lite0", metavar="NAME")
    shared.add_argument("--weights", default="imagenet", metavar="imagenet|none|PATH")
    shared.add_argument("--init-from", metavar="RUN", help="what every training starts from")
    shared.add_argument("--crop", type=int, nargs=2, default=(160, 224), metavar=("H", "W"))
    shared.add_argument(
        "--scale", type=float, nargs=2, default=(0.75, 1.75), metavar=("LOW", "HIGH")
    )
    shared.add_argument("--batch-size", type=int, default=4, metavar="N", help="(4)")
    shared.add_argument("--steps", type=int, default=200, metavar="N", help="a training (200)")
    measured = Parser(add_help=False)
    measured.add_argument("--val", default="val", metavar="SPLIT", help="measured on (val)")
    cli = Parser(
        prog="python -m kfcn_tools.benchmarks.labels",
        description="What few labels give: points and scribbles, pictures without labels, "
        "kfcn-data next, kfcn-data suspects.",
    )
    actions = cli.add_subparsers(
        dest="what", required=True, metavar="sparse|unlabelled|next|suspects"
    )
    ours = actions.add_parser("sparse", parents=[shared, measured], help="points and scribbles")
    ours.add_argument(
        "--gated-crf", type=float, default=0.01, metavar="WEIGHT", help="of its loss (0.01)"
    )
    ours = actions.add_parser(
        "unlabelled", parents=[shared, measured], help="the other pictures without labels"
    )
    ours.add_argument(
        "--parts", type=int, nargs="+", default=[16, 8, 4], metavar="N",
        help="1/N of the pictures are labelled (16 8 4)",
    )  # fmt: skip
    ours = actions.add_parser(
        "next", parents=[shared, measured], help="chosen against random pictures"
    )
    ours.add_argument("--count", type=int, default=20, metavar="N", help="a round (20)")
    ours.add_argument("--rounds", type=int, default=4, metavar="N", help="after the first (4)")
    ours = actions.add_parser("suspects", parents=[shared], help="what planted errors are found")
    ours.add_argument("--folds", type=int, default=3, metavar="K", help="parts of train (3)")
    ours.add_argument(
        "--share", type=float, default=0.05, help="of the pictures, for each kind; 0: none (0.05)"
    )
    return cli


def work(args: argparse.Namespace) -> None:
    """Measures, and prints the section."""
    (height, width), (low, high) = args.crop, args.scale
    if args.shrink < 1:
        raise UsageError(f"--shrink {args.shrink}: expected 1 or more")
    training = Training(
        Source(args.data, args.data_dir, classes=args.classes), args.shrink, args.arch,
        args.backbone, args.weights, args.init_from, (height, width), (low, high),
        args.batch_size, args.steps,
    )  # fmt: skip
    if args.what == "sparse":
        measure_sparse(training, args.out, args.val, args.gated_crf, args.seeds)
    elif args.what == "unlabelled":
        measure_unlabelled(training, args.out, args.val, args.parts, args.seeds)
    elif args.what == "next":
        measure_next(training, args.out, args.val, args.count, args.rounds, args.seeds)
    else:
        measure_suspects(training, args.out, args.folds, args.share, args.seeds)
    title, text = section(args.out)
    print(f"\n{title}\n\n{text}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
