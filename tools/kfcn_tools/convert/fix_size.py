"""From a trained model of any input size to a graph of one size that a phone runs well.

`fix_size` rebuilds a kfcn model at one height and width:

- batch normalisation is folded into the convolution before it;
- a trim to another tensor's size, which looks its indices up at run time, becomes a slice;
- a transposed convolution whose kernel is the fixed bilinear one becomes a resize.

The labels do not change. The result is a Keras model like any other, so that equalisation, bias
correction and quantisation-aware training work on it; `kfcn_tools.convert.tflite` writes it.
"""

import keras
import numpy as np
from keras import ops

from kfcn.errors import KfcnError
from kfcn.fused.norms import fold, foldable
from kfcn.graph import inputs, is_operation, producer
from kfcn.nets.upsample import Enlargement, enlargements, trims
from kfcn.rewrite.walker import give_weights


def fix_size(
    model: keras.Model, height: int, width: int, exact_logits: bool = False
) -> keras.Model:
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
    trimmed = _trim_indices(model, height, width)
    norms = {norm.name for norm, _ in foldable(model)}
    folded = {conv.name: norm for norm, conv in foldable(model)}
    bilinear = [x for x in enlargements(model) if x.is_bilinear]
    strides = {layer.name: x.stride for x in bilinear for layer in x.layers}
    last = _last_upsampling(model, bilinear)
    grouped = _without_groups(bilinear)

    def clone(layer):
        config = layer.get_config()
        if layer.name in folded:
            config["use_bias"] = True
        return layer.__class__.from_config(config)

    def call(operation, *args, **kwargs):
        kwargs.pop("training", None)
        name = operation.name
        if name in norms or isinstance(
            operation, keras.layers.Dropout | keras.layers.SpatialDropout2D
        ):
            return args[0]
        if name in grouped:
            return grouped[name](args[0])
        if name in trimmed:
            return _static_take(args[0], trimmed[name], operation.axis)
        if not isinstance(operation, keras.layers.Layer):
            return operation(*args, **kwargs)
        source = model.get_layer(name)
        if name in strides:
            return upsample(args[0], strides[name], attenuate=exact_logits or name != last)
        outputs = operation(*args, **kwargs)
        if name in folded:
            operation.set_weights([ops.convert_to_numpy(x) for x in fold(source, folded[name])])
        else:
            give_weights(operation, source.get_weights())
        return outputs

    image = keras.Input(batch_shape=(1, height, width, 3), name="image")
    rebuilt = keras.models.clone_model(
        model,
        # The inputs of a model may stand in a list.
        input_tensors=keras.tree.map_structure(lambda _: image, model.input),
        clone_function=clone,
        call_function=call,
    )
    rebuilt = keras.Model(image, rebuilt.outputs[0], name=model.name)
    if tuple(rebuilt.output.shape[:3]) != (1, height, width):
        raise KfcnError(
            f"the model returns {tuple(rebuilt.output.shape[1:3])} for an image of "
            f"{height}x{width}; expected logits of the image's size"
        )
    return rebuilt


def upsample(x: keras.KerasTensor, stride: int, attenuate: bool = True) -> keras.KerasTensor:
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


def _trim_indices(model, height, width) -> dict[str, np.ndarray]:
    """The indices that the trims of a net use at this size, by operation name."""
    found = trims(model)
    if not found:
        return {}
    indices = keras.Function(model.inputs, [trim.indices for trim in found])
    values = indices([np.zeros((1, height, width, 3), np.float32)])
    return {trim.operation.name: np.asarray(each) for trim, each in zip(found, values, strict=True)}


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


def _without_groups(bilinear: list[Enlargement]) -> dict:
    """What stands in for splitting and joining where an enlargement goes group by group.

    A resize is linear in the channels as it is: every part is given the whole map, and the first
    of the results is taken.
    """
    stand_ins = {}
    for enlargement in bilinear:
        if enlargement.split is not None and enlargement.join is not None:
            parts = len(enlargement.parts)
            stand_ins[enlargement.split.name] = lambda x, parts=parts: [x] * parts
            stand_ins[enlargement.join.name] = lambda x: x[0]
    return stand_ins


def _last_upsampling(model, bilinear: list[Enlargement]) -> str:
    """The operation after which only trims come, and the join of an enlargement by groups."""
    joins = {enlargement.join.name for enlargement in bilinear if enlargement.join is not None}
    operation = producer(model.outputs[0])
    while is_operation(operation, "Take", "GetItem") or operation.name in joins:
        operation = producer(inputs(operation)[0])
    return operation.name
