"""kfcn-tune-crf: finds the widths and weights of a dense CRF for a trained net."""

import argparse
from collections.abc import Mapping, Sequence

from kfcn import pretrained
from kfcn.commands._cli import (
    OF_THE_RUN,
    OVERWRITE_HELP,
    Parser,
    add_source,
    number,
    run,
    source_of_run,
)
from kfcn.errors import UsageError, counted


def parser() -> argparse.ArgumentParser:
    cli = Parser(
        prog="kfcn-tune-crf",
        description="Find the widths and weights of a dense CRF on top of a trained net; "
        "kfcn-train, kfcn-evaluate and kfcn-predict then use them under --crf.",
    )
    cli.add_argument("run", metavar="RUN", help="run folder of a trained net")
    add_source(cli, required=False, purpose=OF_THE_RUN)
    cli.add_argument("--split", metavar="NAME", help="default: train, or the run's own")
    cli.add_argument(
        "--images",
        type=number(int, least=1),
        default=16,
        metavar="N",
        help="number of images of the split to use (16)",
    )
    cli.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)
    return cli


def work(args: argparse.Namespace) -> None:
    from kfcn.cards import check_classes
    from kfcn.data.audit.check import checked_sample
    from kfcn.data.dataset import spread
    from kfcn.inference.runtime.net import NetWithCRF, open_net
    from kfcn.inference.segment import image_logits
    from kfcn.outputs import one_file
    from kfcn.saved import CRF, model_path

    if pretrained.is_name(args.run):
        raise UsageError(
            f"{args.run} comes with kfcn, whose own files are not changed; copy "
            f"{pretrained.folder(args.run)} and pass the copy"
        )
    net, card = open_net(args.run)
    if isinstance(net, NetWithCRF) or (card and card.get("crf")):
        raise UsageError(f"{args.run} has a CRF already, which was trained with it")
    source, (train, _) = source_of_run(args, args.run, card, drawn=True)
    dataset = source.open_for(card, args.split or train)
    check_classes(card, dataset, net.classes)
    samples = [checked_sample(dataset, index) for index in spread(len(dataset), args.images)]

    from kfcn.crf.tuning import Trial, tune  # brings TensorFlow: the rest is told before

    def show(trial: Trial) -> None:
        name = "the net alone" if trial.values is None else _listed(trial.values)
        print(f"{100 * trial.mean_iou:6.2f} {100 * trial.boundary_iou:6.2f}  {name}", flush=True)

    file = model_path(args.run).with_name(CRF)
    with one_file(file, [model_path(args.run)], args.overwrite, "RUN") as outputs:
        print(
            f"mean IoU and boundary IoU on {counted(len(samples), 'image')} of "
            f"{dataset.name}/{dataset.split}"
        )
        alone, best = tune(
            [sample.image for sample in samples],
            [sample.labels for sample in samples],
            [image_logits(net, sample.image) for sample in samples],
            progress=show,
        )
        if best is alone:
            print(f"best: the net alone; use {args.run} without --crf (wrote no {file.name})")
            return
        found_on = {"data": f"{dataset.name}/{dataset.split}", "images": len(samples)}
        found_on |= {"mean_iou": best.mean_iou, "mean_iou_without": alone.mean_iou}
        outputs.write_json(file, {"crf": best.values, "found_on": found_on})
    print(f"best: {_listed(best.values)}")
    print(f"wrote {file}; use it with kfcn-evaluate {args.run} --crf")


def _listed(values: Mapping[str, float] | None) -> str:
    return " ".join(f"{name}={value:g}" for name, value in (values or {}).items())


def main(argv: Sequence[str] | None = None) -> int:
    return run(parser(), work, argv)
