"""A Keras net as a `Program`."""

import operator
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from kfcn.graph import Call, calls, inputs, is_operation, is_stock, producer
from kfcn.inference.runtime.program import FUNCTIONS, Program, Step, UnsupportedError
from kfcn.inference.runtime.simplify import simplified
from kfcn.inference.tiling import margin
from kfcn.nets.upsample import as_trim, enlargements
from kfcn.rewrite import DilatedPooling2D

_NAMES = {"silu": "swish", "hard_silu": "hard_swish"}
# What only the gathers of `match_size` count with.
_COUNTING = ("GetItem", "OnesLike", "Cumsum", "Subtract", "Max", "Minimum")
_LEFT_OUT = (
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
    layers.Identity,
)


def program_of(model: keras.Model) -> Program:
    """The steps of a net, with its weights as they are now.

    Args:
        model: RGB images `(B, H, W, 3)` of any size, 0..255, to logits `(B, H, W, C)`.

    Raises:
        UnsupportedError: a layer that is not supported (a CRF, say), or a dtype other than float32.
    """
    return simplified(*read(model))


def read(model: keras.Model) -> tuple[list[Step], int, int, int | None]:
    """The steps of a net layer by layer, each with the layer's weights, for `simplified`.

    Raises:
        UnsupportedError: as `program_of`.
    """
    one = hasattr(model, "operations") and len(model.inputs) == len(model.outputs) == 1
    if not one or tuple(model.inputs[0].shape) != (None, None, None, 3):
        raise UnsupportedError(
            f"{model.name}: expected a net that takes RGB images of any size and returns one map"
        )
    reader = _Reader(model)
    for call in calls(model):
        reader.visit(call)
    last = reader.numbers.get(id(model.outputs[0]))
    if not last:
        raise UnsupportedError(f"{model.name}: its output layer is not supported")
    return reader.steps, last, model.outputs[0].shape[-1], margin(model)


def without_crf(model: keras.Model) -> tuple[keras.Model, keras.Layer | None]:
    """A net without the dense CRF on its logits and its image, and that layer, if it has one."""
    from kfcn.crf import DenseCRF

    last = producer(model.outputs[0]) if len(model.outputs) == 1 else None
    if not isinstance(last, DenseCRF) or inputs(last)[1] is not model.inputs[0]:
        return model, None
    return keras.Model(model.inputs[0], inputs(last)[0], name=model.name), last


