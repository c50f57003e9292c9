"""Programs as ONNX, for any size of image and any batch.

The file is a handful of nested messages of Protocol Buffers (`onnx.proto`, IR version 8, operators
of version 17). They are written here byte by byte, so that no package is needed for it: of each
message only the fields that a net of kfcn has.
"""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from kfcn.inference.runtime.program import Program, Step

_IR_VERSION, _OPERATORS = 8, 17
_TYPES = {"float32": 1, "uint8": 2, "int64": 7}
_OPEN = 2**31 - 1  # "to the end", for a slice


def write_onnx(
    program: Program,
    output: str = "labels",
    metadata: Mapping[str, str] | None = None,
    dtype: str = "uint8",
) -> bytes:
    """The content of an `.onnx` file.

    Its input is `image`, `(N, H, W, 3)`, RGB 0..255. Inside maps are NCHW.

    Args:
        program: what to write.
        output: "labels", uint8 `(N, H, W)`; "scores", the softmax, or "logits", float32
            `(N, H, W, C)`. It is the name of the output as well.
        metadata: texts for the file's `metadata_props`.
        dtype: of the images, "uint8" or "float32".
    """
    graph = _Graph()
    x = "image"
    if dtype != "float32":
        x = graph.node("Cast", x, to=_TYPES["float32"])
    values = [graph.node("Transpose", x, perm=[0, 3, 1, 2])]
    for step in program.steps:
        function = getattr(graph, f"step_{step.kind}")
        y = function(step, *(values[number] for number in step.inputs))
        values.append(graph.activated(y, step.options.get("activation")))
    x = values[-1]
    if output == "labels":
        x = graph.node("ArgMax", x, axis=1, keepdims=0)
        graph.node("Cast", x, to=_TYPES["uint8"], name="labels")
        result = _value("labels", "uint8", ("N", "H", "W"))
    else:
        if output == "scores":
            x = graph.node("Softmax", x, axis=1)
        graph.node("Transpose", x, perm=[0, 2, 3, 1], name=output)
        result = _value(output, "float32", ("N", "H", "W", program.classes))
    image = _value("image", dtype, ("N", "H", "W", 3))
    return _model(graph, image, result, metadata or {})


