"""A classifier becomes a fully convolutional net: section 3.1 of the FCN paper (arXiv 1411.4038).

The head starts at the first Flatten or global pooling that every path from input to output goes
through (squeeze-and-excite pools have a path around them). From there on a pooling over the whole
map becomes one over a window of the training size at stride 1, the first Dense behind a Flatten a
convolution of that window, and every other Dense a 1x1 convolution.
"""

import keras
from keras import layers

from kfcn.errors import KfcnError, UsageError
from kfcn.graph import is_operation, is_stock
from kfcn.rewrite import geometry
from kfcn.rewrite.walker import (
    Rewriter,
    Shape,
    Walker,
    as_functional,
    describe,
    reference_specs,
)

_ATTENTION = (
    layers.Attention,
    layers.AdditiveAttention,
    layers.MultiHeadAttention,
    layers.GroupQueryAttention,
)
_STARTS = (layers.Flatten, *geometry.GLOBAL_POOLINGS)
_PROBABILITIES = ("softmax", "sigmoid", "hard_sigmoid")
# What gives on what it is given, as the class scores behind a softmax.
_PASSING = (layers.Identity, layers.Dropout, layers.Reshape, layers.Flatten)

# What a convolution takes over from a Dense layer's configuration.
_CARRIED = (
    *("use_bias", "activation", "activity_regularizer"),
    *("kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer"),
)

# States of tensors: None before the head; in it `VECTOR`, a map whose cells stand for the
# classifier's vectors, or (height, width, channels) of a map that a Flatten has laid out.
VECTOR = "vector"


class _Convolutionalizer(Rewriter):
    def __init__(self, model, logits):
        super().__init__(model)
        self.start = _find_start(model)
        self.final = _find_final(model) if logits else None

    def visit(self, layer, args, kwargs, specs):
        facts = self.facts(args, kwargs)
        states = {fact.state for fact in facts}
        if layer is self.start:
            return self._enter_head(layer, args[0], facts[0].spec.shape)
        if states == {None}:
            _check_body(layer, facts, specs)
            return self.copy(layer)(*args, **kwargs), None
        if len(states) > 1:
            raise KfcnError(f"{describe(layer)} joins vectors of different kinds")
        state = states.pop()
        if is_stock(layer, layers.Dense):
            kernel = (1, 1) if state == VECTOR else state[:2]
            return self._convolution(layer, kernel)(args[0]), VECTOR
        if self._only_reshapes(layer, facts[0].spec, keras.tree.flatten(specs)[0]):
            return self._identity(layer)(args[0]), state
        changes = {}
        if layer is self.final and _squashes(layer):
            if not isinstance(layer, keras.Layer):
                return args[0], state
            if not layer.weights:
                return self._identity(layer)(args[0]), state
            changes["activation"] = "linear"
        if isinstance(layer, layers.Conv2D) and tuple(layer.kernel_size) != (1, 1):
            raise KfcnError(f"{describe(layer)} is larger than 1x1 behind the head's pooling")
        vectors = len(facts[0].spec.shape) == 2
        if hasattr(layer, "axis") and vectors and layer.axis in (1, [1], (1,)):
            changes["axis"] = -1  # the vector's axis 1 is the map's last
        pointwise = vectors or geometry.is_pointwise(layer)
        known = geometry.is_pointwise(self.copy(layer, **changes)) if pointwise else False
        if state != VECTOR and layer.weights:
            known = False  # its weights belong to the flattened positions
        if not known and not isinstance(layer, layers.Conv2D):
            raise KfcnError(
                f"{describe(layer)} cannot be made convolutional: behind a Flatten or global "
                "pooling expected Dense, 1x1 convolutions and layers that work on each position"
            )
        return self.copy(layer, **changes)(*args, **kwargs), state

    def _enter_head(self, layer, x, shape):
        if len(shape) != 4:
            raise KfcnError(f"{describe(layer)} pools a tensor of shape {shape}: expected a map")
        if not is_stock(layer, *_STARTS):
            raise KfcnError(
                f"{describe(layer)} is a layer of your own: expected a Flatten or global pooling "
                "of Keras, for how yours pools is not known"
            )
        _, height, width, channels = shape
        if isinstance(layer, layers.Flatten):
            state = VECTOR if height == width == 1 else (height, width, channels)
            return self._identity(layer)(x), state
        average = isinstance(layer, layers.GlobalAveragePooling2D)
        pool = self.copy(
            layer,
            layers.AveragePooling2D if average else layers.MaxPooling2D,
            pool_size=(height, width),
            strides=(1, 1),
            padding="valid",
        )
        return pool(x), VECTOR

    def _convolution(self, layer, kernel):
        """The convolution that a Dense layer is; constraints (of other axes) are left behind."""
        config = layer.get_config()
        changes = {entry: config[entry] for entry in _CARRIED if entry in config}
        if layer is self.final and config["activation"] in _PROBABILITIES:
            changes["activation"] = "linear"
        return self.copy(layer, layers.Conv2D, filters=layer.units, kernel_size=kernel, **changes)

    def _identity(self, layer):
        return self.copy(layer, layers.Identity)

    def _only_reshapes(self, layer, before, after) -> bool:
        """Whether a layer of the head does nothing to a map whose cells are the vectors."""
        if isinstance(layer, layers.Flatten):
            return True
        if isinstance(layer, layers.Reshape):
            return after.shape[-1] == before.shape[-1] and all(n == 1 for n in after.shape[:-1])
        return isinstance(layer, geometry.GLOBAL_POOLINGS)