class _Reader:
    def __init__(self, model):
        self.steps = []
        self.numbers: dict[int, int | None] = {id(model.inputs[0]): 0}  # of values, by tensor
        found = [x for x in enlargements(model) if x.is_bilinear or x.is_aligned]
        self.enlarging = {part: x for x in found for part in x.parts if x.join is None}
        self.joins = {x.join: x for x in found if x.join is not None}
        self.passed = {x.split for x in found if x.split is not None}
        self.passed |= {part for x in found if x.join is not None for part in x.parts}

    def visit(self, call: Call):
        operation = call.operation
        tensors = [
            leaf
            for leaf in keras.tree.flatten((call.args, call.kwargs))
            if isinstance(leaf, keras.KerasTensor)
        ]
        if getattr(operation, "compute_dtype", "float32") != "float32":
            raise UnsupportedError(f"{operation.name} computes in {operation.compute_dtype}")
        given = [self.numbers.get(id(tensor)) for tensor in tensors]
        if operation in self.passed or is_stock(operation, *_LEFT_OUT):
            self.numbers |= {id(output): given[0] for output in call.outputs}
            return
        if is_operation(operation, *_COUNTING) and len(call.outputs[0].shape) != 4:
            return  # a trim says what it is counted for
        if trim := as_trim(operation):
            given = [given[0], self.numbers.get(id(trim.reference))]
        if None in given:
            raise UnsupportedError(f"{operation.name}: its input comes from an unsupported layer")
        number = given[0]
        if not is_stock(operation, layers.Activation):
            number = self._add(self._step(operation, call, given))
        function = _function(operation)
        if function is not None:
            number = self._add(_step("activate", [number], {"function": function}))
        self.numbers[id(call.outputs[0])] = number

    def _add(self, step):
        self.steps.append(step)
        return len(self.steps)

    def _step(self, operation, call, given):
        if getattr(operation, "data_format", "channels_last") != "channels_last":
            raise UnsupportedError(f"{operation.name} is channels_first; expected channels_last")
        if as_trim(operation):
            return _step("trim", given, {"axes": [operation.axis]})
        if operation in self.enlarging or operation in self.joins:
            found = self.enlarging.get(operation) or self.joins[operation]
            options = {"stride": found.stride, "centred": found.is_bilinear}
            return _step("enlarge", given[:1], options)
        if is_operation(operation, "Add", "Multiply"):
            return _arithmetic(operation, call, given)
        if is_stock(operation, layers.Reshape) and self._is_pooled(operation, given):
            return _affine(given, 1, 0)
        # A subclass may compute something else.
        reading = _READERS.get(type(operation))
        if reading is None:
            raise UnsupportedError(f"{operation.name} ({type(operation).__name__})")
        return reading(operation, given)

    def _is_pooled(self, operation, given):
        """Whether this makes (B, 1, 1, C) of what is (B, C) in Keras; a program has it so."""
        pooled = given[0] > 0 and self.steps[given[0] - 1].kind == "mean"
        return pooled and tuple(operation.target_shape[:2]) == (1, 1)


def _step(kind, given, options=None, weights=None):
    arrays = {
        name: np.ascontiguousarray(keras.ops.convert_to_numpy(weight), np.float32)
        for name, weight in (weights or {}).items()
    }
    return Step(kind, tuple(given), options or {}, arrays)


def _affine(given, scale, shift):
    return _step("affine", given, weights={"scale": np.ravel(scale), "shift": np.ravel(shift)})


def _convolution(layer, given):
    if not _is_depthwise(layer) and layer.groups != 1:
        raise UnsupportedError(f"{layer.name} is a grouped convolution")
    options = {
        "stride": list(layer.strides),
        "dilation": list(layer.dilation_rate),
        "padding": layer.padding,
    }
    weights = {"kernel": layer.kernel} | ({"bias": layer.bias} if layer.use_bias else {})
    return _step("depthwise" if _is_depthwise(layer) else "conv", given, options, weights)


def _is_depthwise(layer):
    return is_stock(layer, layers.DepthwiseConv2D)


def _transposed(layer, given):
    stride = layer.strides[0]
    plain = (
        not layer.use_bias
        and layer.output_padding is None
        and set(layer.strides) == {stride}
        and set(layer.dilation_rate) == {1}
        and min(layer.kernel_size) >= stride  # the rest would be zeros behind the last cell
    )
    if not plain:
        raise UnsupportedError(
            f"{layer.name} is a transposed convolution with a bias, holes, unequal strides or a "
            "kernel smaller than its stride"
        )
    options = {"stride": stride, "padding": layer.padding}
    return _step("transposed", given, options, {"kernel": layer.kernel})


def _norm(layer, given):
    if layer.axis not in (-1, 3):
        raise UnsupportedError(f"{layer.name} normalises axis {layer.axis}; expected the last one")
    weights = {"mean": layer.moving_mean, "variance": layer.moving_variance}
    weights |= {"gamma": layer.gamma} if layer.scale else {}
    weights |= {"beta": layer.beta} if layer.center else {}
    return _step("norm", given, {"epsilon": layer.epsilon}, weights)


def _normalization(layer, given):
    if layer.invert:
        raise UnsupportedError(f"{layer.name} is an inverse normalisation")
    mean, variance = (
        keras.ops.convert_to_numpy(v).astype(float) for v in (layer.mean, layer.variance)
    )
    scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
    return _affine(given, scale, -mean * scale)


