"""A Keras net as a `Program`."""

import keras
import numpy as np
from keras import layers

from kfcn.graph import Call, calls, inputs, is_operation, producer
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
        UnsupportedError: a layer that no step stands for (a CRF, say), or a dtype other than
            float32.
    """
    return simplified(*read(model))


def read(model: keras.Model) -> tuple[list[Step], int, int, int | None]:
    """The steps of a net as its layers stand, each with the layer's weights, for `simplified`.

    Raises:
        UnsupportedError: as `program_of`.
    """
    one = hasattr(model, "operations") and len(model.inputs) == len(model.outputs) == 1
    if not one or tuple(model.inputs[0].shape) != (None, None, None, 3):
        raise UnsupportedError(f"{model.name} is no net from images of any size to one map")
    reader = _Reader(model)
    for call in calls(model):
        reader.visit(call)
    last = reader.numbers.get(id(model.outputs[0]))
    if last is None or not reader.steps:
        raise UnsupportedError(f"{model.name} ends in what no step stands for")
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
        self.model = model
        self.steps = []
        self.numbers = {id(model.inputs[0]): 0}  # of values, by symbolic tensor
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
        if operation in self.passed or isinstance(operation, _LEFT_OUT):
            self.numbers |= {id(output): given[0] for output in call.outputs}
            return
        if is_operation(operation, *_COUNTING) and not self._is_map(call):
            return  # a trim says what it is counted for
        if trim := as_trim(operation):
            given = [given[0], self.numbers.get(id(trim.reference))]
        if None in given:
            raise UnsupportedError(f"{operation.name}: what it is given stands in no step")
        step = self._step(operation, call, given)
        self.steps.append(step)
        self.numbers[id(call.outputs[0])] = len(self.steps)

    def _is_map(self, call):
        return len(call.outputs[0].shape) == 4

    def _step(self, operation, call, given):
        def step(kind, options=None, weights=None):
            weights = {
                name: np.ascontiguousarray(keras.ops.convert_to_numpy(w), np.float32)
                for name, w in (weights or {}).items()
            }
            return Step(kind, tuple(given), options or {}, weights)

        if getattr(operation, "data_format", "channels_last") != "channels_last":
            raise UnsupportedError(f"{operation.name} is not channels last")
        if as_trim(operation):
            return step("trim", {"axes": [operation.axis]})
        if operation in self.enlarging or operation in self.joins:
            found = self.enlarging.get(operation) or self.joins[operation]
            given = given[:1]
            return step("enlarge", {"stride": found.stride, "centred": found.is_bilinear})
        if isinstance(operation, (layers.Conv2D, layers.DepthwiseConv2D)):
            return self._convolution(operation, step)
        if isinstance(operation, layers.Conv2DTranspose):
            return self._transposed(operation, step)
        if isinstance(operation, layers.BatchNormalization):
            return self._norm(operation, step)
        if isinstance(operation, layers.Rescaling):
            scale, shift = (np.ravel(v) for v in (operation.scale, operation.offset))
            return step("affine", weights={"scale": scale, "shift": shift})
        if isinstance(operation, layers.Normalization) and not operation.invert:
            mean, variance = (
                np.ravel(keras.ops.convert_to_numpy(v)).astype(float)
                for v in (operation.mean, operation.variance)
            )
            scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
            return step("affine", weights={"scale": scale, "shift": -mean * scale})
        if isinstance(operation, layers.ReLU):
            return self._relu(operation, step)
        if isinstance(operation, layers.Activation):
            return step("activate", {"function": self._function(operation, operation.activation)})
        if isinstance(operation, (layers.Add, layers.Multiply)):
            if len(given) != 2 and isinstance(operation, layers.Multiply):
                raise UnsupportedError(f"{operation.name} multiplies {len(given)} maps")
            return step("add" if isinstance(operation, layers.Add) else "multiply")
        if is_operation(operation, "Add", "Multiply"):
            return self._arithmetic(operation, call, given, step)
        if isinstance(operation, (layers.ZeroPadding2D, layers.Cropping2D)):
            padded = isinstance(operation, layers.ZeroPadding2D)
            pads = operation.padding if padded else operation.cropping
            return step("pad" if padded else "crop", {"pads": [list(pair) for pair in pads]})
        if isinstance(operation, layers.MaxPooling2D):
            return step(
                "max_pool",
                {
                    "size": list(operation.pool_size),
                    "stride": list(operation.strides),
                    "dilation": [1, 1],
                    "padding": operation.padding,
                },
            )
        # Windows of padding alone, which it makes 0, are another thing to other runtimes.
        pooled = isinstance(operation, DilatedPooling2D) and not operation.beyond()
        if pooled and operation.mode == "max":
            return step(
                "max_pool",
                {
                    "size": list(operation.pool_size),
                    "stride": [1, 1],
                    "dilation": list(operation.dilation_rate),
                    "padding": [list(pair) for pair in operation.pads],
                },
            )
        if isinstance(operation, layers.GlobalAveragePooling2D):
            return step("mean")
        if isinstance(operation, layers.Reshape) and self._is_pooled(operation, given):
            return step("affine", weights={"scale": np.ones(1), "shift": np.zeros(1)})
        if isinstance(operation, layers.UpSampling2D):
            stride = operation.size[0]
            if operation.interpolation == "nearest" and operation.size == (stride, stride):
                return step("nearest", {"stride": stride})
        raise UnsupportedError(f"{operation.name} ({type(operation).__name__})")

    def _is_pooled(self, operation, given):
        """Whether this makes (B, 1, 1, C) of what is (B, C) in Keras; a program has it so."""
        pooled = given[0] > 0 and self.steps[given[0] - 1].kind == "mean"
        return pooled and tuple(operation.target_shape[:2]) == (1, 1)

    def _convolution(self, operation, step):
        depthwise = isinstance(operation, layers.DepthwiseConv2D)
        if not depthwise and operation.groups != 1:
            raise UnsupportedError(f"{operation.name} convolves in groups")
        weights = {"kernel": operation.kernel}
        if operation.use_bias:
            weights["bias"] = operation.bias
        options = {
            "stride": list(operation.strides),
            "dilation": list(operation.dilation_rate),
            "padding": operation.padding,
        }
        function = self._function(operation, operation.activation)
        if function in ("relu", "relu6"):
            options["activation"] = function
        found = step("depthwise" if depthwise else "conv", options, weights)
        if function is None or "activation" in options:
            return found
        self.steps.append(found)
        return Step("activate", (len(self.steps),), {"function": function}, {})

    def _norm(self, operation, step):
        if operation.axis not in (-1, 3):
            raise UnsupportedError(f"{operation.name} is over axis {operation.axis}")
        weights = {"mean": operation.moving_mean, "variance": operation.moving_variance}
        if operation.scale:
            weights["gamma"] = operation.gamma
        if operation.center:
            weights["beta"] = operation.beta
        return step("norm", {"epsilon": operation.epsilon}, weights)

    def _transposed(self, operation, step):
        stride = operation.strides[0]
        plain = (
            not operation.use_bias
            and operation.activation is keras.activations.linear
            and operation.output_padding is None
            and set(operation.strides) == {stride}
            and set(operation.dilation_rate) == {1}
            and (operation.padding == "valid" or min(operation.kernel_size) >= stride)
        )
        if not plain:
            raise UnsupportedError(f"{operation.name} is no plain transposed convolution")
        options = {"stride": stride, "padding": operation.padding}
        return step("transposed", options, {"kernel": operation.kernel})

    def _relu(self, operation, step):
        plain = not operation.negative_slope and not operation.threshold
        if not plain or operation.max_value not in (None, 6):
            raise UnsupportedError(f"{operation.name} is neither ReLU nor ReLU6")
        return step("activate", {"function": "relu" if operation.max_value is None else "relu6"})

    def _arithmetic(self, operation, call, given, step):
        """`x + 3`, `x * (1 / 6)`, and sums and products of maps."""
        if len(given) == 2:
            return step("add" if is_operation(operation, "Add") else "multiply")
        numbers = [x for x in (*call.args, *call.kwargs.values()) if np.ndim(x) == 0]
        if len(numbers) != 1 or not isinstance(numbers[0], (int, float)):
            raise UnsupportedError(f"{operation.name} is given {call.args}")
        number = np.array([numbers[0]], np.float32)
        if is_operation(operation, "Add"):
            return step("affine", weights={"scale": np.ones(1), "shift": number})
        return step("affine", weights={"scale": number, "shift": np.zeros(1)})

    def _function(self, operation, function):
        """The name of an activation; None for none."""
        if function is keras.activations.linear or function is None:
            return None
        name = getattr(function, "__name__", str(function))
        name = _NAMES.get(name, name)
        if name not in FUNCTIONS:
            raise UnsupportedError(f"{operation.name} ends in {name}")
        return name
