"""A TFLite model while it is written: its tensors, operators and buffers, and the file.

Of a file that was written once only the numbers are changed for another size.
"""

import itertools

import numpy as np


class TFLiteModel:
    """Tensors by their numbers, and the operators that make one of others.

    Args:
        schema: LiteRT's classes for what a file holds.
    """

    def __init__(self, schema):
        self.schema = schema
        self.tensors, self.operators = [], []
        self.buffers = [schema.BufferT()]  # the first one is empty, for what is computed
        self.codes: dict[int, int] = {}
        self.types = {
            "float32": schema.TensorType.FLOAT32,
            "int32": schema.TensorType.INT32,
            "uint8": schema.TensorType.UINT8,
        }
        self.inputs, self.outputs = [], []

    def tensor(self, shape, dtype="float32", buffer=0) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(map(int, shape)), self.types[dtype], buffer
        tensor.name = f"t{len(self.tensors)}"
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, array) -> int:
        array = np.asarray(array)
        buffer = self.schema.BufferT()
        buffer.data = array.reshape(-1).view(np.uint8)
        self.buffers.append(buffer)
        return self.tensor(array.shape, array.dtype.name, len(self.buffers) - 1)

    def integers(self, values) -> int:
        return self.constant(np.asarray(values, np.int32))

    def operator(self, name, inputs, output, options=None) -> int:
        schema = self.schema
        code = getattr(schema.BuiltinOperator, name)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(code, len(self.codes))
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            operator.builtinOptions = options
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        self.operators.append(operator)
        return output

    def shape(self, tensor):
        return self.tensors[tensor].shape

    def dtype(self, tensor) -> str:
        return next(name for name, kind in self.types.items() if kind == self.tensors[tensor].type)

    def pack(self) -> bytes:
        import flatbuffers

        schema = self.schema
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = self.inputs, self.outputs
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = []
        for code in self.codes:  # in the order of their indices
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(sum(len(b.data) for b in self.buffers if b.data is not None))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # Two sizes of a program differ in the shapes of maps and in integers that are inputs of
    # operators, mostly in nothing else. Python takes ten times as long to pack a model as to build
    # it, and longer than LiteRT takes to get it ready.

    def structure(self) -> tuple:
        """Whatever may differ but these numbers; weights are those of the program."""
        return (
            tuple((len(x.shape), x.type, x.buffer) for x in self.tensors),
            tuple(None if x.data is None else x.data.size for x in self.buffers),
            tuple(self.codes.items()),
            tuple((x.opcodeIndex, *x.inputs, *x.outputs) for x in self.operators),
            tuple(
                tuple(vars(x.builtinOptions).values()) if x.builtinOptions else ()
                for x in self.operators
            ),
            *self.inputs, *self.outputs,
        )  # fmt: skip

    def numbers(self) -> np.ndarray:
        """The shapes of all tensors and the values of all integers, one after another."""
        shapes = (x.shape for x in self.tensors)
        integers = (self.buffers[x.buffer].data.view(np.int32) for x in self._integers())
        return np.array([*itertools.chain(*shapes, *integers)], np.int32)

    def found_in(self, content: bytes) -> tuple[dict[int, np.ndarray], list[np.ndarray]]:
        """Where they stand in `content`: weights by their buffers, and the arrays of `numbers`."""
        model = self.schema.Model.GetRootAs(content, 0)
        graph = model.Subgraphs(0)
        integers = [x.buffer for x in self._integers()]
        weights = {x.buffer for x in self.tensors if x.buffer} - set(integers)
        shapes = [graph.Tensors(n).ShapeAsNumpy() for n, x in enumerate(self.tensors) if x.shape]
        return (
            {buffer: model.Buffers(buffer).DataAsNumpy() for buffer in weights},
            [*shapes, *(model.Buffers(buffer).DataAsNumpy() for buffer in integers)],
        )

    def _integers(self):
        return [x for x in self.tensors if x.buffer and x.type == self.types["int32"]]


class Pattern:
    """A written file as the pieces between its weights, from which others are made.

    Args:
        model: what was written; others are of the same `structure`.
        content: the file.
    """

    def __init__(self, model: TFLiteModel, content: bytes):
        whole = np.frombuffer(content, np.uint8)
        weights, numbers = model.found_in(content)
        order = sorted(weights, key=lambda buffer: _address(weights[buffer]))
        begins = np.array([_address(weights[buffer]) for buffer in order]) - _address(whole)
        sizes = np.array([weights[buffer].nbytes for buffer in order])
        # The writer's own, so that `content` need not stay.
        self._weights = [model.buffers[buffer].data for buffer in order]
        kept = np.ones(len(whole), bool)
        for begin, size in zip(begins, sizes, strict=True):
            kept[begin : begin + size] = False
        self._rest = whole[kept]
        before = np.concatenate([[0], np.cumsum(sizes)])  # bytes of weights, by how many lie before
        self._cuts = begins - before[:-1]
        places = [
            _address(array) - _address(whole) + np.arange(0, array.nbytes, 4) for array in numbers
        ]
        places = np.concatenate(places)
        self._places = (places - before[np.searchsorted(begins, places)]) // 4

    def filled(self, model: TFLiteModel) -> bytes:
        """The file of another model."""
        rest = self._rest.copy()
        rest[: len(rest) // 4 * 4].view(np.int32)[self._places] = model.numbers()
        first, *pieces = np.split(rest, self._cuts)
        parts = [first, *itertools.chain(*zip(self._weights, pieces, strict=True))]
        return b"".join(part.data for part in parts)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
