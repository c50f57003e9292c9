"""`kfcn-heatmap MODEL IMAGE`: where in an image a classifier sees a class."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kfcn.commands import _cli
from kfcn.inference.scales import SCALES

if TYPE_CHECKING:
    from kfcn.outputs import Outputs


def parser() -> argparse.ArgumentParser:
    parser = _cli.Parser(
        prog="kfcn-heatmap",
        description="Draw where in an image (of any size) a classifier sees a class, after "
        "making the classifier fully convolutional: Figure 2 of the FCN paper.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"EfficientNetLite0 (comes with kfcn), {_cli.MODEL_HELP}, or a net of "
        "keras.applications (MobileNetV2)",
    )
    parser.add_argument("image", metavar="IMAGE", help="an image file")
    parser.add_argument(
        "--class",
        dest="wanted",
        metavar="NAME",
        help="the class by name or index; default: the one with the highest mean probability",
    )
    parser.add_argument(
        "--out", default="heatmap.png", metavar="FILE", help="the picture (default: heatmap.png)"
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="class names, one per line (default: those of the model's card)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of the keras.applications net, instead of a download",
    )
    parser.add_argument(
        "--preprocess",
        choices=("none", "tf", "torch", "caffe"),
        help="how the model expects its pixels, as in keras.applications; default: for a net of "
        "keras.applications its own way, for a file RGB 0..255",
    )
    parser.add_argument(
        "--size",
        type=_cli.number(int, least=1),
        metavar="N",
        help="input size in pixels that the classifier was made for, where its input leaves it "
        "open",
    )
    parser.add_argument(
        "--scale",
        type=_cli.number(float, SCALES),
        default=1.0,
        metavar="X",
        help="enlarge the image first (default: 1)",
    )
    parser.add_argument(
        "--output-stride",
        type=_cli.number(int, least=1),
        metavar="N",
        help="pixels between cells, by dilation (default: the net's own stride)",
    )
    parser.add_argument("--overwrite", action="store_true", help=_cli.OVERWRITE_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return _cli.run(parser(), _work, argv)


def _work(args: argparse.Namespace) -> None:
    from kfcn.outputs import one_file
    from kfcn.visualize import figure_format

    out = Path(args.out)
    figure_format(out)
    inputs = [args.image, args.model, *filter(None, (args.labels, args.weights))]
    with one_file(out, inputs, args.overwrite) as outputs:
        _draw(args, out, outputs)
    print(f"wrote {out}")


def _draw(args: argparse.Namespace, out: Path, outputs: "Outputs") -> None:
    from kfcn.data.formats.images import read_image

    given = read_image(args.image)  # before TensorFlow is imported
    from kfcn.inference.class_heatmaps import (
        classifier_size,
        dense_net,
        enlarge,
        run_dense,
        scale_for_more,
        spread_map,
    )
    from kfcn.inference.classifiers import choose_class, holds_normalization, open_classifier
    from kfcn.rewrite import receptive_fields
    from kfcn.visualize import draw_class_heatmap

    classifier = open_classifier(args.model, args.weights, args.labels, args.preprocess, args.size)
    model, labels = classifier.model, classifier.labels
    chosen = None
    if args.wanted is not None:
        chosen = choose_class(labels, args.wanted, model.output_shape[-1])
    if args.preprocess is None and classifier.raw and not holds_normalization(model):
        print(
            f"kfcn-heatmap: {args.model} has no Rescaling or Normalization layer: if it expects "
            "preprocessed pixels, pass --preprocess tf, torch or caffe",
            file=sys.stderr,
        )
    net, probabilities = dense_net(model, classifier.size, args.output_stride)
    least = classifier_size(model, classifier.size)
    image = enlarge(given, least, args.scale)
    maps = run_dense(net, classifier.preprocess(image), probabilities)
    (field,) = receptive_fields(net)

    shares = maps.mean(axis=(0, 1))
    best = shares.argsort()[::-1][:5]
    chosen = int(best[0]) if chosen is None else chosen

    def label(index):
        return labels[index] if labels else f"class {index}"

    heat = spread_map(maps[..., chosen], image.shape, field.stride, field.offset)
    title = f"{label(chosen)}, {maps.shape[0]}x{maps.shape[1]} cells"
    top = [(label(index), float(shares[index])) for index in best]
    with outputs.aside(out) as temporary:
        draw_class_heatmap(temporary, image, heat, title, top)

    larger = scale_for_more(maps.shape, len(image) / len(given))
    hint = f" (few; --scale {larger} gives more)" if larger else ""
    print(f"{maps.shape[0]}x{maps.shape[1]} cells, one every {field.stride} pixels{hint}")
    print("class                        mean    peak")
    for index in dict.fromkeys([*best.tolist(), chosen]):
        mark = "  <- drawn" if index == chosen else ""
        peak = maps[..., index].max()
        print(f"{label(index):26.26}  {shares[index]:.4f}  {peak:.4f}{mark}")


if __name__ == "__main__":
    sys.exit(main())
