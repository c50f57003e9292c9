"""A `.tflite` file as objects that can be changed, and back."""

import functools
from typing import Any

import numpy as np


def unpacked(content: bytes) -> Any:
    """The file's `ModelT`, with the weights inside their buffers."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for stored in model.buffers:
        # Some writers put the weights behind the flatbuffer and refer to them by position.
        if stored.offset > 1:
            stored.data = np.frombuffer(content, np.uint8, stored.size, stored.offset)
            stored.offset = stored.size = 0
    return model


def packed(model: Any, size: int = 1024) -> bytes:
    """The content of the file with this `ModelT`; `size` is about how large it will be."""
    import flatbuffers

    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def kind(model: Any, operator: Any) -> str:
    """The built-in name of an operator of a `ModelT`."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Codes above 127 stand in the newer field only.
    return _kinds()[max(code.builtinCode, code.deprecatedBuiltinCode)]


@functools.cache
def _kinds() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
