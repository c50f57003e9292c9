"""One pass over the calibration images, for all that want to know what a file computes."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from kfcn_tools.litert import open_interpreter, run_once


class Observer(Protocol):
    """Learns from what a file computes, image after image."""

    def see(self, values: Callable[[str], np.ndarray]) -> None:
        """One image: `values` gives what the tensor of a name holds, with its batch of 1."""
        ...


def observe(content: bytes, images: Sequence[np.ndarray], *observers: Observer) -> None:
    """Runs a float32 file on images.

    Args:
        content: the `.tflite` file.
        images: uint8 (H, W, 3), from the training split.
        observers: see every image.
    """
    interpreter = open_interpreter(content, xnnpack=False, keep_tensors=True)
    index = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    for image in images:
        run_once(interpreter, image)
        for observer in observers:
            observer.see(lambda name: interpreter.get_tensor(index[name]))


def computed_tensors(content: bytes) -> list[str]:
    """The names of the float32 tensors that a file computes."""
    interpreter = open_interpreter(content, xnnpack=False)
    computed = {t for op in interpreter._get_ops_details() for t in op["outputs"]}
    return [
        detail["name"]
        for detail in interpreter.get_tensor_details()
        if detail["index"] in computed and detail["dtype"] == np.float32
    ]
