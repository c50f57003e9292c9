"""What a converted file must look like; a conversion that differs fails loudly."""

from collections import Counter

import numpy as np

from kfcn.errors import KfcnError

VARIABLES = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"}
ONE_PARTITION = {"float32", "int8"}


def check_structure(content: bytes, mode: str, image: np.ndarray) -> dict:
    """Checks a converted file.

    Built-in operators only, no variables, signature `segment` with uint8 `image` in and uint8
    `labels` out, one XNNPACK partition (float32 and int8, without a CRF), scores before the
    argmax finite and not constant.

    Args:
        content: the `.tflite` file.
        mode: of the conversion.
        image: uint8 (H, W, 3), any natural image.

    Returns:
        `operators` (name -> number) and `xnnpack_partitions`.

    Raises:
        KfcnError: what is wrong, in one line.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    operators, custom = list_operators(content)
    if custom:
        raise KfcnError(f"{mode}: needs operators beyond the built-in ones: {', '.join(custom)}")
    if found := VARIABLES & operators.keys():
        raise KfcnError(f"{mode}: the weights were not frozen, it has {', '.join(sorted(found))}")
    delegated = Interpreter(model_content=content, num_threads=1)
    delegated.allocate_tensors()
    signatures = delegated.get_signature_list()
    if signatures.get("segment") != {"inputs": ["image"], "outputs": ["labels"]}:
        raise KfcnError(f"{mode}: expected the signature segment(image) -> labels: {signatures}")
    (given,), (made,) = delegated.get_input_details(), delegated.get_output_details()
    if given["dtype"] != np.uint8 or made["dtype"] != np.uint8:
        raise KfcnError(f"{mode}: input {given['dtype']}, output {made['dtype']}; expected uint8")
    shape = tuple(int(n) for n in given["shape"])
    if shape != (1, *image.shape):
        raise KfcnError(f"{mode}: takes {shape}, expected {(1, *image.shape)}")
    partitions = sum(op["op_name"] == "DELEGATE" for op in delegated._get_ops_details())
    # XNNPACK has none of a CRF's lattice; UNIQUE is what numbers its vertices.
    if mode in ONE_PARTITION and partitions != 1 and "UNIQUE" not in operators:
        raise KfcnError(f"{mode}: XNNPACK runs it in {partitions} partitions, expected 1")
    plain = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    plain.allocate_tensors()
    plain.set_tensor(plain.get_input_details()[0]["index"], image[None])
    plain.invoke()
    (argmax,) = (op for op in plain._get_ops_details() if op["op_name"] == "ARG_MAX")
    scores = plain.get_tensor(argmax["inputs"][0])
    if not np.isfinite(scores).all():
        raise KfcnError(f"{mode}: its scores are not finite")
    if scores.min() == scores.max():
        raise KfcnError(f"{mode}: its scores are all the same ({scores.flat[0]})")
    return {"operators": dict(sorted(operators.items())), "xnnpack_partitions": partitions}


def list_operators(content: bytes) -> tuple[Counter, list[str]]:
    """The operators of a `.tflite` file: numbers by built-in name, and the custom ones' names."""
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    counts, custom = Counter(), []
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            code = model.operatorCodes[operator.opcodeIndex]
            # Codes above 127 stand in the newer field only.
            builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
            counts[names[builtin]] += 1
            if names[builtin] == "CUSTOM":
                custom.append(code.customCode.decode())
    return counts, sorted(set(custom))


def operator_outputs(content: bytes) -> list[tuple[str, str]]:
    """(built-in name, name of the first output tensor) of each operator, in running order."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    return [(op["op_name"], names[op["outputs"][0]]) for op in interpreter._get_ops_details()]
