"""From a trained net to a bundle of `.tflite` files: `convert` does it, the rest is its parts."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfcn_tools.convert.conversion import convert

__all__ = ["convert"]


def __getattr__(name: str):
    # Imported when it is first used: `kfcn-convert --help` loads no TensorFlow.
    if name == "convert":
        from kfcn_tools.convert.conversion import convert

        return convert
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
