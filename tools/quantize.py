"""Full-integer and mixed files from a float32 file and the ranges of its tensors."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterable

import numpy as np


def quantize_int8(
    content: bytes,
    ranges: dict[str, tuple[float, float]],
    keep_float: Iterable[str] = (),
) -> bytes:
    """Quantises weights (by output channel) and activations to int8.

    Args:
        content: a float32 `.tflite` file.
        ranges: of its tensors, as `tools.ranges.tensor_ranges` gives them.
        keep_float: names of the output tensors of the operations that stay float32.

    Returns:
        The quantised file's content. Its input and output are those of the float file.
    """
    from litert_quantizer import qtyping, quantizer, recipe

    work = quantizer.Quantizer(bytearray(content))
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    for name in keep_float:
        work.update_quantization_recipe(
            # The quantizer searches its expressions in all output names joined by ";".
            regex="^" + re.escape(name) + "(;|$)",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key="no_quantize",
        )
    statistics = {
        name: {
            "min": np.full((1, 1, 1, 1), low, np.float32),
            "max": np.full((1, 1, 1, 1), high, np.float32),
        }
        for name, (low, high) in ranges.items()
    }
    # It reports each step on standard output and by warnings; errors come as exceptions.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("absl").setLevel(logging.ERROR)
        result = work.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)
