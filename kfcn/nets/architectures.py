"""The table of nets that `kfcn-train --arch` knows; a row imports no Keras."""

import dataclasses
import pkgutil
from typing import TYPE_CHECKING, Any

from kfcn.errors import UsageError

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A row of the table.

    Attributes:
        build: "module:function" from the number of classes, the backbone's name and options to the
            untrained net.
        about: a line for help and documentation.
        backbone: whether it stands on one.
        output_stride: of the backbone where no other is asked for; None where there is no choice.
        head: the options of `kfcn.nets.fcn.fcn8s` that it has beside the backbone's.
    """

    build: str
    about: str
    backbone: bool = True
    output_stride: int | None = 32
    head: tuple[str, ...] = ("learn_middle", "learn_last", "align")


ARCHITECTURES = {
    "fcn32s": Architecture(
        "kfcn.nets.fcn:fcn32s",
        "of the paper: class scores enlarged 32 times",
        head=("learn_last", "align"),  # there is no upsampling before the last
    ),
    "fcn16s": Architecture("kfcn.nets.fcn:fcn16s", "of the paper: one skip, from stride 16"),
    "fcn8s": Architecture("kfcn.nets.fcn:fcn8s", "of the paper: skips from strides 16 and 8"),
    "fcn4s": Architecture("kfcn.nets.fcn:fcn4s", "one skip more, from stride 4, for thin things"),
    "fcn2s": Architecture("kfcn.nets.fcn:fcn2s", "one skip more, from stride 2"),
    "fcn8s-fpn": Architecture(
        "kfcn.nets.fcn_fpn:fcn8s_fpn",
        "FCN-8s and a feature pyramid down to stride 2: the best here",
    ),
    "fcn8s-atonce": Architecture(
        "kfcn.nets.fcn:fcn8s_atonce", "FCN-8s, its skips scaled to be trained in one stage"
    ),
    "heatmap": Architecture(
        "kfcn.nets.baselines:heatmap",
        "the map at stride 32 enlarged by nearest neighbour: what the skips are measured against",
        output_stride=None,
        head=(),
    ),
    "dilated": Architecture(
        "kfcn.nets.baselines:dilated",
        "one coarse map, at stride 8: strides removed, later filters dilated",
        output_stride=8,
        head=(),
    ),
    "convnet": Architecture(
        "kfcn.nets.convnet:convnet",
        "3x3 convolutions only: no backbone, no pooling, no stride, dilation rates 1 to 32",
        backbone=False,
        output_stride=None,
        head=(),
    ),
}
NAMES = tuple(ARCHITECTURES)


def row(arch: str) -> Architecture:
    """The row of a net.

    Raises:
        UsageError: there is none of this name.
    """
    if arch not in ARCHITECTURES:
        raise UsageError(f"unknown architecture {arch!r}; expected one of {', '.join(NAMES)}")
    return ARCHITECTURES[arch]


def build(
    arch: str,
    classes: int,
    backbone: str,
    output_stride: int | None = None,
    head_options: dict[str, Any] | None = None,
    backbone_options: dict[str, Any] | None = None,
) -> "keras.Model":
    """An untrained net by name.

    Args:
        arch: one of `NAMES`.
        classes: number of classes.
        backbone: a key of `kfcn.nets.backbones.BACKBONES`, for a net that stands on one.
        output_stride: of the backbone; None for the net's own.
        head_options: see `kfcn.nets.fcn.fcn8s`; a net takes those that it has.
        backbone_options: of the backbone.

    Raises:
        UsageError: an unknown name or option, or an output stride where there is no choice.
    """
    entry = row(arch)
    if output_stride and entry.output_stride is None:
        raise UsageError(
            f"output stride {output_stride}: it cannot be chosen for the net {arch}; leave it out"
        )
    make = pkgutil.resolve_name(entry.build)
    if not entry.backbone:
        return make(classes)
    options = {name: v for name, v in (head_options or {}).items() if name in entry.head}
    if entry.output_stride is not None:
        options["output_stride"] = output_stride or entry.output_stride
    return make(classes, backbone, **options, **(backbone_options or {}))
