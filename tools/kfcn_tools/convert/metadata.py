"""A JSON entry `KFCN_JSON` in a `.tflite` file's own metadata; runtimes skip it."""

import json

import numpy as np

NAME = "KFCN_JSON"


def embed(content: bytes, info: dict) -> bytes:
    """A `.tflite` file with `info` in its metadata."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for stored in model.buffers:
        # Some writers put the weights behind the flatbuffer and refer to them by position.
        if stored.offset > 1:
            stored.data = np.frombuffer(content, np.uint8, stored.size, stored.offset)
            stored.offset = stored.size = 0
    buffer = schema.BufferT()
    text = json.dumps(info, sort_keys=True, separators=(",", ":"))
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def read(content: bytes) -> dict | None:
    """What `embed` put in, or None."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == NAME.encode():
            return json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    return None