def convolutionalize(
    classifier: keras.Model, size: tuple[int, int] | None = None, logits: bool = False
) -> keras.Model:
    """A classifier as a fully convolutional net on images of any size, on the same weights.

    At the size that the classifier was made for, the output is the classifier's: `(B, 1, 1, C)`
    instead of `(B, C)`. On larger images it is the map of what the classifier says of each window.
    With 'same' padding that is not quite the classifier on the cropped window: the crop sees zeros
    around itself where the map sees image. Nor is it with layers that look at all positions on the
    way, as squeeze-and-excite and `GroupNormalization` do: they see the whole image instead.

    Args:
        classifier: a functional or Sequential model of one image input that ends in Flatten +
            Dense or in global pooling + Dense, also with a nested body; it is not changed.
        size: `(height, width)` that the classifier was made for, where its input leaves it open.
        logits: leave out the final softmax or sigmoid.

    Returns:
        A functional model `(B, None, None, channels) -> (B, rows, columns, classes)` with the
        given one's layer names, weights (copied) and trainable flags; not compiled.

    Raises:
        UsageError: if the size is needed and not given.
        KfcnError: if a layer has no convolutional form, by name: attention, a Flatten that some
            path goes around, a normalisation of flattened positions.
    """
    graph = as_functional(classifier)
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4 or len(graph.outputs) != 1:
        raise KfcnError(
            f"model '{graph.name}' has inputs {[tuple(t.shape) for t in graph.inputs]} and "
            f"{len(graph.outputs)} outputs: expected one image (B, H, W, C) and one output"
        )
    given = graph.inputs[0]
    if size is None and None in given.shape[1:3]:
        raise UsageError(
            f"model '{graph.name}' takes images of any size: pass the size that the classifier was "
            "made for, for instance size=(224, 224)"
        )
    rewriter = _Convolutionalizer(graph, logits)
    spec = reference_specs(graph, size)[0]
    x = keras.Input(
        batch_shape=(None, None, None, given.shape[3]), dtype=given.dtype, name=given.name
    )
    rewriter.know(x, spec, None)
    return rewriter.rewrite(graph, [x])


