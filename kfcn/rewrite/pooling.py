"""Pooling with holes: what a strided pooling becomes once an earlier stride is removed."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kfcn")
class DilatedPooling2D(keras.layers.Layer):
    """Max or average pooling at stride 1 over a window whose cells stand `dilation_rate` apart.

    Keras has no such layer, and TensorFlow's own `tf.nn.pool(dilations=...)` knows no explicit
    padding. The window is separable, so it is a maximum (or sum) of shifted slices along the rows,
    then along the columns; these are built-in operations in TFLite.

    Args:
        pool_size: window `(height, width)` in cells.
        dilation_rate: distance `(y, x)` of the window's cells.
        mode: "max" or "average". Padding is never part of an average, as in Keras.
        pads: `((top, bottom), (left, right))` cells added around the map. A window that holds
            nothing else gives 0, as a convolution without bias does: `to_atrous` has such windows
            at the end of a map of fixed size that the removed stride does not divide.

    A saved model that holds it loads once `kfcn.rewrite` is imported: that registers the layer
    (`import kfcn` alone does not, it imports nothing).

    Input and output: `(B, H, W, C)`; H grows by `top + bottom - (height - 1) * dilation`.
    """

    def __init__(
        self,
        pool_size: Sequence[int],
        dilation_rate: Sequence[int] = (1, 1),
        mode: str = "max",
        pads: Sequence[Sequence[int]] = ((0, 0), (0, 0)),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if mode not in ("max", "average"):
            raise ValueError(f"mode must be 'max' or 'average'. Received: {mode!r}")
        self.pool_size = tuple(pool_size)
        self.dilation_rate = tuple(dilation_rate)
        self.mode = mode
        self.pads = tuple(tuple(pair) for pair in pads)
        self.built = True  # no weights

    def call(self, inputs: Any) -> Any:
        """Pools `(B, H, W, C)`."""
        if self.mode == "max":
            # Padding must lose against any value; 65504 is float16's largest number.
            low = -65504.0 if self.compute_dtype == "float16" else -3.38e38
            top = self._slide(self._pad(inputs, low), ops.maximum)
            return ops.where(self._counts(inputs) > 0, top, 0.0) if self.beyond() else top
        total = self._slide(self._pad(inputs, 0.0), ops.add)
        if self.pads == ((0, 0), (0, 0)):
            return total / (self.pool_size[0] * self.pool_size[1])
        counts = self._counts(inputs)
        return total / (ops.maximum(counts, 1.0) if self.beyond() else counts)

    def beyond(self) -> bool:
        """Whether some windows hold padding alone."""
        sides = zip(self.pool_size, self.dilation_rate, self.pads, strict=True)
        return any(max(pair) > (size - 1) * rate for size, rate, pair in sides)

    def _counts(self, inputs):
        """How many cells of the map each window holds, `(1, H', W', 1)`."""
        ones = ops.ones_like(inputs[:1, :, :, :1])
        return self._slide(self._pad(ones, 0.0), ops.add)

    def _pad(self, x, value):
        if self.pads == ((0, 0), (0, 0)):
            return x
        return ops.pad(x, ((0, 0), *self.pads, (0, 0)), constant_values=value)

    def _slide(self, x, combine):
        for axis, (size, rate) in enumerate(
            zip(self.pool_size, self.dilation_rate, strict=True), start=1
        ):
            reach = (size - 1) * rate
            parts = []
            for start in range(0, reach + 1, rate):
                stop = start - reach or None  # counted from the end: the size may be unknown
                span = slice(start, stop)
                parts.append(x[:, span] if axis == 1 else x[:, :, span])
            x = parts[0]
            for part in parts[1:]:
                x = combine(x, part)
        return x

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """The shape of the map, with None where the input's is unknown."""
        spatial = [
            None if length is None else length + sum(pair) - (size - 1) * rate
            for length, pair, size, rate in zip(
                input_shape[1:3], self.pads, self.pool_size, self.dilation_rate, strict=True
            )
        ]
        return (input_shape[0], *spatial, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "dilation_rate": self.dilation_rate,
            "mode": self.mode,
            "pads": self.pads,
        }
