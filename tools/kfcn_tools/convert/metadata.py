"""What a `.tflite` file says of itself; runtimes skip all of it.

Three things: a JSON entry `KFCN_JSON` for kfcn's own apps, standard TFLite Metadata for everybody
else's, and behind the file a zip with `labels.txt`, which the latter refers to.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from kfcn_tools.convert import tflite_metadata
from kfcn_tools.convert.flatbuffer import packed, unpacked

NAME = "KFCN_JSON"


def embed(content: bytes, info: Mapping[str, Any], scores: bool = False) -> bytes:
    """A `.tflite` file that says what it is.

    Args:
        content: the file.
        info: for `KFCN_JSON`; has `size` (H, W), `classes` in their order and `kfcn_version`.
        scores: whether the file gives scores, or labels.

    Returns:
        The file with its metadata.
    """
    from ai_edge_litert import schema_py_generated as schema

    described = tflite_metadata.Description(
        size=tuple(info["size"]),
        scores=scores,
        text=f"{'Scores' if scores else 'Labels'} of {len(info['classes'])} classes for each pixel",
        version=info["kfcn_version"],
    )
    model = unpacked(content)
    own = json.dumps(info, sort_keys=True, separators=(",", ":")).encode()
    standard = tflite_metadata.model_metadata(described)
    for name, value in ((NAME, own), (tflite_metadata.NAME, standard)):
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(value, np.uint8)
        model.buffers.append(buffer)
        entry.name, entry.buffer = name, len(model.buffers) - 1
        model.metadata = [*(model.metadata or []), entry]
    return _with_labels(packed(model, len(content)), info["classes"])


def _with_labels(content: bytes, classes: list[str]) -> bytes:
    """The file with a zip behind it, stored: readers take the names from where they lie."""
    file = io.BytesIO(content)
    # A name with a line break in it would shift all that follow.
    lines = "".join(" ".join(name.split()) + "\n" for name in classes)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        # Without a date of its own the same net gives the same bytes.
        archive.writestr(zipfile.ZipInfo(tflite_metadata.LABELS_FILE), lines)
    return file.getvalue()


def read(content: bytes) -> dict | None:
    """The `KFCN_JSON` that `embed` put in, or None."""
    found = entry(content, NAME)
    return None if found is None else json.loads(found)


def entry(content: bytes, name: str) -> bytes | None:
    """A file's metadata entry of that name, or None."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    for i in range(model.MetadataLength()):
        found = model.Metadata(i)
        if found.Name() == name.encode():
            return model.Buffers(found.Buffer()).DataAsNumpy().tobytes()
    return None
