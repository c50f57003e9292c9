"""`kfcn-data next` and `kfcn-data suspects`: what to label next, and which labels are wrong."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfcn.commands._cli import OVERWRITE_HELP, number, source_of
from kfcn.data.reading import Reading
from kfcn.errors import counted

if TYPE_CHECKING:
    from kfcn.data import Dataset


FOLDS = 3


def add_next(actions: Any) -> None:
    """Adds the action `next`."""
    cli = actions.add_parser(
        "next",
        help="choose the pictures to label next",
        description="Choose the pictures that a net would learn most from: those that it is unsure "
        "of and that differ from each other and from the labelled ones. Writes labels to be "
        "corrected for each, next.csv with their order, and next.html for viewing.",
    )
    cli.add_argument("model", metavar="MODEL", help="a run folder, a .keras file or a shipped net")
    cli.add_argument("images", metavar="IMAGE_OR_DIR", nargs="+", help="as in kfcn-predict")
    cli.add_argument(
        "--count", type=number(int), default=30, metavar="N", help="number of pictures (30)"
    )
    cli.add_argument("--out", metavar="DIR", required=True, help="folder for the results")
    cli.add_argument(
        "--format",
        metavar="labelme|png|voc|coco",
        default="labelme",
        help="format of the labels to be corrected (labelme: polygons)",
    )
    cli.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)
    cli.set_defaults(action_work=next_pictures)


def next_pictures(args: argparse.Namespace) -> int:
    from kfcn.cards import open_model
    from kfcn.inference.collect import collect, left_out
    from kfcn.inference.formats import writer_for
    from kfcn.inference.predict import inputs_of
    from kfcn.outputs import Outputs

    for note in left_out(args.images):
        print(f"kfcn-data: {note}", file=sys.stderr)
    model, card = open_model(args.model)
    from kfcn.labelling.proposal import check_outputs, propose, write_proposal

    stretch = Reading.of_card(card).stretch
    inputs = [*inputs_of(args.model, args.images), *collect(args.images)]
    outputs = Outputs(args.out, inputs, args.overwrite)
    writer = writer_for(model.outputs[0].shape[-1], card, outputs, args.format)
    check_outputs(writer, [])  # before the pictures are looked at, which takes long
    labelled = _labelled(args.model, stretch)
    proposal = propose(model, args.images, args.count, labelled, progress=True, stretch=stretch)
    check_outputs(writer, proposal.chosen)
    with outputs.lock():
        kept = write_proposal(proposal, model, writer)
    for message in proposal.failed.values():
        print(f"kfcn-data: not read: {message}", file=sys.stderr)
    print(
        f"{len(proposal.chosen)} of {counted(len(proposal.uncertainty), 'picture')} chosen, "
        f"{counted(proposal.labelled, 'has', 'have')} the same name as a labelled one; see "
        f"{Path(args.out) / 'next.html'}"
    )
    if kept:
        print(f"{counted(len(kept), 'corrected file')} kept")
    return 1 if proposal.failed else 0


def _labelled(model: str, stretch: tuple[int, int] | None) -> "list[Dataset]":
    """The splits that a run was trained and validated on, if they are where they were.

    Args:
        model: the run.
        stretch: how pictures of more than 8 bits are read, which stands on the net's card alone.
    """
    from kfcn.errors import KfcnError
    from kfcn.saved import run_folder
    from kfcn.training.run_folder import RunFolder

    try:
        stored = RunFolder(run_folder(model)).stored_settings()
        if stored is None:
            return []
        source = stored.source.stretched(stretch)
        return [source.open(split) for split in (stored.train_split, stored.val_split)]
    except KfcnError as error:
        print(f"kfcn-data: the training data of {model} cannot be read ({error})", file=sys.stderr)
        return []


def add_suspects(actions: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the action `suspects`; `shared` names the data set."""
    cli = actions.add_parser(
        "suspects",
        parents=[shared],
        help="find labels that look wrong",
        description="Rank pictures and regions by how much nets that have not seen them contradict "
        "their labels. Writes suspects.html for viewing, pictures.csv and regions.csv. Without "
        "--model, nets are trained on all but one part of the split, one part after the other; run "
        "again, this continues.",
    )
    cli.add_argument("--split", default="train", metavar="NAME", help="default: train")
    cli.add_argument(
        "--model",
        metavar="MODEL",
        help="a net that was not trained on the split; nothing is trained then",
    )
    cli.add_argument(
        "--folds", type=number(int), metavar="K", help=f"number of parts of the split ({FOLDS})"
    )
    cli.add_argument("--epochs", type=number(int), metavar="N", help="epochs of each training")
    cli.add_argument(
        "--init-from", metavar="MODEL", help="what each training starts from, such as a shipped net"
    )
    cli.add_argument("--out", metavar="DIR", required=True, help="folder for the results")
    cli.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)
    cli.set_defaults(action_work=suspects)


def suspects(args: argparse.Namespace) -> int:
    from kfcn.cards import check_classes, open_model
    from kfcn.data.stretch import open_splits
    from kfcn.errors import UsageError
    from kfcn.labelling.folds import Fold, train_folds
    from kfcn.labelling.search import FILES, find_suspects, write_suspects
    from kfcn.outputs import Outputs

    folds = FOLDS if args.folds is None else args.folds
    trains = {"--epochs": args.epochs, "--init-from": args.init_from, "--folds": args.folds}
    if args.model and (given := [flag for flag, value in trains.items() if value is not None]):
        raise UsageError(
            f"{', '.join(given)}: with --model nothing is trained; leave one of them out"
        )
    model, card = open_model(args.model) if args.model else (None, None)
    source = source_of(args, card)
    (dataset,) = open_splits(source, [args.split])
    out = Path(args.out)
    outputs = Outputs(out, dataset.files(), overwrite=args.overwrite)
    outputs.check([out / name for name in FILES])
    with outputs.lock():
        if model is not None:
            check_classes(card, dataset, model.outputs[0].shape[-1])
            parts = iter([Fold(dataset, 0, model)])
        else:
            settings = {"epochs": args.epochs, "init_from": args.init_from}
            parts = train_folds(source, args.split, folds, out, print, **settings)
        found = find_suspects(dataset, parts, progress=True)
        write_suspects(found, outputs)
    regions = counted(len(found.regions), "suspicious region")
    print(f"{regions} in {counted(len(dataset), 'picture')}; the first:")
    names = dataset.classes.names
    for region in found.regions[:10]:
        print(
            f"  {dataset.label_name(region.picture)}: {names[region.label]}, seen as "
            f"{names[region.seen]} ({region.pixels} pixels at {region.box[0]}, {region.box[1]})"
        )
    print(f"see {out / FILES[0]}")
    return 0
