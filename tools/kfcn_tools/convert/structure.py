"""What a converted file must look like; a conversion that differs fails loudly."""

from collections import Counter
from typing import Literal

import numpy as np
from kfcn_mobile.bundle import SIGNATURE

from kfcn.errors import KfcnError
from kfcn_tools.convert.flatbuffer import kind, unpacked
from kfcn_tools.litert import open_interpreter, run_once

VARIABLES = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"}
# What numbers the vertices of a CRF's lattice, and what a map is enlarged by that repeats its
# cells, as most U-Nets do.
BEYOND_XNNPACK = {"UNIQUE", "TILE"}


def check_structure(
    content: bytes,
    mode: str,
    image: np.ndarray,
    one_partition: bool = False,
    output: Literal["labels", "logits"] = "labels",
) -> dict:
    """Checks a converted file.

    Built-in operators only, no variables, one subgraph with uint8 `image` in and one output, of the
    signature `segment` (uint8 `labels`) or `logits` (float32 `logits`), scores finite and not
    constant.

    Args:
        content: the `.tflite` file.
        mode: of the conversion, for messages.
        image: uint8 (H, W, 3), any natural image.
        one_partition: XNNPACK must run it in one piece, unless it has some of `BEYOND_XNNPACK`.
        output: what the file gives.

    Returns:
        `operators` (name -> number) and `xnnpack_partitions`.

    Raises:
        KfcnError: what is wrong, in one line.
    """
    operators, custom = list_operators(content)
    if custom:
        raise KfcnError(f"{mode}: needs operators beyond the built-in ones: {', '.join(custom)}")
    if found := VARIABLES & operators.keys():
        raise KfcnError(f"{mode}: the weights were not frozen, it has {', '.join(sorted(found))}")
    delegated = open_interpreter(content)
    signatures = delegated.get_signature_list()
    name, dtype = {"labels": (SIGNATURE, np.uint8), "logits": ("logits", np.float32)}[output]
    if signatures.get(name) != {"inputs": ["image"], "outputs": [output]}:
        raise KfcnError(f"{mode}: expected the signature {name}(image) -> {output}: {signatures}")
    (given,), (made,) = delegated.get_input_details(), delegated.get_output_details()
    if given["dtype"] != np.uint8 or made["dtype"] != dtype:
        raise KfcnError(
            f"{mode}: input {given['dtype'].__name__}, output {made['dtype'].__name__};"
            f" expected uint8, {dtype.__name__}"
        )
    shape = tuple(int(n) for n in given["shape"])
    if shape != (1, *image.shape):
        raise KfcnError(f"{mode}: takes {shape}, expected {(1, *image.shape)}")
    partitions = sum(op["op_name"] == "DELEGATE" for op in delegated._get_ops_details())
    if one_partition and partitions != 1 and not BEYOND_XNNPACK & operators.keys():
        raise KfcnError(f"{mode}: XNNPACK runs it in {partitions} partitions, expected 1")
    plain = open_interpreter(content, xnnpack=False, keep_tensors=True)
    run_once(plain, image)
    scores = plain.get_tensor(_scores(plain, output))
    if not np.isfinite(scores).all():
        raise KfcnError(f"{mode}: its scores are not finite")
    if scores.min() == scores.max():
        raise KfcnError(f"{mode}: its scores are all the same ({scores.flat[0]})")
    return {"operators": dict(sorted(operators.items())), "xnnpack_partitions": partitions}


def _scores(interpreter, output: str) -> int:
    """The tensor with the scores, quantised as it may be."""
    if output == "logits":
        return interpreter.get_output_details()[0]["index"]
    (argmax,) = (op for op in interpreter._get_ops_details() if op["op_name"] == "ARG_MAX")
    return argmax["inputs"][0]


def list_operators(content: bytes) -> tuple[Counter, list[str]]:
    """The operators of a `.tflite` file: numbers by built-in name, and the custom ones' names."""
    model = unpacked(content)
    counts, custom = Counter(), set()
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            name = kind(model, operator)
            counts[name] += 1
            if name == "CUSTOM":
                custom.add(model.operatorCodes[operator.opcodeIndex].customCode.decode())
    return counts, sorted(custom)