class _Tracer(Walker):
    """Records the edges of one level of a graph: `(layer, ids of inputs, ids of outputs)`."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def _call(self, layer, *args, **kwargs):
        outputs = Shape(layer)(*args, **kwargs)
        tensors = keras.tree.flatten((args, kwargs))
        taken = [id(t) for t in tensors if isinstance(t, keras.KerasTensor)]
        self.steps.append((layer, taken, [id(t) for t in keras.tree.flatten(outputs)]))
        return outputs


def _trace(graph):
    tracer = _Tracer()
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype) for t in graph.inputs]
    new = tracer.walk(graph, inputs)
    return tracer.steps, [id(t) for t in inputs], [id(t) for t in new.outputs]


def _find_start(model):
    """The layer at which the head starts.

    Raises:
        KfcnError: if there is none; what comes closest is named.
    """
    start, bypassed = _search(as_functional(model))
    if start is not None:
        return start
    if bypassed:
        raise KfcnError(
            f"{describe(bypassed[-1])} is not a bottleneck: some path from input to output goes "
            "around it, so no head starts there"
        )
    last = as_functional(model).layers[-1]
    raise KfcnError(
        f"model '{model.name}', which ends in {describe(last)}, has no Flatten or global pooling "
        "of a map to make convolutional"
    )


def _search(graph):
    steps, inputs, outputs = _trace(graph)
    bypassed = []
    for position, (layer, _, _) in enumerate(steps):
        nested = isinstance(layer, keras.Model)
        if not nested and not isinstance(layer, _STARTS):
            continue
        if _around(steps, inputs, outputs, position):
            bypassed += [] if nested else [layer]
        elif not nested:
            return layer, bypassed
        else:
            start, inner = _search(as_functional(layer))
            bypassed += inner
            if start is not None:
                return start, bypassed
    return None, bypassed


def _around(steps, inputs, outputs, position) -> bool:
    """Whether an output can be reached without the layer at a position."""
    reached = set(inputs)
    for index, (_, taken, made) in enumerate(steps):
        if index != position and reached.intersection(taken):
            reached.update(made)
    return bool(reached.intersection(outputs))


def _find_final(model):
    """The layer or operation that makes the scores of the output, inside nested models too."""
    steps, _, (wanted,) = _trace(as_functional(model))
    for layer, taken, made in reversed(steps):
        if wanted not in made:
            continue
        if isinstance(layer, keras.Model):
            return _find_final(layer)
        if not _passes(layer):
            return layer
        wanted = taken[0]
    return None


def _passes(layer) -> bool:
    linear = isinstance(layer, layers.Activation) and layer.activation is keras.activations.linear
    return linear or isinstance(layer, _PASSING)


def gives_probabilities(model: keras.Model) -> bool:
    """Whether a classifier ends in a softmax or sigmoid, so that its outputs are no logits."""
    return _squashes(_find_final(model))


def _squashes(layer) -> bool:
    activation = getattr(layer, "activation", None)
    return (
        isinstance(layer, layers.Softmax)
        or is_operation(layer, "Softmax", "Sigmoid", "HardSigmoid")
        or getattr(activation, "__name__", None) in _PROBABILITIES
    )


def _check_body(layer, facts, specs) -> None:
    """Refuses layers before the head that only work at one size."""
    if isinstance(layer, _ATTENTION):
        raise KfcnError(
            f"{describe(layer)} attends over all positions: it has no convolutional form"
        )
    before, after = facts[0].spec.shape, keras.tree.flatten(specs)[0].shape
    if isinstance(layer, layers.Flatten) and len(before) == 4 and before[1:3] != (1, 1):
        raise KfcnError(
            f"{describe(layer)} is not a bottleneck: some path from input to output goes around it"
        )
    fixed = isinstance(layer, layers.Reshape) and any(n != 1 for n in after[1:-1])
    if fixed or len(after) == 3:
        raise KfcnError(
            f"{describe(layer)} turns {tuple(before)} into {tuple(after)}: positions of a fixed "
            "size have no convolutional form"
        )
