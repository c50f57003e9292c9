"""What a net of kfcn does while it is traced, in the operations that TensorFlow is quickest at.

A saved net is made of stock layers that work for any size, and some of them are slow: Keras spells
batch normalisation out over the whole map, `kfcn.upsample` enlarges by a transposed convolution
between all classes and cuts by gathers. The layers stay as they are; only what they do while a
function is traced is replaced, by operations that give the same values to rounding.

`run_net` is the forward pass for inference; `kfcn.training.step` traces its own.
"""

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np

_FUNCTIONS = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def run_net(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What `model.predict_on_batch` gives, sooner.

    Args:
        model: `(B, H, W, 3)` to one output.
        images: float32 `(B, H, W, 3)`.

    Returns:
        The model's output, to rounding.
    """
    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch(images)
    with _LOCK:  # Beam's workers are threads
        if model not in _FUNCTIONS:
            _FUNCTIONS[model] = _function(model)
        forward = _FUNCTIONS[model]
    return forward(images).numpy()


def _function(model):
    """The traced forward pass; it holds the model weakly, as it is kept as long as the model."""
    import tensorflow as tf

    channelwise = channelwise_enlargements(model)
    model = weakref.ref(model)

    @tf.function(reduce_retracing=True)
    def forward(images):
        net = model()
        with (
            calls_as(norms(net), _norm),
            folded_norms(net),
            cuts_as_slices(net),
            enlarged_by_channel(net, channelwise),
        ):
            return net(images, training=False)

    return forward


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


# Cuts


def cuts_as_slices(model: keras.Model):
    """Has the gathers of `kfcn.upsample.match_size` done by slices in what is traced inside.

    Where both sizes are known while it is traced. The gradient of a gather adds up row by row
    and transposes twice, a sixteenth of a MobileNetV2 step; that of a slice pads.
    """
    return calls_as(filter(_is_cut, model.operations), _cut)


def _is_cut(operation) -> bool:
    """Whether this gathers along a line of positions that stops at the last one."""
    if type(operation).__name__ != "Take" or len(operation._inbound_nodes) != 1:
        return False
    _, *indices = operation._inbound_nodes[0].input_tensors
    return [type(x._keras_history.operation).__name__ for x in indices] == ["Minimum"]


def _cut(operation, usual, x, indices):
    """`Take.call` for the indices min(0 .. n-1, last) of `match_size`."""
    import tensorflow as tf

    axis, wanted = operation.axis, indices.shape[0]
    if axis not in (1, 2) or len(x.shape) != 4 or None in (wanted, x.shape[axis]):
        return usual(x, indices)
    short = wanted - x.shape[axis]
    if short == 0:
        return x
    if short < 0:
        return x[:, :wanted] if axis == 1 else x[:, :, :wanted]
    last = x[:, -1:] if axis == 1 else x[:, :, -1:]
    return tf.concat([x, *[last] * short], axis)


# Enlargements


def channelwise_enlargements(model: keras.Model) -> list[str]:
    """Names of the fixed transposed convolutions whose kernel is zero between different channels.

    For `enlarged_by_channel`; they are told by their weights, so call it before tracing. None where
    there is a GPU: only CPUs were measured.
    """
    layers = [] if _gpu() else model.layers
    return [x.name for x in layers if isinstance(x, keras.layers.Conv2DTranspose) and _diagonal(x)]


@contextlib.contextmanager
def enlarged_by_channel(model: keras.Model, names: Iterable[str]) -> Iterator[None]:
    """Has transposed convolutions done as the transpose of depthwise ones in what is traced inside.

    That is linear in the channels, where a dense one is quadratic: at 21 classes 2.5 times, at 81
    5 to 6 times as fast, forward and back. Where `kfcn.upsample` has split the channels into
    groups, they are enlarged as one.

    Args:
        model: the net.
        names: what `channelwise_enlargements` found in it.
    """
    layers = [model.get_layer(name) for name in names]
    with contextlib.ExitStack() as stack:
        stack.enter_context(calls_as(layers, lambda layer, usual, x: _enlarge(x, [layer])))
        for split, parts, joined in _grouped(model, layers):
            group = _Group(parts)
            stack.enter_context(calls_as([split], group.split))
            stack.enter_context(calls_as(dict.fromkeys(parts), group.part))
            stack.enter_context(calls_as([joined], group.join))
        yield


class _Group:
    """Hands the whole map from where it is split to where its parts are joined again."""

    def __init__(self, parts):
        self.parts, self.whole = parts, None

    def split(self, operation, usual, x):
        self.whole = x
        return usual(x)

    def part(self, layer, usual, x):
        return x  # for `join`, which has no use for it

    def join(self, layer, usual, inputs):
        return _enlarge(self.whole, self.parts)


def _grouped(model, layers):
    """Splits, the layers of their parts in order, and where the parts are joined again."""
    for joined in model.layers:
        if not isinstance(joined, keras.layers.Concatenate) or joined.axis not in (-1, 3):
            continue
        histories = [x._keras_history for x in joined.input]
        parts = [history.operation for history in histories]
        if not all(part in layers for part in parts):
            continue
        inputs = [h.operation._inbound_nodes[h.node_index].input_tensors[0] for h in histories]
        sources = [x._keras_history for x in inputs]
        split = sources[0].operation
        in_order = [(h.operation, h.tensor_index) for h in sources] == [
            (split, index) for index in range(len(parts))
        ]
        if type(split).__name__ == "Split" and in_order:
            yield split, parts, joined


def _diagonal(layer) -> bool:
    if layer.trainable or layer.output_padding is not None or not _plain(layer):
        return False
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    square = kernel.shape[-1] == kernel.shape[-2]
    return square and not kernel[:, :, ~np.eye(kernel.shape[-1], dtype=bool)].any()


def _plain(layer) -> bool:
    """Whether a convolution of `(B, H, W, C)` is nothing more, with equal strides and no holes."""
    return (
        not layer.use_bias
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and set(layer.dilation_rate) == {1}
        and len(set(layer.strides)) == 1
    )


def _gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _enlarge(x, parts):
    """What the layers `parts`, which differ in their channels only, make of all channels of x."""
    import tensorflow as tf

    layer, stride = parts[0], parts[0].strides[0]
    beyond = [0 if layer.padding == "same" else size - stride for size in layer.kernel_size]
    shape = [
        x.shape[0],
        *(n and n * stride + more for n, more in zip(x.shape[1:3], beyond, strict=True)),
        x.shape[3],
    ]
    now = tf.shape(x)
    later = [now[0], now[1] * stride + beyond[0], now[2] * stride + beyond[1], x.shape[3]]
    kernels = [tf.linalg.diag_part(tf.convert_to_tensor(part.kernel)) for part in parts]
    enlarged = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=[n or m for n, m in zip(shape, later, strict=True)],
        filter=tf.cast(tf.concat(kernels, -1)[..., None], x.dtype),  # (k, k, C, 1)
        out_backprop=x,
        strides=[1, stride, stride, 1],
        padding=layer.padding.upper(),
    )
    return tf.ensure_shape(enlarged, shape)


# Depthwise convolutions of 5x5


def kernel_gradients_in_parts(model: keras.Model):
    """Has the gradients of 5x5 depthwise kernels taken as four of 3x3 in what is traced inside.

    For 3x3 there is a quick operation; the one for 5x5 takes two to three times as long as four of
    these, and was a sixth of MobileNetV3's training step. Nothing is changed where there is a GPU.
    """
    layers = [] if _gpu() else model.layers
    return calls_as(
        [
            x
            for x in layers
            if isinstance(x, keras.layers.DepthwiseConv2D)
            and _plain(x)
            and tuple(x.kernel_size) == (5, 5)
        ],
        _depthwise_5x5,
    )


def _depthwise_5x5(layer, usual, inputs):
    """`DepthwiseConv2D.call`, with that gradient."""
    import tensorflow as tf

    geometry = {
        "strides": [1, layer.strides[0], layer.strides[0], 1],
        "padding": layer.padding.upper(),
    }

    @tf.custom_gradient
    def convolve(inputs, kernel):
        def gradient(above):
            by_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=above, **geometry
            )
            return by_inputs, _kernel_gradient(layer, _padded(inputs, layer), above)

        outputs = tf.raw_ops.DepthwiseConv2dNative(input=inputs, filter=kernel, **geometry)
        return outputs, gradient

    return convolve(inputs, tf.cast(tf.convert_to_tensor(layer.kernel), inputs.dtype))


def _padded(inputs, layer):
    """The inputs with the zeros that the padding 'same' adds."""
    import tensorflow as tf

    if layer.padding == "valid":
        return inputs
    size, stride = tf.shape(inputs)[1:3], layer.strides[0]
    total = tf.maximum((-(-size // stride) - 1) * stride + 5 - size, 0)
    before = total // 2
    pads = tf.stack([before, total - before], 1)  # (2, 2)
    return tf.pad(inputs, tf.concat([[[0, 0]], pads, [[0, 0]]], 0))


def _kernel_gradient(layer, inputs, above):
    """`(5, 5, C, m)` from padded inputs, by windows of 3x3 that begin at row and column 0 and 2."""
    import tensorflow as tf

    stride = layer.strides[0]
    reach = [(n - 1) * stride + 3 for n in tf.unstack(tf.shape(above)[1:3])]

    def part(row, column):
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=inputs[:, row : row + reach[0], column : column + reach[1]],
            filter_sizes=[3, 3, *layer.kernel.shape[2:]],
            out_backprop=above,
            strides=[1, stride, stride, 1],
            padding="VALID",
        )

    upper, lower = (tf.concat([part(row, 0), part(row, 2)[:, 1:]], 1) for row in (0, 2))
    return tf.concat([upper, lower[1:]], 0)


# Batch normalisation


def norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The batch normalisation layers of a net."""
    return [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]


def scale_and_offset(layer: keras.layers.BatchNormalization):
    """Gamma and beta as float32 `(C,)`, ones and zeros where the layer has none."""
    import tensorflow as tf

    channels = layer.moving_mean.shape[0]
    scale = layer.gamma if layer.scale else tf.ones(channels)
    offset = layer.beta if layer.center else tf.zeros(channels)
    return tuple(tf.cast(tf.convert_to_tensor(vector), tf.float32) for vector in (scale, offset))


def _moving(layer):
    """Mean and variance as float32 `(C,)`."""
    import tensorflow as tf

    return tuple(
        tf.cast(tf.convert_to_tensor(moving), tf.float32)
        for moving in (layer.moving_mean, layer.moving_variance)
    )


def _norm(layer, usual, inputs, training=None, mask=None):
    """`BatchNormalization.call` of maps `(B, H, W, C)` by the moving statistics."""
    import tensorflow as tf

    if layer.axis not in (-1, 3) or len(inputs.shape) != 4 or training or mask is not None:
        return usual(inputs, training=training, mask=mask)
    scale, offset = scale_and_offset(layer)
    mean, variance = _moving(layer)
    return tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=layer.epsilon,
        is_training=False,
    )[0]


