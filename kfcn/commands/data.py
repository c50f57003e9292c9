"""kfcn-data: looks at a data set before it is trained on, and prepares large ones."""

import argparse
from collections.abc import Sequence

from kfcn.commands._cli import (
    BEAM_HELP,
    OVERWRITE_HELP,
    Parser,
    add_source,
    beam_flags,
    number,
    run,
    source_of,
)
from kfcn.commands.labelling import add_next, add_suspects


def parser() -> argparse.ArgumentParser:
    cli = Parser(prog="kfcn-data", description="Check a data set before training, or prepare it.")
    actions = cli.add_subparsers(dest="action", required=True, metavar="ACTION")

    shared = Parser(add_help=False)
    add_source(shared, flag="data")

    several = Parser(add_help=False)
    several.add_argument(
        "--splits",
        nargs="+",
        metavar="NAME",
        help="default: those of train, val, test that exist, or else all",
    )

    check = actions.add_parser(
        "check",
        parents=[shared, several],
        help="audit the labels",
        description="Check every pair: label values, class frequencies and weights, sizes, files "
        "that do not open, wrong labels, duplicates across splits.",
    )
    check.add_argument(
        "--out", metavar="DIR", help="where check.json and check.html go (default: check-NAME)"
    )
    check.set_defaults(action_work=_check)
    check.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)

    prepare = actions.add_parser(
        "prepare",
        parents=[shared, several],
        help="write record files in one pass",
        description="Check every pair and write the data set as sharded record files, which are "
        "trained on with --data prepared --data-dir OUT. Run again, it continues.",
    )
    prepare.add_argument("--out", metavar="DIR", required=True, help="folder of the record files")
    prepare.add_argument(
        "--format",
        metavar="array_record|tfrecord",
        default="array_record",
        help="default: array_record",
    )
    prepare.add_argument(
        "--workers", type=number(int, least=1), metavar="N", help="processes (default: cores)"
    )
    prepare.set_defaults(action_work=_prepare)
    prepare.add_argument("--beam", metavar="FLAGS", nargs="?", const="", help=BEAM_HELP)
    add_next(actions)
    add_suspects(actions, shared)
    return cli


def work(args: argparse.Namespace) -> int:
    return args.action_work(args)


def _open(args) -> list:
    from kfcn.data import open_splits

    source = source_of(args)
    return open_splits(source, list(dict.fromkeys(args.splits or source.usual_splits())))


def _check(args) -> int:
    from pathlib import Path

    from kfcn.data.audit.audit import Audit, audit_split
    from kfcn.data.audit.page import page
    from kfcn.outputs import Outputs

    out = Path(args.out or f"check-{source_of(args).file_name}")
    results = [out / "check.json", out / "check.html"]
    Outputs(out, overwrite=args.overwrite).check(results)  # before pictures are opened
    datasets = _open(args)
    outputs = Outputs(
        out, [file for dataset in datasets for file in dataset.files()], overwrite=args.overwrite
    )
    outputs.check(results)
    with outputs.lock():
        audit = Audit([audit_split(dataset, progress=True) for dataset in datasets])
        outputs.write_json(out / "check.json", audit.as_dict())
        outputs.write_text(out / "check.html", page(audit))
    print(audit.table())
    print(f"wrote {out / 'check.json'} and {out / 'check.html'}")
    return 1 if audit.errors else 0


def _prepare(args) -> int:
    from kfcn.data.prepare.prepare import prepare

    out = prepare(
        source_of(args),
        args.out,
        args.splits,
        args.format,
        args.workers,
        None if args.beam is None else beam_flags(args.beam),
        progress=True,
    )
    print(f"prepared; train with --data prepared --data-dir {out}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run(parser(), work, argv)
