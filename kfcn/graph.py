"""What rewrites ask of the layers and the graph of a functional model.

Keras has no public door to some of it: what is private is asked here and nowhere else.
"""

import keras


def is_operation(operation: keras.Operation, *names: str) -> bool:
    """Whether this is a `keras.ops` operation with one of these class names."""
    kind = type(operation)
    return kind.__module__.startswith("keras.src.ops") and kind.__name__ in names


def producer(tensor: keras.KerasTensor) -> keras.Operation:
    """The operation that a symbolic tensor comes from."""
    return tensor._keras_history.operation


def place(tensor: keras.KerasTensor) -> tuple[keras.Operation, int, int]:
    """The operation that a symbolic tensor comes from, at which of its calls, as which output."""
    history = tensor._keras_history
    return history.operation, history.node_index, history.tensor_index


def inputs(operation: keras.Operation, call: int = 0) -> list[keras.KerasTensor]:
    """The symbolic tensors that an operation was given.

    Args:
        operation: of a model.
        call: which of its calls. The first is the model's own: an operation that is used again
            elsewhere (for statistics, say) has later ones.
    """
    return operation._inbound_nodes[call].input_tensors


def calls(operation: keras.Operation) -> int:
    """How often an operation is called."""
    return len(operation._inbound_nodes)


def readers(operation: keras.Operation) -> int:
    """How many calls read what an operation gives."""
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