@contextlib.contextmanager
def folded_norms(model: keras.Model) -> Iterator[None]:
    """Has depthwise convolutions do the batch normalisation behind them in what is traced inside.

    For inference. Behind other convolutions TensorFlow itself joins the two; here the
    normalisation was a third of MobileNetV2's time. The scale goes into the kernel, which has few
    numbers, whenever the function is called: new weights are followed.
    """
    pairs = [(norm, _depthwise_before(norm)) for norm in norms(model)]
    with contextlib.ExitStack() as stack:
        for norm, convolution in pairs:
            if convolution is not None:
                stack.enter_context(calls_as([convolution], functools.partial(_folded, norm)))
                stack.enter_context(calls_as([norm], _done_before))
        yield


def _depthwise_before(norm):
    """The depthwise convolution that has this normalisation as its only successor, or None."""
    if len(norm._inbound_nodes) != 1 or norm.axis not in (-1, 3):
        return None
    layer = norm.input._keras_history.operation
    alone = len(layer._inbound_nodes) == len(layer._outbound_nodes) == 1
    if not isinstance(layer, keras.layers.DepthwiseConv2D) or not alone:
        return None
    plain = layer.activation is keras.activations.linear and not layer.use_bias
    return layer if plain and layer.data_format == "channels_last" else None


def _folded(norm, layer, usual, inputs):
    """`DepthwiseConv2D.call` and the normalisation behind it."""
    import tensorflow as tf

    scale, offset = scale_and_offset(norm)
    mean, variance = _moving(norm)
    scale *= tf.math.rsqrt(variance + norm.epsilon)
    kernel = tf.convert_to_tensor(layer.kernel)
    factor = tf.cast(tf.reshape(scale, kernel.shape[2:]), kernel.dtype)
    outputs = keras.ops.depthwise_conv(
        inputs,
        tf.cast(kernel * factor, inputs.dtype),
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )
    return tf.nn.bias_add(outputs, tf.cast(offset - mean * scale, outputs.dtype))


def _done_before(layer, usual, inputs, training=None, mask=None):
    return inputs
