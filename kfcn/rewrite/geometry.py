"""What each layer does to the grid of a map: the windows, and which layers leave it alone."""

from dataclasses import dataclass

import keras
from keras import layers

from kfcn.errors import KfcnError
from kfcn.graph import is_operation
from kfcn.rewrite.walker import describe

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D)
GLOBAL_POOLINGS = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)

# Layers that work on each position by itself and take any size, or that only training does.
_POINTWISE = (
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.Softmax,
    layers.Identity,
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.ActivityRegularization,
    layers.RandomBrightness,
    layers.RandomContrast,
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomTranslation,
    layers.RandomZoom,
    layers.BatchNormalization,
    layers.Rescaling,
    layers.Normalization,
    layers.Dense,
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
)
# The same among keras.ops, which become operations of a model's graph by their class name.
_POINTWISE_OPERATIONS = {
    *("Abs", "Add", "Cast", "Clip", "Divide", "Elu", "Exp", "Gelu", "HardSigmoid", "HardSilu"),
    *("HardTanh", "LeakyRelu", "Log", "Maximum", "Minimum", "Multiply", "Negative", "Power"),
    *("Relu", "Relu6", "Rsqrt", "Sigmoid", "Silu", "Softplus", "Sqrt", "Square", "Subtract"),
    *("Tanh", "TrueDivide"),
}

# Private layers of keras.applications: per channel, or switched off outside training.
_POINTWISE_IN_APPLICATIONS = ("LayerScale", "StochasticDepth", "CustomScaleLayer")


def is_pointwise(layer: keras.Operation) -> bool:
    """Whether the layer treats each position by itself, whatever the size of the map."""
    if isinstance(layer, (layers.LayerNormalization, layers.Concatenate)) or is_operation(
        layer, "Concatenate", "Split", "Softmax", "LogSoftmax"
    ):
        axis = layer.axis
        return (axis[0] if isinstance(axis, (list, tuple)) else axis) in (-1, 3)
    if isinstance(layer, layers.PReLU):
        return bool(layer.shared_axes) and {1, 2} <= set(layer.shared_axes)
    if type(layer).__module__.startswith("keras.src.applications"):
        return type(layer).__name__ in _POINTWISE_IN_APPLICATIONS
    return isinstance(layer, _POINTWISE) or is_operation(layer, *_POINTWISE_OPERATIONS)


@dataclass(frozen=True)
class Window:
    """The window of a convolution or pooling; every pair is `(y, x)`."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: str

    def reach(self, axis: int) -> int:
        """The window's extent in cells along an axis (0 for y), holes included."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def pads(self, axis: int, size: int) -> tuple[int, int]:
        """The cells of padding before and after a map of `size` cells along an axis."""
        if self.padding == "valid":
            return 0, 0
        cells = -(-size // self.stride[axis])
        total = max((cells - 1) * self.stride[axis] + self.reach(axis) - size, 0)
        return total // 2, total - total // 2


def window(layer: keras.Operation) -> Window | None:
    """The window of a convolution or pooling, None for any other layer.

    Raises:
        KfcnError: for a channels-first layer.
    """
    if not isinstance(layer, (*CONVOLUTIONS, *POOLINGS)):
        return None
    if layer.data_format != "channels_last":
        raise KfcnError(f"{describe(layer)} is channels-first; expected channels-last")
    if isinstance(layer, POOLINGS):
        return Window(_pair(layer.pool_size), _pair(layer.strides), (1, 1), layer.padding)
    return Window(
        _pair(layer.kernel_size), _pair(layer.strides), _pair(layer.dilation_rate), layer.padding
    )


def edges(layer: keras.Operation) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """`((top, bottom), (left, right))` cells that a layer adds; negative where it crops."""
    if isinstance(layer, layers.ZeroPadding2D):
        top_bottom, left_right = layer.padding
        return _pair(top_bottom), _pair(left_right)
    if isinstance(layer, layers.Cropping2D):
        (top, bottom), (left, right) = layer.cropping
        return (-top, -bottom), (-left, -right)
    return None


def is_map(spec: keras.KerasTensor) -> bool:
    """Whether a tensor is a map `(B, H, W, C)` and no vector in the shape of one."""
    return len(spec.shape) == 4


def _pair(value) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second
