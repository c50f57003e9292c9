"""What the replicas of a run exchange: sums, and the parts that each of them has.

They exchange by TensorFlow's collective operations themselves, within a process and between
workers, without two things that `tf.distribute` adds:

* A time limit between workers. TensorFlow 2.21 starts two threads for each collective that has one,
  and they sleep until it is over even when the exchange took a millisecond. At 300 s a worker had
  used up the threads of its machine after half a minute. A worker that has died, hangs or cannot be
  reached is noticed by TensorFlow's heartbeat, within about ten seconds.
* A new key for each execution. Each costs a call of Python, a request to the first worker and an
  entry of one to two kilobytes in a table that is never cleared, a gigabyte in 5,000 steps of a net
  with a hundred exchanges. Here a call has its key for good: all replicas trace the same functions
  in the same order, and an exchange is over everywhere before the next one with its key begins.
"""

import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import keras

_GROUPS = itertools.count(1 << 20)
"""Keys of groups of replicas; `tf.distribute` numbers its own groups from 1."""


SHORT = 1 << 14
"""Elements of a float32 tensor up to which its sum is that of a gathered copy from each replica.
A reduction goes around the ring of the replicas twice, a gathering once, with more in each part: of
a vector the time is that of the rounds."""


def sum_over_replicas(value: Any) -> Any:
    """The sum of a tensor over the replicas of `tf.distribute`; the tensor itself elsewhere."""
    context = _several()
    if context is None:
        return value
    import tensorflow as tf

    if value.dtype == tf.float32 and (value.shape.num_elements() or SHORT + 1) <= SHORT:
        return tf.reduce_sum(gather_over_replicas(value), 0)
    return tf.raw_ops.CollectiveReduceV2(
        input=value, merge_op="Add", final_op="Id", **_next_exchange(context)
    )


def sums_over_replicas(values: Sequence[Any]) -> list[Any]:
    """The sums of several float32 tensors of known shape, in one exchange."""
    if _several() is None:
        return list(values)
    import tensorflow as tf

    together = sum_over_replicas(tf.concat([tf.reshape(value, [-1]) for value in values], 0))
    parts = tf.split(together, [value.shape.num_elements() for value in values])
    return [tf.reshape(part, value.shape) for part, value in zip(parts, values, strict=True)]


def gather_over_replicas(value: Any) -> Any:
    """A tensor of one shape `(...)` from all replicas, `(R, ...)` in their order."""
    context = _several()
    if context is None:
        return value[None]
    import tensorflow as tf

    parts = tf.raw_ops.CollectiveGatherV2(input=value[None], **_next_exchange(context))
    return tf.ensure_shape(parts, (context.num_replicas_in_sync, *value.shape))


def _several() -> Any:
    """The replica context, where there is more than one replica."""
    if keras.backend.backend() != "tensorflow":
        return None  # JAX computes the global batch as one
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


class _Link:
    """Keys and order of the exchanges of one replica, on the device where it is traced."""

    def __init__(self):
        import tensorflow as tf

        self.keys = itertools.count(1)
        device = tf.zeros(()).device
        # TensorFlow runs operations on one resource in the order in which they were traced.
        with tf.init_scope(), tf.device(device):
            self.order = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=())


class _Group:
    """The replicas of a strategy. Every worker makes its strategies in the same order."""

    def __init__(self):
        self.key = next(_GROUPS)
        self.links: dict[int, _Link] = {}


_OF: weakref.WeakKeyDictionary[Any, _Group] = weakref.WeakKeyDictionary()
"""Strategy -> group."""


def _next_exchange(context: Any) -> dict[str, Any]:
    """Arguments of the next collective that a replica traces."""
    import tensorflow as tf

    replica = tf.get_static_value(context.replica_id_in_sync_group).item()
    if context.strategy not in _OF:
        _OF[context.strategy] = _Group()
    group = _OF[context.strategy]
    if replica not in group.links:
        group.links[replica] = _Link()
    link = group.links[replica]
    return {
        "group_size": context.num_replicas_in_sync,
        "group_key": group.key,
        "instance_key": next(link.keys),
        "ordering_token": [link.order],
        "communication_hint": "auto",
    }
