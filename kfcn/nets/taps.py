"""Builds a backbone on an image and gives its taps; a head knows nothing else of the backbone."""

import dataclasses
import pkgutil
from typing import Unpack

import keras

from kfcn.errors import UsageError
from kfcn.graph import producer
from kfcn.nets.backbones import BATCH_NORM_MOMENTUM, BodyOptions, row
from kfcn.rewrite import receptive_fields, to_atrous


@dataclasses.dataclass(frozen=True)
class Tap:
    """A map that a head may use.

    Attributes:
        tensor: `(B, ceil(H/stride), ceil(W/stride), channels)`, one row or column less for some
            backbones at odd sizes.
        stride: input pixels from one cell to the next.
        offset: input pixel at the centre of cell 0 (at even sizes).
        layer: name of the layer that gives it.
    """

    tensor: keras.KerasTensor
    stride: int
    offset: float
    layer: str

    @property
    def channels(self) -> int:
        return self.tensor.shape[-1]


CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


def taps(
    image: keras.KerasTensor, backbone: str, output_stride: int = 32, **options: Unpack[BodyOptions]
) -> dict[int, Tap]:
    """Builds a backbone on an image tensor.

    Args:
        image: symbolic `(B, H, W, 3)`, RGB, 0 to 255.
        backbone: a key of `kfcn.nets.backbones.BACKBONES`.
        output_stride: 32, or 16 or 8: strides beyond it are removed and later filters dilated
            (`kfcn.to_atrous`), so that the coarsest maps are finer, at the cost of computation.
        options: of that backbone (`alpha` of mobilenet_v2, `fc_filters` of vgg16).

    Returns:
        A tap for each of the backbone's own strides 2, 4, 8, 16 and 32. Beyond `output_stride`
        a tap's `stride` is `output_stride`.

    Raises:
        UsageError: an unknown backbone or option, or another output stride.
        KfcnError: a backbone that cannot be dilated.
    """
    entry = row(backbone)
    unknown = set(options) - set(entry.options)
    if unknown:
        raise UsageError(
            f"backbone {backbone} has no option {', '.join(sorted(unknown))}; "
            f"it has: {', '.join(entry.options) or 'none'}"
        )
    if output_stride not in (8, 16, 32):
        raise UsageError(f"output stride {output_stride}: expected 8, 16 or 32")
    body = pkgutil.resolve_name(entry.build)(image, **options)
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    if output_stride < 32:
        body = _denser(body, image, list(entry.taps.values()), output_stride)
    keep_last_cells(body)
    found = {}
    for stride, name in entry.taps.items():
        tensor, here = body.get_layer(name).output, min(stride, output_stride)
        # A dense map's cells lie where the net's padding has them.
        offset = entry.offset(stride) if here == stride else _offset(image, tensor, here)
        found[stride] = Tap(tensor, here, offset, name)
    return found


def _denser(body, image, names, output_stride):
    """The untrained body with strides removed, on the same image."""
    maps = keras.Model(body.inputs, [body.get_layer(name).output for name in names])
    dense = to_atrous(maps, output_stride, centered=True)
    return keras.models.clone_model(dense, input_tensors=[image])


def _offset(image, tensor, stride) -> float:
    """The place of cell 0 that an enlarging kernel can have and that is nearest to the true one."""
    centre = receptive_fields(keras.Model(image, tensor))[0].offset
    centre = centre[0] if isinstance(centre, tuple) else centre
    return min((0, (stride - 1) / 2, stride - 1), key=lambda place: abs(place - centre))


def keep_last_cells(body: keras.Model) -> None:
    """Pads odd maps so that strided layers keep their last row and column.

    The MobileNets' explicit padding, made for even maps, drops them, and leaves an image below 32
    pixels with no cell at all. One more row at the end is stepped over at even sizes.
    """
    for layer in body.layers:
        if not isinstance(layer, CONVOLUTIONS) or layer.padding != "valid":
            continue
        padding = producer(layer.input)
        if not isinstance(padding, keras.layers.ZeroPadding2D):
            continue
        padding.padding = tuple(
            (before, after + 1) if stride == 2 and before + after == kernel - 2 else (before, after)
            for (before, after), kernel, stride in zip(
                padding.padding, layer.kernel_size, layer.strides, strict=True
            )
        )
