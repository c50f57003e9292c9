"""LiteRT's interpreter: the one place of `kfcn_tools` that opens it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter


def open_interpreter(
    file: bytes | Path,
    *,
    threads: int = 1,
    shape: tuple[int, ...] | None = None,
    xnnpack: bool = True,
    keep_tensors: bool = False,
) -> "Interpreter":
    """An interpreter of a `.tflite` file, ready to run.

    Args:
        file: its content, or where it is.
        threads: of the CPU kernels.
        shape: of the input, for a file that takes several.
        xnnpack: False runs LiteRT's own kernels: the delegate keeps the operators inside its
            partition, and their tensors, to itself.
        keep_tensors: every tensor can be read after a run, not the outputs alone.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    source = {"model_path": str(file)} if isinstance(file, Path) else {"model_content": file}
    interpreter = Interpreter(
        **source,
        num_threads=threads,
        experimental_op_resolver_type=kernels,
        experimental_preserve_all_tensors=keep_tensors,
    )
    if shape is not None:
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], shape)
    interpreter.allocate_tensors()
    return interpreter


def run_once(interpreter: "Interpreter", image: np.ndarray) -> None:
    """Runs an interpreter on uint8 (H, W, 3); its tensors then hold what the image gave."""
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], image[None].astype(given["dtype"], copy=False))
    interpreter.invoke()


def runner(file: bytes | Path, threads: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    """A function from uint8 (H, W, 3) to the first output of a file of that size, without batch."""
    interpreter = open_interpreter(file, threads=threads)
    made = interpreter.get_output_details()[0]["index"]

    def run(image: np.ndarray) -> np.ndarray:
        run_once(interpreter, image)
        return interpreter.get_tensor(made)[0]

    return run
