"""A net as a short list of steps, for other runtimes than Keras.

A net of kfcn is convolutions, sums, enlargements and little else. Here it is written down as just
that: maps are NHWC float32, batch normalisation is folded into the convolutions, weights are NumPy
arrays. `from_keras` makes it, `tflite_graph` writes it as TFLite for one size, which `on_litert`
runs, and `onnx_graph` as ONNX for any size, which `on_onnxruntime` runs. This module needs NumPy
alone, so that a program runs without TensorFlow.

The kinds of steps, with their options and weights (C channels in, F out; pads are
`((top, bottom), (left, right))`):

    affine       x * scale + shift; weights `scale` and `shift`, (C,) or (1,)
    conv         `stride` and `dilation` (y, x), `padding` same or valid as TensorFlow has it;
                 weights `kernel` (kh, kw, C, F) and `bias` (F,)
    depthwise    the same with a `kernel` (kh, kw, C, multiplier)
    transposed   transposed convolution, `stride`, `padding`; `kernel` (kh, kw, F, C)
    enlarge      bilinear, `stride` times, with zeros beyond the border; `centred`: cell i lies at
                 s*i + (s - 1)/2 of the finer grid and the map is s*h high, otherwise at
                 s*i + s - 1 and s*h + s - 1 high (`kfcn.nets.upsample`)
    nearest      each cell becomes `stride` x `stride`
    max_pool     `size`, `stride`, `dilation`, `padding` same, valid or pads, which always lose
    mean         over the map: (B, 1, 1, C)
    add          of all inputs
    multiply     of two, one may be (B, 1, 1, C)
    activate     a `function`: one of `FUNCTIONS`
    pad          zeros, `pads`
    crop         `pads` cut off
    trim         the first input gets the height and width of the second: what is too much is cut
                 at the bottom and right, what is short repeats the last row and column; `short`:
                 whether that can be

`conv`, `depthwise`, `add` and `affine` may have `activation` relu or relu6, done at once.
"""

from typing import Any, NamedTuple

import numpy as np

from kfcn.errors import KfcnError

FUNCTIONS = ("relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "swish")


class UnsupportedError(KfcnError):
    """A layer of a net has no step of a program, or a step no operation of a runtime."""


class Step(NamedTuple):
    """One step; its result is value n + 1 where it is the n-th step, value 0 is the image.

    Attributes:
        kind: of the list above.
        inputs: numbers of values.
        options: as JSON can hold them.
        weights: float32 arrays.
    """

    kind: str
    inputs: tuple[int, ...]
    options: dict[str, Any]
    weights: dict[str, np.ndarray]


class Program(NamedTuple):
    """A net: image float32 `(B, H, W, 3)`, RGB 0..255, to logits `(B, H, W, C)`, any size.

    Attributes:
        steps: in order; the last one returns the logits.
        classes: C.
        margin: how far around a pixel the net looks, in pixels; None for the whole image.
    """

    steps: tuple[Step, ...]
    classes: int
    margin: int | None

    def sizes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Height, width and channels of each value for images of a size."""
        sizes = [(height, width, 3)]
        for step in self.steps:
            sizes.append(_size(step, [sizes[number] for number in step.inputs]))
        return sizes

    def wide_share(self) -> float:
        """The share of all multiplications that dense convolutions wider than 1x1 have."""
        counts = {True: 0, False: 0}
        for step, (height, width, _) in zip(self.steps, self.sizes(256, 256)[1:], strict=True):
            if step.kind in ("conv", "depthwise"):
                kernel = step.weights["kernel"]
                wide = step.kind == "conv" and kernel.shape[:2] != (1, 1)
                counts[wide] += kernel.size * height * width
        return counts[True] / max(1, sum(counts.values()))


def _size(step, given):
    """Height, width and channels of the result of a step."""
    options, (height, width, channels) = step.options, given[0]
    kind = step.kind
    if kind in ("conv", "depthwise"):
        kernel = step.weights["kernel"].shape
        channels = kernel[3] if kind == "conv" else channels * kernel[3]
        height, width = _slid((height, width), kernel[:2], options)
    elif kind == "max_pool":
        height, width = _slid((height, width), options["size"], options)
    elif kind == "transposed":
        stride, kernel = options["stride"], step.weights["kernel"].shape
        beyond = [0 if options["padding"] == "same" else k - stride for k in kernel[:2]]
        height, width = height * stride + beyond[0], width * stride + beyond[1]
        channels = kernel[2]
    elif kind == "enlarge":
        beyond = 0 if options["centred"] else options["stride"] - 1
        height, width = (n * options["stride"] + beyond for n in (height, width))
    elif kind == "nearest":
        height, width = height * options["stride"], width * options["stride"]
    elif kind == "mean":
        height = width = 1
    elif kind in ("pad", "crop"):
        sign = 1 if kind == "pad" else -1
        height, width = (
            n + sign * sum(pads) for n, pads in zip((height, width), options["pads"], strict=True)
        )
    elif kind == "trim":
        height, width = given[1][:2]
    elif kind in ("add", "multiply"):  # a map of one cell or channel goes with any other
        height, width, channels = map(max, zip(*given, strict=True))
    return height, width, channels


def _slid(size, window, options):
    """Rows and columns behind a window that slides."""
    padding, found = options["padding"], []
    for axis, (length, extent) in enumerate(zip(size, window, strict=True)):
        stride = options["stride"][axis]
        if padding == "same":
            found.append(-(-length // stride))
            continue
        reach = (extent - 1) * options["dilation"][axis] + 1
        added = 0 if padding == "valid" else sum(padding[axis])
        found.append((length + added - reach) // stride + 1)
    return found
