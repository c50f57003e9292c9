"""From a trained model of any input size to a graph of one size that a phone runs well.

`fix_size` rebuilds a kfcn model at one height and width:

- batch normalisation is folded into the convolution before it;
- a trim to another tensor's size, which looks its indices up at run time, becomes a slice;
- a transposed convolution whose kernel is the fixed bilinear one becomes a resize.

The labels do not change. The result is a Keras model like any other, so that equalisation, bias
correction and quantisation-aware training work on it; `export_tflite` writes it as TFLite.
"""

import tempfile

import keras
import numpy as np
from keras import ops

from kfcn.errors import KfcnError
from kfcn_tools.convert.int8.channels import is_depthwise, plain_convolution, producer


def fix_size(model: keras.Model, height: int, width: int, exact_logits: bool = False):
    """Rebuilds a model for images of one size.

    Args:
        model: functional, input (B, H, W, 3) float RGB 0..255, output (B, H, W, C) logits.
        height: of the images, in pixels.
        width: of the images, in pixels.
        exact_logits: keeps the logits themselves. Otherwise those in the outer half stride of the
            image may be scaled by a positive factor, the same for all classes, which leaves the
            labels as they are and saves a padding and a slice at full size.

    Returns:
        A model of input (1, height, width, 3), with weights of its own.
    """
    trims = _trim_indices(model, height, width)
    folded = _foldable_norms(model)
    convs = {conv.name: norm for norm, conv in folded.values()}
    last = _last_upsampling(model)
    grouped = _grouped_upsampling(model)

    def clone(layer):
        config = layer.get_config()
        if layer.name in convs:
            config["use_bias"] = True
        return layer.__class__.from_config(config)

    def call(operation, *args, **kwargs):
        kwargs.pop("training", None)
        name = operation.name
        if name in folded or isinstance(
            operation, keras.layers.Dropout | keras.layers.SpatialDropout2D
        ):
            return args[0]
        if name in grouped:
            return grouped[name](args[0])
        if name in trims:
            return _static_take(args[0], trims[name], operation.axis)
        if not isinstance(operation, keras.layers.Layer):
            return operation(*args, **kwargs)
        source = model.get_layer(name)
        if (stride := bilinear_stride(source)) is not None:
            return upsample(args[0], stride, attenuate=exact_logits or name != last)
        outputs = operation(*args, **kwargs)
        if name in convs:
            operation.set_weights(fold(source, convs[name]))
        else:
            operation.set_weights(source.get_weights())
        return outputs

    inputs = keras.Input(batch_shape=(1, height, width, 3), name="image")
    rebuilt = keras.models.clone_model(
        model,
        # The inputs of a model may stand in a list.
        input_tensors=keras.tree.map_structure(lambda _: inputs, model.input),
        clone_function=clone,
        call_function=call,
    )
    rebuilt = keras.Model(inputs, rebuilt.outputs[0], name=model.name)
    if tuple(rebuilt.output.shape[:3]) != (1, height, width):
        raise KfcnError(
            f"the model gives {tuple(rebuilt.output.shape[1:3])} for an image of {height}x{width};"
            " expected logits of the image's size"
        )
    return rebuilt


def bilinear_stride(layer) -> int | None:
    """The stride of a transposed convolution that does fixed bilinear upsampling, else None.

    True where the kernel is (2s, 2s, C, C), zero between different classes and the bilinear
    kernel on the diagonal to the last float32 digit or so, there is no bias or activation, and
    the padding is "same".
    """
    if not isinstance(layer, keras.layers.Conv2DTranspose) or layer.use_bias:
        return None
    stride = layer.strides[0]
    kernel = layer.get_weights()[0]
    plain = layer.padding == "same" and layer.activation is keras.activations.linear
    square = layer.strides == (stride, stride) and layer.dilation_rate == (1, 1)
    if not (plain and square and layer.output_padding is None):
        return None
    if kernel.shape[:2] != (2 * stride, 2 * stride) or kernel.shape[2] != kernel.shape[3]:
        return None
    ramp = 1 - np.abs((np.arange(2 * stride) - stride + 0.5) / stride)
    expected = np.multiply.outer(np.outer(ramp, ramp), np.eye(kernel.shape[2]))
    return stride if np.allclose(kernel, expected, rtol=0, atol=1e-6) else None


def upsample(x, stride: int, attenuate: bool = True):
    """What a bilinear transposed convolution with "same" padding gives, as a resize.

    The transposed convolution sees zeros around its input, so its outer stride / 2 rows and
    columns are attenuated; a resize repeats the edge instead. Resizing the zero-padded input and
    cutting the padding off again attenuates them equally.

    Args:
        x: (B, h, w, C) with static h and w.
        stride: the factor.
        attenuate: False leaves the padding out: the outer stride / 2 rows and columns are then
            larger by a factor that is the same for all channels.
    """
    if attenuate:
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1] * stride, x.shape[2] * stride
    x = ops.image.resize(x, (height, width), interpolation="bilinear")
    return x[:, stride:-stride, stride:-stride] if attenuate else x


