"""How an operation of a net is replaced while it is traced, and which may be."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator

import keras


@contextlib.contextmanager
def calls_as(operations: Iterable[keras.Operation], call: Callable) -> Iterator[None]:
    """Has layers or operations of a net done by `call` in what is traced inside.

    They stay Keras' own, so that a file saved from the net is stock.

    Args:
        operations: of the net.
        call: `(operation, usual, *inputs, **options)`, where `usual` is the operation's own `call`.
    """
    with contextlib.ExitStack() as stack:
        for operation in operations:
            before = vars(operation).get("call")
            operation.call = functools.partial(call, operation, operation.call)
            stack.callback(_restore, operation, before)
        yield


def _restore(operation, call):
    del operation.call
    if call is not None:
        operation.call = call


def has_gpu() -> bool:
    """Whether TensorFlow sees one. What was measured on CPUs only is left alone there."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
