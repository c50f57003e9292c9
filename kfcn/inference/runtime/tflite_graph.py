"""Programs as TFLite: a file for each size of image.

To convert a Keras model takes TensorFlow's converter ten seconds and more; a dozen operations are
written down here in milliseconds.
"""

import numpy as np

from kfcn.inference.runtime.program import Program, Step, UnsupportedError
from kfcn.inference.runtime.tflite_model import Pattern, TFLiteModel


class TFLiteWriter:
    """Writes a program as TFLite; the weights are brought into its layout once.

    Args:
        program: what to write.
    """

    def __init__(self, program: Program):
        try:
            from ai_edge_litert import schema_py_generated as schema
        except ModuleNotFoundError as error:
            raise UnsupportedError("LiteRT is not installed") from error
        for step in program.steps:
            if step.kind == "max_pool" and (
                step.options["dilation"] != [1, 1] or not isinstance(step.options["padding"], str)
            ):
                raise UnsupportedError("TFLite has no pooling with holes")
        self._schema = schema
        self._program = program
        self._weights = [_laid_out(step) for step in program.steps]
        self.weights_bytes = sum(x.nbytes for arrays in self._weights for x in arrays.values())
        self._patterns: dict[tuple, Pattern] = {}

    def write(self, batch: int, height: int, width: int, dtype: str, output: str) -> bytes:
        """The content of a `.tflite` file.

        Args:
            batch: number of images.
            height: of the images.
            width: of the images.
            dtype: of the images, "uint8" or "float32".
            output: "logits" float32 `(B, H, W, C)`, or "labels" uint8 `(B, H, W)`.
        """
        model = _Graph(self._schema, batch, dtype)
        model.build(self._program, self._weights, (height, width), output)
        structure = model.structure()
        if structure not in self._patterns:
            content = model.pack()
            self._patterns[structure] = Pattern(model, content)
            return content
        return self._patterns[structure].filled(model)


def _laid_out(step: Step) -> dict[str, np.ndarray]:
    """The weights of a step as TFLite has them."""
    weights = dict(step.weights)
    if step.kind in ("conv", "transposed"):  # (F, kh, kw, C)
        order = (3, 0, 1, 2) if step.kind == "conv" else (2, 0, 1, 3)
        weights["kernel"] = np.ascontiguousarray(weights["kernel"].transpose(order))
    elif step.kind == "depthwise":  # (1, kh, kw, C * multiplier)
        kernel = weights["kernel"]
        weights["kernel"] = kernel.reshape(1, *kernel.shape[:2], -1)
    return weights


