"""Steps of a small net on one and on two replicas of one process; prints what they differ by."""

import functools
import itertools
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from kfcn.collectives import SHORT, sum_over_replicas
from kfcn.data.feed.unlabelled import PASTED, Unlabelled
from kfcn.losses import SegmentationLoss
from kfcn.training import replicas, step
from kfcn.training.average import Average
from kfcn.training.learner import Learner
from kfcn.training.optimizers import AdamW

mirrored = replicas.start("mirrored", 2)
WAYS = {1: replicas.Replicas(tf.distribute.get_strategy()), 2: mirrored}

rng = np.random.default_rng(0)
IMAGES = rng.uniform(0, 255, (6, 16, 16, 3)).astype("float32")
LABELS = rng.integers(0, 3, (6, 16, 16)).astype("uint8")
LABELS[:2, :11] = 255  # ignored: much of the first share, nothing of the others


def net():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    for _ in range(2):
        x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
    return keras.Model(inputs, keras.layers.Conv2D(3, 1)(x))


def unlabelled(batch, part):
    """Pictures without labels for the places `part` of a batch; the same crops in other colours."""
    before = [(place - 1) % len(batch) for place in part]
    places = list(dict.fromkeys([*part.tolist(), *before]))
    rows = np.array(batch)[places]
    partner = np.array([places.index(place) for place in before], np.int32)
    source = np.where(
        LABELS[rows[: len(part)]] == 1, PASTED, LABELS[rows[: len(part)]] // 255 * 255
    )
    return Unlabelled(
        IMAGES[rows], IMAGES[rows[: len(part)]] * 0.7, source.astype("uint8"), partner
    )


def train(where, batches, iou_loss=0.0, gated_crf=0.0, beside=False):
    """The net after steps on `batches` (lists of rows), and what the steps gave."""
    keras.utils.set_random_seed(0)
    with where.strategy.scope():
        model = net()
        optimizer = AdamW(1e-3)
        optimizer.build(model.trainable_variables)
        learner = Learner(
            model,
            SegmentationLoss(None, iou_loss),
            optimizer,
            Average(model, 0.4),
            gated_crf=gated_crf,
            unlabelled=beside,
        )
        if beside:  # sure of something
            learner.average.variables[-1].assign([3.6, 0.0, 0.0])

    def read(context):
        def rows():
            for batch in batches:
                for places in np.array_split(np.arange(len(batch)), where.total):
                    part = np.array(batch)[places]
                    more = (unlabelled(batch, places),) if beside else ()
                    yield IMAGES[part] * (np.nan if -1 in part else 1), LABELS[part], *more

        maps, labels = tf.TensorSpec((None, 16, 16, 3)), tf.TensorSpec((None, 16, 16), tf.uint8)
        more = (Unlabelled(maps, maps, labels, tf.TensorSpec((None,), tf.int32)),)
        spec = (maps, labels, *more[: int(beside)])
        return tf.data.Dataset.from_generator(rows, output_signature=spec)

    stream = where.strategy.distribute_datasets_from_function(read)
    one = step.Step(learner, where, stream.element_spec)
    done, weights = [], []
    for batch in stream:
        done.append(one(batch))
        values = map(keras.ops.convert_to_numpy, learner.variables)
        weights.append([value.astype("float64") for value in values])
    nodes = operations(one._step.get_concrete_function())
    exchanges = sum(node.op.startswith("Collective") for node in nodes) / where.total
    return model, weights, done, exchanges


def known(size, replica):
    return np.arange(size) % 7 + 10 * (replica + 1)


def summed(size, dtype):
    """How far a sum over both replicas is from its value, and which operations make it."""

    def mine():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = tf.where(tf.equal(number, 0), known(size, 0), known(size, 1))
        return sum_over_replicas(tf.cast(own, dtype))

    function = tf.function(lambda: mirrored.strategy.run(mine)).get_concrete_function()
    values = [np.asarray(x) for x in mirrored.strategy.experimental_local_results(function())]
    nodes = operations(function)
    return {
        "operations": sorted({node.op for node in nodes if node.op.startswith("Collective")}),
        "wrong": apart(values, [known(size, 0) + known(size, 1)] * 2),
        "kept": values[0].dtype == dtype,
    }


def operations(function):
    graph = function.graph.as_graph_def()
    return itertools.chain(graph.node, *(f.node_def for f in graph.library.function))


def apart(a, b):
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


def by_hand():
    """Loss of the first step and what a mean of the shares' means would give."""
    keras.utils.set_random_seed(0)
    model = net()
    rows = np.arange(5)
    logits = np.asarray(model(IMAGES[rows], training=True)).astype("float64")
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    valid = LABELS[rows] != 255
    terms = -np.take_along_axis(logits, np.where(valid, LABELS[rows], 0)[..., None], -1)[..., 0]
    means = [terms[p][valid[p]].mean() for p in np.array_split(rows, 2)]
    return terms[valid].mean(), np.mean(means)


found = {}
batches = [[0, 1, 2, 3, 4], [1, 2, 3], [2, -1, 3], [5, 0], [2, 3, 4, 5]]  # -1: not finite
FINITE = [batch for batch in batches if -1 not in batch]
(model, one, plain, none), (_, two, plain2, exchanges) = (train(WAYS[n], batches) for n in (1, 2))
found["synchronised"] = apart(one[-1], two[-1])
found["exchanges"] = {"1": none, "2": exchanges}
count = len(model.weights)
found["average and weights"] = apart(two[-1][-count:], [np.asarray(w) for w in model.weights])
found["asked for in the saved net"] = any(
    layer.synchronized for layer in model.layers if hasattr(layer, "synchronized")
)
found["sums"] = {
    name: summed(size, dtype)
    for name, size, dtype in (
        ("short", SHORT, "float32"),
        ("long", SHORT + 1, "float32"),
        ("whole numbers", 3, "int64"),
    )
}
whole, means = by_hand()
found["loss"] = {"1": plain[0].loss, "2": plain2[0].loss, "numpy": whole, "mean of means": means}

for name, options in (
    ("soft IoU", {"iou_loss": 1.0}),
    ("gated CRF", {"gated_crf": 0.1}),
    ("unlabelled", {"beside": True}),
):
    (_, one_with, done, _), (_, two_with, done2, _) = (
        train(WAYS[n], FINITE, **options) for n in (1, 2)
    )
    found[name] = {
        "synchronised": apart(one_with[-1], two_with[-1]),
        "loss": abs(done[0].loss - done2[0].loss),
        "without it": apart(one_with[-1], one[-1]),
        "adds": done[0].loss - found["loss"]["1"],
        "confident": [done[0].confident, done2[0].confident],
    }

found["not finite"] = {
    str(number): {
        "finite": steps[2].finite,
        "changed": apart(weights[1], weights[2]),
        "then finite": steps[3].finite,
    }
    for number, weights, steps in ((1, one, plain), (2, two, plain2))
}

step.training_forward = lambda model, replicas, recompute: functools.partial(model, training=True)
found["each for itself"] = apart(one[-1], train(mirrored, FINITE)[1][-1])
print(json.dumps(found))