class _Graph:
    """Nodes and constants that are being written."""

    def __init__(self):
        self.nodes: list[bytes] = []
        self.constants: list[bytes] = []
        self._names: dict[bytes, str] = {}  # of the constants, each of which stands there once
        self._count = 0

    def node(self, operator: str, *inputs: str, name: str | None = None, **attributes) -> str:
        self._count += 1
        output = name or f"t{self._count}"
        content = b"".join(_text(1, value) for value in inputs) + _text(2, output)
        content += _text(3, f"{operator}_{self._count}") + _text(4, operator)
        content += b"".join(_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(content)
        return output

    def constant(self, array) -> str:
        array = np.asarray(array)
        content = b"".join(_integer(1, length) for length in array.shape)
        content += _integer(2, _TYPES[array.dtype.name]) + _bytes(9, array.tobytes())
        if content not in self._names:
            name = f"c{len(self._names)}"
            self._names[content] = name
            self.constants.append(content + _text(8, name))
        return self._names[content]

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def activated(self, x, function):
        if function == "relu":
            return self.node("Relu", x)
        if function == "relu6":
            low, high = (self.constant(np.float32(value)) for value in (0, 6))
            return self.node("Clip", x, low, high)
        return x

    # What steps become: maps are (N, C, H, W).

    def step_affine(self, step: Step, x):
        scale, shift = (step.weights[name].reshape(1, -1, 1, 1) for name in ("scale", "shift"))
        if (scale != 1).any():
            x = self.node("Mul", x, self.constant(scale))
        return self.node("Add", x, self.constant(shift)) if shift.any() else x

    def step_conv(self, step: Step, x):
        kernel = step.weights["kernel"].transpose(3, 2, 0, 1)
        return self._convolved(step, x, kernel, groups=1)

    def step_depthwise(self, step: Step, x):
        kernel = step.weights["kernel"].transpose(2, 3, 0, 1)  # (C, multiplier, kh, kw)
        flat = kernel.reshape(-1, 1, *kernel.shape[2:])
        return self._convolved(step, x, flat, groups=kernel.shape[0])

    def _convolved(self, step, x, kernel, groups):
        options, window = step.options, kernel.shape[2:]
        kernel = self.constant(kernel)
        return self.node(
            "Conv",
            x,
            kernel,
            self.constant(step.weights["bias"]),
            kernel_shape=window,
            strides=options["stride"],
            dilations=options["dilation"],
            group=groups,
            **_padding(options, window),
        )

    def step_max_pool(self, step: Step, x):
        options = step.options
        return self.node(
            "MaxPool",
            x,
            kernel_shape=options["size"],
            strides=options["stride"],
            dilations=options["dilation"],
            **_padding(options, options["size"]),
        )

    def step_transposed(self, step: Step, x):
        kernel, stride = step.weights["kernel"].transpose(3, 2, 0, 1), step.options["stride"]
        same = step.options["padding"] == "same"
        # TensorFlow's "same" is that of the convolution whose gradient this is.
        over = [size - stride if same else 0 for size in kernel.shape[2:]]
        begin = [n // 2 for n in over]
        return self.node(
            "ConvTranspose",
            x,
            self.constant(kernel),
            kernel_shape=kernel.shape[2:],
            strides=[stride, stride],
            pads=[*begin, *(n - b for n, b in zip(over, begin, strict=True))],
        )

    def step_enlarge(self, step: Step, x):
        stride = step.options["stride"]
        x = self.node("Pad", x, self.integers(0, 0, 1, 1, 0, 0, 1, 1))
        if step.options["centred"]:
            scales = self.constant(np.array([1, 1, stride, stride], np.float32))
            x = self.node("Resize", x, "", scales, mode="linear")  # half pixels: the default
            ends = (stride, -stride)
        else:  # the first and the last cell in the corners: s * (h + 1) + 1 rows
            size = self.node("Sub", self._size(x), self.integers(1))
            size = self.node("Mul", size, self.integers(stride))
            size = self.node("Add", size, self.integers(1))
            whole = self.node("Slice", self.node("Shape", x), self.integers(0), self.integers(2))
            size = self.node("Concat", whole, size, axis=0)
            mode = "align_corners"
            x = self.node(
                "Resize", x, "", "", size, mode="linear", coordinate_transformation_mode=mode
            )
            ends = (1, -1)
        starts, stops = (self.integers(n, n) for n in ends)
        return self.node("Slice", x, starts, stops, self.integers(2, 3))

    def _size(self, x):
        """Height and width, int64 (2,)."""
        return self.node("Slice", self.node("Shape", x), self.integers(2), self.integers(4))

    def step_nearest(self, step: Step, x):
        stride = step.options["stride"]
        scales = self.constant(np.array([1, 1, stride, stride], np.float32))
        options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", x, "", scales, mode="nearest", **options)

    def step_mean(self, step: Step, x):
        return self.node("GlobalAveragePool", x)

    def step_add(self, step: Step, *given):
        x = given[0]
        for other in given[1:]:
            x = self.node("Add", x, other)
        return x

    def step_multiply(self, step: Step, x, other):
        return self.node("Mul", x, other)

    def step_activate(self, step: Step, x):
        function = step.options["function"]
        if function in ("relu", "relu6"):
            return self.activated(x, function)
        if function == "hard_swish":
            return self.node("HardSwish", x)
        if function == "hard_sigmoid":
            return self.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        gate = self.node("Sigmoid", x)
        return self.node("Mul", x, gate) if function == "swish" else gate

    def step_pad(self, step: Step, x):
        (top, bottom), (left, right) = step.options["pads"]
        return self.node("Pad", x, self.integers(0, 0, top, left, 0, 0, bottom, right))

    def step_crop(self, step: Step, x):
        (top, bottom), (left, right) = step.options["pads"]
        stops = self.integers(-bottom or _OPEN, -right or _OPEN)
        return self.node("Slice", x, self.integers(top, left), stops, self.integers(2, 3))

    def step_trim(self, step: Step, x, reference):
        size = self._size(reference)
        if step.options.get("short"):
            missing = self.node("Sub", size, self._size(x))
            missing = self.node("Max", missing, self.integers(0))
            zeros = self.integers(0, 0, 0, 0, 0, 0)
            x = self.node("Pad", x, self.node("Concat", zeros, missing, axis=0), mode="edge")
        return self.node("Slice", x, self.integers(0, 0), size, self.integers(2, 3))


def _padding(options, window) -> dict[str, Any]:
    """The attributes that say how a window is padded."""
    padding = options["padding"]
    if padding == "valid":
        return {}
    if padding == "same" and options["stride"] != [1, 1]:
        return {"auto_pad": "SAME_UPPER"}
    if padding == "same":
        total = [(k - 1) * d for k, d in zip(window, options["dilation"], strict=True)]
        padding = [(n // 2, n - n // 2) for n in total]
    (top, bottom), (left, right) = padding
    return {"pads": [top, left, bottom, right]}


# Protocol Buffers: a field is its number and wire type, then a number, or a length and bytes.


def _number(value: int) -> bytes:
    value &= 2**64 - 1  # negative ones as their complement
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))


def _integer(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(int(value))


def _bytes(field: int, content: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(content)) + content


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _attribute(name, value) -> bytes:
    content = _text(1, name)
    if isinstance(value, str):
        content += _text(4, value) + _integer(20, 3)
    elif isinstance(value, float):
        content += _number(2 << 3 | 5) + struct.pack("<f", value) + _integer(20, 1)
    elif isinstance(value, int):
        content += _integer(3, value) + _integer(20, 2)
    else:
        content += b"".join(_integer(8, item) for item in value) + _integer(20, 7)
    return _bytes(5, content)


def _value(name, dtype, shape) -> bytes:
    sides = b"".join(
        _bytes(1, _text(2, side) if isinstance(side, str) else _integer(1, side)) for side in shape
    )
    return _text(1, name) + _bytes(2, _bytes(1, _integer(1, _TYPES[dtype]) + _bytes(2, sides)))


def _model(graph, image, result, metadata) -> bytes:
    from kfcn import __version__

    content = b"".join(_bytes(1, node) for node in graph.nodes) + _text(2, "kfcn")
    content += b"".join(_bytes(5, constant) for constant in graph.constants)
    content += _bytes(11, image) + _bytes(12, result)
    texts = (_text(1, key) + _text(2, value) for key, value in metadata.items())
    return b"".join(
        (
            _integer(1, _IR_VERSION),
            _text(2, "kfcn"),
            _text(3, __version__),
            _bytes(7, content),
            _bytes(8, _text(1, "") + _integer(2, _OPERATORS)),
            *(_bytes(14, text) for text in texts),
        )
    )