class _Graph(TFLiteModel):
    """The model of a program; shapes are `(B, H, W, C)`."""

    def __init__(self, schema, batch, dtype):
        super().__init__(schema)
        self.batch, self.image_dtype = batch, dtype
        self.cuts = True

    def build(self, program, weights, size, output) -> None:
        image = self.tensor((self.batch, *size, 3), self.image_dtype)
        x = image
        if self.image_dtype != "float32":
            x = self.cast(image, "float32")
        values, shapes = [x], [(self.batch, *each) for each in program.sizes(*size)]
        steps = list(zip(program.steps, weights, strict=True))
        # Where one map is cut all are, if only to the size that they have: there is one structure
        # for all sizes but those that need no cut, which are spared the copies.
        self.cuts = any(
            shapes[step.inputs[0]][1:3] != shapes[number][1:3]
            for number, step in enumerate(program.steps, start=1)
            if step.kind == "trim"
        )
        last = len(steps)
        trimmed = None
        if output == "labels" and steps[-1][0].kind == "trim" and program.steps[-1].inputs[1] == 0:
            # The class of each pixel is found first: a slice of labels is a slice of bytes.
            trimmed, last = size, program.steps[-1].inputs[0]
        for number, (step, arrays) in enumerate(steps[:last], start=1):
            given = [values[n] for n in step.inputs]
            # Beyond the border of the last enlargement are zeros, which scale the logits there by
            # a positive factor, alike for all classes: labels do without.
            faded = output == "logits" or number != last
            values.append(self.step(step, arrays, given, shapes[number], faded))
        result = values[-1] if output == "logits" else self.labels(values[-1], trimmed)
        self.inputs, self.outputs = [image], [result]

    def step(self, step: Step, weights, given, shape, faded):
        options, schema = step.options, self.schema
        function = getattr(self, f"_{step.kind}")
        if step.kind == "enlarge":
            return function(options, given[0], shape, faded)
        activation = {
            None: schema.ActivationFunctionType.NONE,
            "relu": schema.ActivationFunctionType.RELU,
            "relu6": schema.ActivationFunctionType.RELU6,
        }[options.get("activation")]
        constants = {name: self.constant(array) for name, array in weights.items()}
        return function(options, given, shape, activation, **constants)

    def cast(self, x, dtype):
        options = self.schema.CastOptionsT()
        options.inDataType, options.outDataType = self.tensors[x].type, self.types[dtype]
        return self.operator("CAST", [x], self.tensor(self.shape(x), dtype), options)

    def labels(self, x, trimmed):
        options = self.schema.ArgMaxOptionsT()
        options.outputType = self.types["int32"]
        labels = self.tensor(self.shape(x)[:3], "int32")
        self.operator("ARG_MAX", [x, self.integers(3)], labels, options)
        labels = self.cast(labels, "uint8")
        return labels if trimmed is None else self._cut(labels, trimmed, self.cuts)

    def _cut(self, x, size, always=False, first=(0, 0)):
        """`size` rows and columns from `first` on; of what is short, the last ones again."""
        shape = self.shape(x)
        dtype = self.dtype(x)
        for axis in (1, 2):
            missing = size[axis - 1] - shape[axis] + first[axis - 1]
            if missing > 0:
                begin, extent = [0] * len(shape), list(shape)
                begin[axis], extent[axis] = shape[axis] - 1, 1
                last = self._slice(x, begin, extent, dtype)
                shape = [*shape[:axis], shape[axis] + missing, *shape[axis + 1 :]]
                options = self.schema.ConcatenationOptionsT()
                options.axis = axis
                parts = [x, *[last] * missing]
                x = self.operator("CONCATENATION", parts, self.tensor(shape, dtype), options)
        if not always and list(shape[1:3]) == list(size):
            return x
        tail = shape[3:]
        return self._slice(x, [0, *first, *[0] * len(tail)], [shape[0], *size, *tail], dtype)

    def _slice(self, x, begin, extent, dtype):
        inputs = [x, self.integers(begin), self.integers(extent)]
        return self.operator(
            "SLICE", inputs, self.tensor(extent, dtype), self.schema.SliceOptionsT()
        )

    def _affine(self, options, given, shape, activation, scale, shift):
        x = given[0]
        parts = {"MUL": (scale, 1.0), "ADD": (shift, 0.0)}
        kept = [
            name
            for name, (constant, nothing) in parts.items()
            if np.any(self.buffers[self.tensors[constant].buffer].data.view(np.float32) != nothing)
        ]
        if activation and not kept:
            kept = ["ADD"]
        for name in kept:
            options = getattr(self.schema, f"{name.capitalize()}OptionsT")()
            options.fusedActivationFunction = activation if name == kept[-1] else 0
            x = self.operator(name, [x, parts[name][0]], self.tensor(shape), options)
        return x

    def _window(self, options, kind):
        schema = self.schema
        found = getattr(schema, f"{kind}OptionsT")()
        found.padding = getattr(schema.Padding, options["padding"].upper())
        found.strideH, found.strideW = options["stride"]
        return found

    def _conv(self, options, given, shape, activation, kernel, bias):
        found = self._window(options, "Conv2D")
        found.dilationHFactor, found.dilationWFactor = options["dilation"]
        found.fusedActivationFunction = activation
        return self.operator("CONV_2D", [given[0], kernel, bias], self.tensor(shape), found)

    def _depthwise(self, options, given, shape, activation, kernel, bias):
        found = self._window(options, "DepthwiseConv2D")
        found.dilationHFactor, found.dilationWFactor = options["dilation"]
        found.depthMultiplier = shape[3] // self.shape(given[0])[3]
        found.fusedActivationFunction = activation
        inputs = [given[0], kernel, bias]
        return self.operator("DEPTHWISE_CONV_2D", inputs, self.tensor(shape), found)

    def _transposed(self, options, given, shape, activation, kernel):
        found = self._window({**options, "stride": [options["stride"]] * 2}, "TransposeConv")
        inputs = [self.integers(shape), kernel, given[0]]
        return self.operator("TRANSPOSE_CONV", inputs, self.tensor(shape), found)

    def _max_pool(self, options, given, shape, activation):
        found = self._window(options, "Pool2D")
        found.filterHeight, found.filterWidth = options["size"]
        return self.operator("MAX_POOL_2D", given, self.tensor(shape), found)

    def _mean(self, options, given, shape, activation):
        found = self.schema.ReducerOptionsT()
        found.keepDims = True
        return self.operator("MEAN", [given[0], self.integers([1, 2])], self.tensor(shape), found)

    def _add(self, options, given, shape, activation):
        x = given[0]
        for number, other in enumerate(given[1:], start=2):
            found = self.schema.AddOptionsT()
            found.fusedActivationFunction = activation if number == len(given) else 0
            sizes = zip(self.shape(x), self.shape(other), strict=True)
            x = self.operator("ADD", [x, other], self.tensor([max(pair) for pair in sizes]), found)
        return x

    def _multiply(self, options, given, shape, activation):
        return self.operator("MUL", given, self.tensor(shape), self.schema.MulOptionsT())

    def _activate(self, options, given, shape, activation):
        function, x = options["function"], given[0]
        if function == "hard_sigmoid":  # relu6(x + 3) / 6
            schema = self.schema
            found = schema.AddOptionsT()
            found.fusedActivationFunction = schema.ActivationFunctionType.RELU6
            three = self.constant(np.array([3], np.float32))
            x = self.operator("ADD", [x, three], self.tensor(shape), found)
            sixth = self.constant(np.array([1 / 6], np.float32))
            return self.operator("MUL", [x, sixth], self.tensor(shape), schema.MulOptionsT())
        if function == "swish":
            gate = self.operator("LOGISTIC", [x], self.tensor(shape))
            return self.operator("MUL", [x, gate], self.tensor(shape), self.schema.MulOptionsT())
        name = {"sigmoid": "LOGISTIC"}.get(function, function.upper())
        found = self.schema.HardSwishOptionsT() if function == "hard_swish" else None
        return self.operator(name, [x], self.tensor(shape), found)

    def _pad(self, options, given, shape, activation=0):
        pads = self.integers([[0, 0], *options["pads"], [0, 0]])
        found = self.schema.PadOptionsT()
        return self.operator("PAD", [given[0], pads], self.tensor(shape), found)

    def _crop(self, options, given, shape, activation):
        return self._cut(given[0], shape[1:3], first=[pair[0] for pair in options["pads"]])

    def _trim(self, options, given, shape, activation):
        whole = list(shape[1:3]) == self.shape(0)[1:3]  # logits of the image's size: a large copy
        return self._cut(given[0], shape[1:3], self.cuts and not whole)

    def _nearest(self, options, given, shape, activation):
        found = self.schema.ResizeNearestNeighborOptionsT()
        inputs = [given[0], self.integers(shape[1:3])]
        return self.operator("RESIZE_NEAREST_NEIGHBOR", inputs, self.tensor(shape), found)

    def _enlarge(self, options, x, shape, faded):
        """A bilinear resize. Without `faded` its border repeats the last cell instead of zeros."""
        stride, centred = options["stride"], options["centred"]
        batch, height, width, channels = self.shape(x)
        found = self.schema.ResizeBilinearOptionsT()
        found.halfPixelCenters, found.alignCorners = centred, not centred
        if centred and not faded:
            inputs = [x, self.integers(shape[1:3])]
            return self.operator("RESIZE_BILINEAR", inputs, self.tensor(shape), found)
        padded = (batch, height + 2, width + 2, channels)
        x = self._pad({"pads": [[1, 1], [1, 1]]}, [x], padded)
        # Cell i of the padded map lies at s*i + (s - 1)/2, and cell 1 is the first one of the map;
        # or, not centred, at s*i with the first and last cell in the corners.
        size = [n * stride if centred else (n - 1) * stride + 1 for n in padded[1:3]]
        first = stride if centred else 1
        x = self.operator(
            "RESIZE_BILINEAR",
            [x, self.integers(size)],
            self.tensor((batch, *size, channels)),
            found,
        )
        return self._cut(x, shape[1:3], first=(first, first))
