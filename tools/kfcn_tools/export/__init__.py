"""From a trained net to the files of other runtimes than LiteRT: `export` does it.

`FORMATS` is the one table of them, which the command's help reads without loading TensorFlow.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfcn_tools.export.exporting import export

__all__ = ["FORMATS", "Format", "export"]


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        help: who reads it, in a few words.
        module: of this package; its function `write` makes the files, `opened` runs them, and
            `quantize` makes one in 8 bits.
        needs: packages that it takes beside TensorFlow. The extra of the format's name brings them.
        int8: those that its file in 8 bits takes besides; None where it has no such file.
        fixed_size: whether it takes images of one size.
        fixed_int8: whether its file in 8 bits does.
    """

    help: str
    module: str
    needs: tuple[str, ...] = ()
    int8: tuple[str, ...] | None = None
    fixed_size: bool = False
    fixed_int8: bool = False


FORMATS = {
    "saved_model": Format("TensorFlow, TensorFlow Serving, TensorFlow.js", "saved_model"),
    "onnx": Format("ONNX Runtime and most others", "onnx_file", ("onnxruntime",), ("onnx",)),
    "openvino": Format(
        "OpenVINO on Intel's processors",
        "openvino_file",
        ("openvino",),
        ("nncf",),
        fixed_int8=True,
    ),
    "coreml": Format(
        "Core ML on Apple's devices, for one size", "coreml_file", ("coremltools",), fixed_size=True
    ),
}


def __getattr__(name: str):
    if name == "export":
        from kfcn_tools.export.exporting import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
