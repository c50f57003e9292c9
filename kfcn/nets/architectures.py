"""The nets that `kfcn-train --arch` knows."""

import keras

from kfcn.errors import UsageError
from kfcn.nets.baselines import dilated, heatmap
from kfcn.nets.convnet import convnet
from kfcn.nets.fcn import fcn2s, fcn4s, fcn8s, fcn8s_atonce, fcn16s, fcn32s
from kfcn.nets.fcn_fpn import fcn8s_fpn

SKIP_NETS = {
    "fcn32s": fcn32s,
    "fcn16s": fcn16s,
    "fcn8s": fcn8s,
    "fcn4s": fcn4s,
    "fcn2s": fcn2s,
    "fcn8s-atonce": fcn8s_atonce,
    "fcn8s-fpn": fcn8s_fpn,
}
NAMES = (*SKIP_NETS, "heatmap", "dilated", "convnet")


def build(
    arch: str,
    classes: int,
    backbone: str,
    output_stride: int | None = None,
    head_options: dict | None = None,
    backbone_options: dict | None = None,
) -> keras.Model:
    """An untrained net by name.

    Args:
        arch: one of `NAMES`.
        classes: number of classes.
        backbone: a key of `kfcn.nets.backbones.BACKBONES`; `convnet` has none.
        output_stride: of the backbone; None for 8 in `dilated` and 32 in the skip nets. `heatmap`
            and `convnet` have no other than their own.
        head_options: of the skip nets, see `kfcn.nets.fcn.fcn8s`.
        backbone_options: of the backbone.

    Raises:
        UsageError: an unknown name or option.
    """
    body = backbone_options or {}
    if arch in SKIP_NETS:
        stride = output_stride or 32
        return SKIP_NETS[arch](
            classes, backbone, output_stride=stride, **(head_options or {}), **body
        )
    if arch == "heatmap":
        return heatmap(classes, backbone, **body)
    if arch == "dilated":
        return dilated(classes, backbone, output_stride or 8, **body)
    if arch == "convnet":
        return convnet(classes)
    raise UsageError(f"unknown architecture '{arch}'; expected one of {', '.join(NAMES)}")
