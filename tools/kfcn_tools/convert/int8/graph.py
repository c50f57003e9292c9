"""The operators of a float32 `.tflite` file, as the steps before int8 look at them."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kfcn_tools.convert.flatbuffer import kind, packed, unpacked


@dataclass(frozen=True)
class Convolution:
    """A CONV_2D or DEPTHWISE_CONV_2D with a bias.

    Attributes:
        output: the name of its output tensor.
        source: the name of the tensor that it reads.
        depthwise: whether each channel is convolved alone.
        kernel: float32 (out, kh, kw, in), a depthwise one (1, kh, kw, channel); a view into the
            file's content, as is `bias`: what is written to it is written to a `bytearray`.
        bias: float32 (out,).
        strides: down and right.
        dilations: down and right.
        same: whether zeros are padded so that a stride of 1 keeps the size.
    """

    output: str
    source: str
    depthwise: bool
    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple[int, int]
    dilations: tuple[int, int]
    same: bool

    def rows(self) -> np.ndarray:
        """A copy of the kernel, float64 (out, taps * in), or (channel, taps) of a depthwise one."""
        if self.depthwise:
            return self.kernel[0].reshape(-1, self.kernel.shape[-1]).T.astype(np.float64)
        return self.kernel.reshape(len(self.kernel), -1).astype(np.float64)

    def write(self, rows: np.ndarray) -> None:
        """Puts what `rows` gave, changed, in the place of the kernel."""
        self.kernel[...] = (rows.T if self.depthwise else rows).reshape(self.kernel.shape)


def convolutions(content: bytes | bytearray) -> Iterator[Convolution]:
    """The convolutions of a float32 `.tflite` file, in running order, but for those in groups.

    The rows of those are laid upon a part of the channels each.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    kinds = {
        schema.BuiltinOperator.CONV_2D: schema.Conv2DOptions,
        schema.BuiltinOperator.DEPTHWISE_CONV_2D: schema.DepthwiseConv2DOptions,
    }

    def name(tensor):
        return graph.Tensors(tensor).Name().decode()

    def constant(tensor):
        details = graph.Tensors(tensor)
        values = model.Buffers(details.Buffer()).DataAsNumpy()
        return values.view(np.float32).reshape(details.ShapeAsNumpy())

    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        if code not in kinds or operator.InputsLength() != 3 or operator.Inputs(2) < 0:
            continue
        depthwise = code == schema.BuiltinOperator.DEPTHWISE_CONV_2D
        kernel = constant(operator.Inputs(1))
        if not depthwise and kernel.shape[-1] != graph.Tensors(operator.Inputs(0)).Shape(3):
            continue
        options, table = kinds[code](), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        yield Convolution(
            name(operator.Outputs(0)),
            name(operator.Inputs(0)),
            depthwise,
            kernel,
            constant(operator.Inputs(2)),
            (options.StrideH(), options.StrideW()),
            (options.DilationHFactor(), options.DilationWFactor()),
            options.Padding() == schema.Padding.SAME,
        )


def unshared(content: bytes) -> bytes:
    """The same file, each constant of each operator in a buffer of its own.

    TFLite's converter stores equal constants once, as the zeros of convolutions without a bias:
    what is written to one would change the others.
    """
    model = unpacked(content)
    graph = model.subgraphs[0]
    read, taken = set(), set()  # tensors that an operator reads already, and their buffers
    for operator in graph.operators:
        inputs = list(operator.inputs)
        for position, index in enumerate(inputs):
            if index < 0 or model.buffers[graph.tensors[index].buffer].data is None:
                continue
            tensor = graph.tensors[index]
            if index in read:
                tensor = copy.copy(tensor)
                tensor.name = tensor.name + b"_" + str(len(graph.tensors)).encode()
                graph.tensors.append(tensor)
                inputs[position] = len(graph.tensors) - 1
            if tensor.buffer in taken:
                model.buffers.append(copy.copy(model.buffers[tensor.buffer]))
                tensor.buffer = len(model.buffers) - 1
            read.add(inputs[position])
            taken.add(tensor.buffer)
        operator.inputs = inputs
    return packed(model, len(content))


@dataclass(frozen=True)
class Operator:
    """An operator of a file.

    Attributes:
        kind: its built-in name, with `+` where it has an activation of its own.
        inputs: names of the tensors that it reads and that other operators computed.
        output: the name of its first output tensor.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str


def operators(content: bytes) -> list[Operator]:
    """The operators of a `.tflite` file, in running order."""
    model = unpacked(content)
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    computed, found = set(), []
    for operator in graph.operators:
        activation = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        read = tuple(names[tensor] for tensor in operator.inputs if tensor in computed)
        found.append(
            Operator(
                kind(model, operator) + "+" * bool(activation), read, names[operator.outputs[0]]
            )
        )
        computed.update(operator.outputs)
    return found
