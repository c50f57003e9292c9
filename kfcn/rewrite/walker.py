"""One walk over the graph of a model, on which the rewrites and the receptive field stand.

`keras.models.clone_model` gives the walk: its `call_function` is called for every layer in the
order of the graph with the new symbolic tensors. The layers of the given model are never called
here (that would leave nodes in the caller's graph): each is copied from its configuration, and
the weights follow at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kfcn.errors import KfcnError, UsageError, first_line

# Sizes are followed beside the graph where an input leaves them open: a multiple of the strides
# that nets have (128, 3 and 5), so that no layer meets a size its stride does not divide.
REFERENCE_SIZE = 1920


@dataclass(frozen=True)
class Fact:
    """What a walk knows of a tensor.

    Attributes:
        spec: the tensor's symbolic twin in the *given* model at the reference size.
        state: whatever the walk carries along; hashable.
    """

    spec: keras.KerasTensor
    state: Any


def describe(layer: keras.Operation) -> str:
    """Names a layer in an error message: `layer 'fc1' (Dense)`."""
    return f"layer '{layer.name}' ({type(layer).__name__})"


def as_functional(model: keras.Model) -> keras.Model:
    """The model as a graph that can be walked; the given one gains no node.

    Raises:
        KfcnError: for a subclassed or unbuilt model, which have no graph.
    """
    if isinstance(model, keras.Sequential):
        if not model.built or not model.layers:
            raise KfcnError(
                f"model '{model.name}' is a Sequential without an input shape: add a keras.Input "
                "as its first layer, or build() it"
            )
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not isinstance(model, keras.Model):
        raise UsageError(f"expected a Keras model, received {type(model).__name__}")
    if not hasattr(model, "operations"):
        raise KfcnError(
            f"model '{model.name}' ({type(model).__name__}) is subclassed and has no graph to "
            "walk: build it with the functional API or as a Sequential"
        )
    if model.compiled:
        # clone_model would rebuild the loss and the metrics too, and those may be anybody's.
        return keras.Model(model.input, model.output, name=model.name)
    return model


def copied(model: keras.Model) -> keras.Model:
    """A functional model as it is, on copies of its layers and weights; not compiled."""
    graph = as_functional(model)
    new = keras.models.clone_model(graph)
    give_weights(new, graph.get_weights())
    return new


def in_float32(model: keras.Model) -> keras.Model:
    """A model that computes in float32: itself, or a copy where layers do in half precision.

    Their weights are float32 as a rule: a policy such as "mixed_bfloat16" is for the training.
    """

    def is_half(layer):
        return getattr(layer, "compute_dtype", None) in ("float16", "bfloat16")

    if not any(map(is_half, _leaves(model))):
        return model

    def clone(layer):
        dtype = {"dtype": "float32"} if is_half(layer) else {}
        return type(layer).from_config(layer.get_config() | dtype)

    graph = as_functional(model)
    new = keras.models.clone_model(graph, clone_function=clone, recursive=True)
    give_weights(new, graph.get_weights())
    return new


def _leaves(layer):
    if isinstance(layer, keras.Model):
        for inner in layer.layers:
            yield from _leaves(inner)
    else:
        yield layer


def give_weights(layer: keras.Layer, weights: Sequence[Any]) -> None:
    """Sets the weights of a layer or a model, and what its layers derive from them.

    A Normalization computes with constants that it makes of its weights.
    """
    layer.set_weights(weights)
    for leaf in _leaves(layer):
        _finalize(leaf)


def _finalize(layer):
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()


def reference_specs(
    model: keras.Model, size: tuple[int, int] | None = None
) -> list[keras.KerasTensor]:
    """The inputs of a functional model with every open size filled in.

    Args:
        model: the functional model.
        size: `(height, width)` for what the inputs leave open; None for `REFERENCE_SIZE`.

    Raises:
        UsageError: if `size` is no pair, or contradicts a size that the model fixes.
    """
    if size is not None and (not isinstance(size, Sequence) or len(size) != 2):
        raise UsageError(f"expected size=(height, width) in pixels, received size={size!r}")
    specs = []
    for tensor in model.inputs:
        shape = [1, *tensor.shape[1:]]
        if len(shape) == 4:
            wanted = size or (REFERENCE_SIZE, REFERENCE_SIZE)
            for axis in (1, 2):
                if size and shape[axis] not in (None, size[axis - 1]):
                    raise UsageError(
                        f"model '{model.name}' is built for inputs of "
                        f"{shape[1]}x{shape[2]} pixels, received size={tuple(size)}"
                    )
                shape[axis] = shape[axis] or wanted[axis - 1]
        specs.append(keras.KerasTensor(shape, dtype=tensor.dtype))
    return specs


class Walker:
    """Walks a model; a subclass says in `visit` what becomes of each layer."""

    def __init__(self):
        self._facts = {}  # id -> (tensor, fact); holding the tensor keeps its id its own
        self._models = {}  # nested models made so far, by model and facts of the inputs
        self.containers = []  # (given, new) models

    def visit(
        self, layer: keras.Operation, args: tuple, kwargs: dict[str, Any], specs: Any
    ) -> tuple[Any, Any]:
        """Returns the outputs that stand for `layer(*args, **kwargs)`, and their state.

        Args:
            layer: the given layer or operation; not to be called.
            args: its arguments with the new tensors in the place of the old.
            kwargs: its keyword arguments, likewise.
            specs: what the given layer makes at the reference size.
        """
        raise NotImplementedError

    def know(self, tensor: keras.KerasTensor, spec: keras.KerasTensor, state: Any) -> None:
        """Remembers what is known of a new tensor."""
        self._facts[id(tensor)] = (tensor, Fact(spec, state))

    def fact(self, tensor: keras.KerasTensor) -> Fact:
        """What is known of a new tensor."""
        return self._facts[id(tensor)][1]

    def facts(self, *structure: Any) -> list[Fact]:
        """The facts of all new tensors in a structure of arguments."""
        leaves = keras.tree.flatten(structure)
        return [self.fact(leaf) for leaf in leaves if isinstance(leaf, keras.KerasTensor)]

    def walk(self, model: keras.Model, inputs: list[keras.KerasTensor]) -> keras.Model:
        """Walks `model` from new inputs whose facts are known; returns what came out."""
        graph = as_functional(model)
        new = keras.models.clone_model(
            graph,
            input_tensors=keras.tree.pack_sequence_as(graph.input, inputs),
            clone_function=lambda layer: layer,
            call_function=self._call,
        )
        self.containers.append((model, new))
        return new

    def _call(self, layer, *args, **kwargs):
        if isinstance(layer, keras.Model):
            return self._enter(layer, args)
        specs = self._specs(layer, args, kwargs)
        outputs, state = self.visit(layer, args, kwargs, specs)
        for tensor, spec in zip(
            keras.tree.flatten(outputs), keras.tree.flatten(specs), strict=True
        ):
            self.know(tensor, spec, state)
        return outputs

    def _specs(self, layer, args, kwargs):
        def twin(leaf):
            return self.fact(leaf).spec if isinstance(leaf, keras.KerasTensor) else leaf

        args, kwargs = keras.tree.map_structure(twin, (args, kwargs))
        try:
            return layer.compute_output_spec(*args, **kwargs)
        except Exception as error:
            shapes = [leaf.shape for leaf in keras.tree.flatten(args) if hasattr(leaf, "shape")]
            raise KfcnError(
                f"{describe(layer)} does not take {shapes}: {first_line(error)}"
            ) from error

    def _enter(self, model, args):
        """A model used as a layer: walked by itself and kept as a model in the new one."""
        given = self.facts(args)
        key = (id(model), tuple((tuple(fact.spec.shape), fact.state) for fact in given))
        if key not in self._models:
            tensors = keras.tree.flatten(args)
            inputs = [
                keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=old.name)
                for tensor, old in zip(tensors, as_functional(model).inputs, strict=True)
            ]
            for tensor, fact in zip(inputs, given, strict=True):
                self.know(tensor, fact.spec, fact.state)
            seen = sum(1 for other in self._models if other[0] == key[0])
            self._models[key] = self.walk(model, inputs)
            if seen:  # Keras wants every layer of a model to have a name of its own.
                self._models[key].name = f"{model.name}_{seen + 1}"
        new = self._models[key]
        outputs = new(*args)
        for tensor, inner in zip(keras.tree.flatten(outputs), new.outputs, strict=True):
            fact = self.fact(inner)
            self.know(tensor, fact.spec, fact.state)
        return outputs


class Rewriter(Walker):
    """A walk that makes a new model: copies of layers, and the weights at the end."""

    def __init__(self, model: keras.Model):
        super().__init__()
        self._names = _names(model)
        self._copies = {}

    def rewrite(self, model: keras.Model, inputs: list[keras.KerasTensor]) -> keras.Model:
        """Walks `model` and gives the new one the weights and flags of the given one."""
        new = self.walk(model, inputs)
        # A model's flag reaches down into its layers, so it comes before theirs.
        for old_model, new_model in reversed(self.containers):
            if not old_model.trainable:
                new_model.trainable = False
        for old, _, copy in self._copies.values():
            if not isinstance(old, keras.Layer):
                continue
            copy.trainable = old.trainable
            for source, target in zip(old.weights, copy.weights, strict=True):
                target.assign(keras.ops.reshape(source, target.shape))
            _finalize(copy)
        return new

    def copy(
        self, layer: keras.Operation, kind: type[keras.Operation] | None = None, **changes: Any
    ) -> Any:
        """The new layer that stands for `layer`: the same each time for the same form of it.

        Args:
            layer: a layer or operation of the given model.
            kind: another class to make; by default the layer's own. Its configuration is then
                `changes` and what every layer has (name, dtype, trainable).
            **changes: entries of the configuration that differ.
        """
        key = (id(layer), kind, repr(sorted(changes.items())))
        if key not in self._copies:
            try:
                config = layer.get_config()
            except NotImplementedError as error:
                raise KfcnError(
                    f"{describe(layer)} has no get_config and cannot be copied"
                ) from error
            if kind:
                config = {entry: config[entry] for entry in ("name", "trainable", "dtype")}
            config.update(changes)
            name = layer.name
            if any(other[0] == id(layer) for other in self._copies):
                name = self.new_name(name)
            if "name" in config:
                config["name"] = name
            new = (kind or type(layer)).from_config(config)
            new.name = name
            self._copies[key] = (layer, kind, new)
        return self._copies[key][2]

    def new_name(self, name: str) -> str:
        """A name that no layer of the model bears yet: `name` itself, `name_2`, `name_3`, ..."""
        number, free = 1, name
        while free in self._names:
            number += 1
            free = f"{name}_{number}"
        self._names.add(free)
        return free


class Shape(keras.Operation):
    """Stands in a graph for another layer: knows what it makes, holds nothing, never runs."""

    def __init__(self, layer: keras.Operation):
        super().__init__()
        self._layer = layer

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The given layer's answer."""
        return self._layer.compute_output_spec(*args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Not meant to run."""
        raise NotImplementedError


def _names(model) -> set[str]:
    names = set()
    for operation in as_functional(model).operations:
        names.add(operation.name)
        if isinstance(operation, keras.Model):
            names |= _names(operation)
    return names