def fold(conv, norm) -> list[np.ndarray]:
    """Kernel and bias of a convolution with the batch normalisation after it folded in."""
    kernel = conv.get_weights()[0].astype(np.float64)
    bias = conv.get_weights()[1] if conv.use_bias else 0.0
    mean, variance = (np.asarray(v, np.float64) for v in (norm.moving_mean, norm.moving_variance))
    gain = 1 / np.sqrt(variance + norm.epsilon)
    gain *= np.asarray(norm.gamma, np.float64) if norm.scale else 1.0
    shift = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    # A depthwise kernel is (kh, kw, C, multiplier), its output channel C * multiplier.
    shaped = gain.reshape(kernel.shape[2:]) if is_depthwise(conv) else gain
    return [
        (kernel * shaped).astype(np.float32),
        ((bias - mean) * gain + shift).astype(np.float32),
    ]


def export_tflite(model: keras.Model, mode: str = "float32", output: str = "labels") -> bytes:
    """Writes a model of fixed size as TFLite.

    Args:
        model: what `fix_size` gave.
        mode: "float32"; "float16" stores the weights in half precision; "dynamic" stores them in
            int8 and quantises activations while it runs.
        output: "labels" gives the signature `segment`, uint8 RGB (1, H, W, 3) `image` in, uint8
            (1, H, W) `labels` out; "logits" gives the signature `logits`, float32 (1, H, W, C).

    Returns:
        The file's content.
    """
    import tensorflow as tf

    from kfcn.crf import builtin_ops

    def logits(image):
        return {"logits": model(tf.cast(image, tf.float32), training=False)}

    def segment(image):
        labels = tf.argmax(logits(image)["logits"], axis=-1, output_type=tf.int32)
        return {"labels": tf.cast(labels, tf.uint8)}

    name, function = ("segment", segment) if output == "labels" else ("logits", logits)
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = tf.TensorSpec(model.input.shape, tf.uint8, name="image")
    with tempfile.TemporaryDirectory(prefix="kfcn-export-") as folder:
        with builtin_ops():  # adding the endpoint traces, and so may writing
            archive.add_endpoint(name, function, input_signature=[spec])
            archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[name])
        if mode != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if mode == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def _trim_indices(model, height, width) -> dict[str, np.ndarray]:
    """The indices that each `keras.ops.take` uses at this size, by operation name.

    They follow from sizes alone: two unlike images must give the same ones.
    """
    takes = [op for op in model.operations if type(op).__name__ == "Take"]
    takes = [op for op in takes if _symbolic_indices(op) is not None]
    if not takes:
        return {}
    indices = keras.Function(model.inputs, [_symbolic_indices(op) for op in takes])
    rng = np.random.default_rng(0)
    first, second = (
        [np.asarray(i) for i in indices([rng.uniform(0, 255, (1, height, width, 3)) * scale])]
        for scale in (np.float32(0), np.float32(1))
    )
    for op, a, b in zip(takes, first, second, strict=True):
        if not np.array_equal(a, b):
            raise KfcnError(f"{op.name}: its indices depend on the image; expected on sizes alone")
    return {op.name: i for op, i in zip(takes, first, strict=True)}


def _symbolic_indices(take):
    arguments = take._inbound_nodes[0].arguments
    indices = arguments.kwargs.get("indices", arguments.args[1] if arguments.args[1:] else None)
    return indices if isinstance(indices, keras.KerasTensor) else None


def _static_take(x, indices, axis: int):
    """`take` with known indices `0, 1, ..., n - 1, n - 1, ...` along the axis, as slices."""
    kept = int(indices.max()) + 1
    if not np.array_equal(indices, np.minimum(np.arange(len(indices)), kept - 1)):
        return ops.take(x, indices, axis=axis)

    def cut(start, stop):
        return x[(slice(None),) * axis + (slice(start, stop),)]

    body = x if kept == x.shape[axis] else cut(0, kept)
    # Where x is short, its last row is repeated.
    missing = len(indices) - kept
    return ops.concatenate([body, *[cut(kept - 1, kept)] * missing], axis) if missing else body


def _foldable_norms(model) -> dict:
    """Batch normalisations that alone follow a convolution: name -> (layer, convolution)."""
    found = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        conv = producer(layer.input)
        alone = len(conv._outbound_nodes) == 1
        if plain_convolution(conv) and alone and conv.activation is keras.activations.linear:
            found[layer.name] = (layer, conv)
    return found


def _source(operation):
    """The operation that gives an operation's first input."""
    return producer(operation._inbound_nodes[0].input_tensors[0])


def _grouped_upsampling(model) -> dict:
    """What stands in for the parts of a bilinear upsampling that goes group by group.

    With many classes kfcn splits the channels, puts one shared transposed convolution on each full
    group and a smaller one on what remains, and joins the results. A resize is linear in the
    channels as it is: every part is given the whole map, and the first of the results is taken.
    """
    stand_ins = {}
    for join in model.layers:
        if not isinstance(join, keras.layers.Concatenate):
            continue
        tensors = join._inbound_nodes[0].input_tensors
        layers = {producer(tensor) for tensor in tensors}
        if {bilinear_stride(layer) is not None for layer in layers} != {True}:
            continue
        nodes = [node for layer in layers for node in layer._inbound_nodes]
        splits = {producer(node.input_tensors[0]) for node in nodes}
        split = splits.pop()
        if splits or type(split).__name__ != "Split":
            continue
        parts = len(tensors)
        stand_ins[split.name] = lambda x, parts=parts: [x] * parts
        stand_ins[join.name] = lambda x: x[0]
    return stand_ins


def _last_upsampling(model) -> str | None:
    """The bilinear upsampling after which only trims and joins come, if there is one."""
    operation = producer(model.outputs[0])
    while type(operation).__name__ in ("Take", "GetItem", "Concatenate"):
        operation = _source(operation)
    return operation.name