def _relu(layer, given):
    plain = not layer.negative_slope and not layer.threshold
    if not plain or layer.max_value not in (None, 6):
        raise UnsupportedError(f"{layer.name} is neither ReLU nor ReLU6")
    return _step("activate", given, {"function": "relu" if layer.max_value is None else "relu6"})


def _multiply(layer, given):
    if len(given) != 2:
        raise UnsupportedError(f"{layer.name} multiplies {len(given)} maps")
    return _step("multiply", given)


def _max_pool(layer, given):
    # Pixels between the windows: ONNX Runtime takes what is missing for negative padding.
    if layer.padding == "same" and any(map(operator.gt, layer.strides, layer.pool_size)):
        raise UnsupportedError(f"{layer.name} pools {layer.pool_size} at strides {layer.strides}")
    return _pooled(given, layer.pool_size, layer.strides, (1, 1), layer.padding)


def _dilated_pool(layer, given):
    # Windows of padding alone, which it makes 0, are another thing to other runtimes.
    if layer.mode != "max" or layer.beyond():
        raise UnsupportedError(f"{layer.name} ({type(layer).__name__})")
    pads = _pads(layer.pads)["pads"]
    return _pooled(given, layer.pool_size, (1, 1), layer.dilation_rate, pads)


def _pooled(given, size, stride, dilation, padding):
    options = {"size": list(size), "stride": list(stride), "dilation": list(dilation)}
    return _step("max_pool", given, options | {"padding": padding})


def _nearest(layer, given):
    if layer.interpolation != "nearest" or len(set(layer.size)) != 1:
        raise UnsupportedError(f"{layer.name} is {layer.interpolation}, {layer.size} times")
    return _step("nearest", given, {"stride": layer.size[0]})


def _function(operation):
    """The name of the activation that a layer ends in; None for none."""
    function = getattr(operation, "activation", None)
    if function is None or function is keras.activations.linear:
        return None
    name = getattr(function, "__name__", str(function))
    known = _NAMES.get(name, name)
    # A user's own function may have the name of one of Keras'.
    if known not in FUNCTIONS or getattr(keras.activations, name, None) is not function:
        raise UnsupportedError(f"{operation.name} ends in {name}")
    return known


def _pads(pairs):
    return {"pads": [list(pair) for pair in pairs]}


def _arithmetic(operation, call, given):
    """`x + 3`, `x * (1 / 6)`, and sums and products of maps."""
    if len(given) == 2:
        return _step("add" if is_operation(operation, "Add") else "multiply", given)
    numbers = [x for x in (*call.args, *call.kwargs.values()) if np.ndim(x) == 0]
    if len(numbers) != 1 or not isinstance(numbers[0], (int, float)):
        raise UnsupportedError(f"{operation.name} has the arguments {call.args}")
    scale, shift = (1, numbers[0]) if is_operation(operation, "Add") else (numbers[0], 0)
    return _affine(given, scale, shift)


_READERS: dict[type, Callable[[Any, list[int]], Step]] = {
    DilatedPooling2D: _dilated_pool,
    layers.Add: lambda layer, given: _step("add", given),
    layers.BatchNormalization: _norm,
    layers.Conv2D: _convolution,
    layers.Conv2DTranspose: _transposed,
    layers.Cropping2D: lambda layer, given: _step("crop", given, _pads(layer.cropping)),
    layers.DepthwiseConv2D: _convolution,
    layers.GlobalAveragePooling2D: lambda layer, given: _step("mean", given),
    layers.MaxPooling2D: _max_pool,
    layers.Multiply: _multiply,
    layers.Normalization: _normalization,
    layers.ReLU: _relu,
    layers.Rescaling: lambda layer, given: _affine(given, layer.scale, layer.offset),
    layers.UpSampling2D: _nearest,
    layers.ZeroPadding2D: lambda layer, given: _step("pad", given, _pads(layer.padding)),
}
