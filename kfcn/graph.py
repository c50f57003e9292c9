"""What rewrites ask of the layers and the graph of a functional model.

Keras has no public door to some of it: what is private is asked here and nowhere else.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras


def is_operation(operation: keras.Operation, *names: str) -> bool:
    """Whether this is a `keras.ops` operation with one of these class names."""
    kind = type(operation)
    return kind.__module__.startswith("keras.src.ops") and kind.__name__ in names


def is_stock(operation: keras.Operation, *kinds: type) -> bool:
    """Whether this is of one of these classes of Keras, and of no subclass.

    For whoever computes in the place of a layer, or gives it other settings: a subclass of `Conv2D`
    that normalises its kernel has the same attributes and returns other values.
    """
    return type(operation) in kinds


def producer(tensor: keras.KerasTensor) -> keras.Operation:
    """The operation that a symbolic tensor comes from."""
    return tensor._keras_history.operation


def place(tensor: keras.KerasTensor) -> tuple[keras.Operation, int, int]:
    """The operation that a symbolic tensor comes from, at which of its calls, as which output."""
    history = tensor._keras_history
    return history.operation, history.node_index, history.tensor_index


def inputs(operation: keras.Operation, call: int = 0) -> list[keras.KerasTensor]:
    """The symbolic inputs of an operation.

    Args:
        operation: of a model.
        call: which of its calls. The first is the model's own: an operation that is used again
            elsewhere (for statistics, say) has later ones.
    """
    return operation._inbound_nodes[call].input_tensors


def outputs(operation: keras.Operation, call: int = 0) -> list[keras.KerasTensor]:
    """The symbolic tensors that an operation returned; `call` as in `inputs`."""
    return operation._inbound_nodes[call].output_tensors


def arguments(tensor: keras.KerasTensor) -> list:
    """All arguments of the operation that a symbolic tensor comes from, numbers too."""
    operation, call, _ = place(tensor)
    given = operation._inbound_nodes[call].arguments
    return [*given.args, *given.kwargs.values()]


def times_called(operation: keras.Operation) -> int:
    """How often an operation is called."""
    return len(operation._inbound_nodes)


def readers(operation: keras.Operation) -> int:
    """How many calls read the output of an operation."""
    return len(operation._outbound_nodes)


def is_plain(layer: keras.Layer) -> bool:
    """Whether a convolution of `(B, H, W, C)` is nothing more, with equal strides and no holes."""
    return (
        not layer.use_bias
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and set(layer.dilation_rate) == {1}
        and len(set(layer.strides)) == 1
    )


def operations(model: keras.Model) -> list[keras.Operation]:
    """The layers and operations of a model; a Sequential has layers alone."""
    return getattr(model, "operations", model.layers)


class Call(NamedTuple):
    """One call of an operation in a model.

    Attributes:
        operation: a layer or an operation of `keras.ops`.
        args: its arguments, symbolic tensors among them.
        kwargs: its keyword arguments, likewise.
        outputs: the symbolic tensors that it returns.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict[str, Any]
    outputs: list[keras.KerasTensor]


def calls(model: keras.Model) -> Iterator[Call]:
    """The calls of a functional or Sequential model in the order in which Keras makes them."""
    nodes = getattr(model, "_functional", model)._nodes_by_depth
    for depth in sorted(nodes, reverse=True):
        for node in nodes[depth]:
            if not node.is_input:
                arguments = node.arguments
                yield Call(node.operation, arguments.args, arguments.kwargs, node.outputs)


def hand_on(x: Any) -> Any:
    """Its argument: in the place of an operation whose work another one does, for `replay`."""
    return x


_CONTEXT = ("training", "mask")  # what Keras passes to some layers beside their inputs


def replay(
    model: keras.Model,
    image: Any,
    instead: Mapping[keras.Operation, Callable],
    training: bool = False,
) -> Any:
    """What `model(image, training=training)` does, with other functions for its operations.

    The model is not touched, and neither are its layers. Tensors may be of any backend, as long as
    what is called takes them.

    Args:
        model: functional or Sequential, of one input and one output.
        image: what the input stands for.
        instead: functions to call in the place of operations, with the same arguments. They get
            no `training` and no `mask`, and no cast to the layer's dtype has been made.
        training: for the layers that behave differently then.

    Returns:
        What the output stands for.
    """
    values = {id(model.inputs[0]): image}

    for call in calls(model):
        values.update(run_call(call, values, instead, training))
    return values[id(model.outputs[0])]


def run_call(
    call: Call,
    values: Mapping[int, Any],
    instead: Mapping[keras.Operation, Callable],
    training: bool = False,
) -> dict[int, Any]:
    """Makes one call of a net, as in `replay`.

    Args:
        call: of `calls`.
        values: what stands for the symbolic tensors, by their id.
        instead, training: as in `replay`.

    Returns:
        Its outputs, in the same way.
    """

    def known(leaf):
        return values[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf

    args, kwargs = keras.tree.map_structure(known, (call.args, call.kwargs))
    function = instead.get(call.operation)
    if function is not None:
        kwargs = {name: value for name, value in kwargs.items() if name not in _CONTEXT}
        with keras.name_scope(call.operation.name):  # in a profile it is this layer's time
            outputs = function(*args, **kwargs)
    else:
        function = call.operation
        if isinstance(function, keras.Layer) and function._call_has_training_arg:
            kwargs["training"] = training
        outputs = function(*args, **kwargs)
    outputs = keras.tree.flatten(outputs)
    return {id(x): y for x, y in zip(call.outputs, outputs, strict=True)}
