"""kfcn-tune-crf: finds the widths and weights of a dense CRF for a trained net.

The widths of the filters do not learn (Zheng et al. 2015, section 7.1: found by cross-validation),
and what suits one camera ruins the labels of another. This tries values one parameter at a time,
keeps what gives the best mean IoU, and goes round again, starting from the published ones.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence

from kfcn.commands._cli import run

# In the order of their effect. A weight of 0 switches a filter off.
GRID = {
    "theta_beta": (3.0, 5.0, 8.0, 13.0, 20.0),
    "bilateral_weight": (0.0, 0.5, 1.0, 2.0, 5.0),
    "theta_alpha": (20.0, 40.0, 80.0, 160.0),
    "spatial_weight": (0.0, 0.5, 1.0, 3.0),
    "theta_gamma": (1.0, 3.0),
}
PUBLISHED = {
    "theta_alpha": 160.0,
    "theta_beta": 3.0,
    "theta_gamma": 3.0,
    "spatial_weight": 3.0,
    "bilateral_weight": 5.0,
}


def coordinate_search(
    score: Callable[[dict[str, float]], float],
    start: dict[str, float],
    grid: dict[str, Iterable[float]],
    rounds: int = 2,
) -> list[tuple[dict[str, float], float]]:
    """Tries the values of one parameter at a time and keeps the best; ends where nothing gains.

    Returns:
        Everything tried, in order, with its score.
    """
    best, tried = dict(start), {}

    def value(candidate):
        key = tuple(sorted(candidate.items()))
        if key not in tried:
            tried[key] = score(candidate)
        return tried[key]

    value(best)
    for _ in range(rounds):
        before = dict(best)
        for name, values in grid.items():
            best = max([best, *({**best, name: v} for v in values)], key=value)
        if best == before:
            break
    return [(dict(key), figure) for key, figure in tried.items()]


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    cli = argparse.ArgumentParser(
        prog="kfcn-tune-crf",
        description="Find the widths and weights of a dense CRF on top of a trained net; "
        "kfcn-train, kfcn-evaluate and kfcn-predict then use them under --crf.",
    )
    cli.add_argument("run", metavar="RUN", help="run folder of a trained net")
    cli.add_argument("--data", metavar="NAME", required=True, help="data set: scenes, camvid, ...")
    cli.add_argument("--data-dir", metavar="DIR", help="folder of the data set")
    cli.add_argument("--split", metavar="NAME", default="train", help="default: train")
    cli.add_argument("--images", type=int, default=16, metavar="N", help="of the split (16)")
    cli.add_argument("--seed", type=int, default=0, metavar="N", help="of drawn data")
    return cli


def work(args: argparse.Namespace) -> int:
    """Searches, prints what was tried and writes `crf.json` into the run folder."""
    import numpy as np

    from kfcn import data as data_sets
    from kfcn import metrics
    from kfcn.errors import UsageError
    from kfcn.files import write_json
    from kfcn.inference.segment import image_logits
    from kfcn.saved import CRF, check_classes, model_path, open_model

    if args.images < 1:
        raise UsageError(f"--images {args.images}: expected at least 1")
    dataset = data_sets.load(args.data, args.split, args.data_dir, args.seed)
    model, card = open_model(args.run)
    check_classes(card, dataset, model)
    count = min(args.images, len(dataset))
    samples = [dataset[int(i)] for i in np.linspace(0, len(dataset) - 1, count).round()]
    # The net runs once; only the CRF is tried again and again.
    unaries = [image_logits(model, sample.image) for sample in samples]
    classes = len(dataset.classes)

    def figures(label_maps):
        matrix, boundary = 0, 0
        for sample, labels in zip(samples, label_maps, strict=True):
            matrix = matrix + metrics.confusion_matrix(sample.labels, labels, classes)
            boundary = boundary + metrics.boundary_counts(sample.labels, labels, classes)
        return metrics.scores(matrix)["mean_iou"], metrics.boundary_iou(boundary)

    def told(name, mean_iou, boundary_iou):
        print(f"{100 * mean_iou:6.2f} {100 * boundary_iou:6.2f}  {name}", flush=True)

    print(f"mean IoU and boundary IoU on {count} images of {dataset.name}/{dataset.split}")
    alone = figures([logits.argmax(-1) for logits in unaries])
    told("the net alone", *alone)

    def score(values):
        pairs = zip(samples, unaries, strict=True)
        found = figures([refine(logits, s.image, values) for s, logits in pairs])
        told(" ".join(f"{name}={values[name]:g}" for name in PUBLISHED), *found)
        return found[0]

    best, mean_iou = max(coordinate_search(score, PUBLISHED, GRID), key=lambda pair: pair[1])
    file = model_path(args.run).with_name(CRF)
    found_on = {"data": f"{dataset.name}/{dataset.split}", "images": count}
    found_on |= {"mean_iou": mean_iou, "mean_iou_without": alone[0]}
    write_json(file, {"crf": best, "found_on": found_on})
    print(f"best: {' '.join(f'{k}={v:g}' for k, v in best.items())}")
    print(f"wrote {file}; use it with kfcn-evaluate {args.run} --crf")
    return 0


def refine(logits, image, values: dict[str, float]):
    """Labels (H, W) of a net's logits (H, W, C) after a CRF with these values on the image."""
    import numpy as np

    from kfcn.crf import DenseCRF

    layer = DenseCRF(**values)
    return np.asarray(layer([logits[None], image[None].astype("float32")]))[0].argmax(-1)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `kfcn-tune-crf`."""
    return run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
