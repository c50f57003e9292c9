import keras
import numpy as np
import pytest
from small_nets import TINY, fit_statistics, needs_bfloat16, randomize, u_net

import kfcn
from kfcn.fused import depthwise, run_net
from kfcn.fused import enlargements as fused_enlargements
from kfcn.fused.clipped import clipped_after
from kfcn.fused.cuts import slices
from kfcn.fused.depthwise import depthwise_convolutions
from kfcn.fused.enlargements import by_channel
from kfcn.fused.inference import _function
from kfcn.fused.norms import fold
from kfcn.fused.training import training_forward
from kfcn.graph import replay
from kfcn.machine import onednn_is_on
from kfcn.nets.upsample import enlargements, match_size, upsample


def traced(net, values, instead=None, known=True):
    """Outputs of a net, the gradients of their squares by inputs and weights, and operations.

    Of the net itself, or replayed with functions in the place of operations.
    """
    import tensorflow as tf

    weights = net.trainable_variables

    def step(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs = net(values) if instead is None else replay(net, values, instead)
            loss = tf.reduce_sum(tf.square(outputs))
        return outputs, *tape.gradient(loss, [values, *weights])

    shape = values.shape if known else (None, None, None, values.shape[-1])
    function = tf.function(step, input_signature=[tf.TensorSpec(shape)])
    graph = function.get_concrete_function().graph
    return function(values), [operation.type for operation in graph.get_operations()]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_equals_keras_own_inference(size):
    model = fit_statistics(randomize(kfcn.fcn8s(4, **TINY)))
    images = np.random.default_rng(0).uniform(0, 255, (2, *size, 3)).astype("float32")
    usual, fused = model.predict_on_batch(images), run_net(model, images)
    assert fused.dtype == np.float32 and fused.shape == (2, *size, 4)
    spread = usual.std()
    assert np.abs(usual - fused).max() < 1e-4 * spread
    # The control: statistics of the batch would give something else.
    assert np.abs(usual - np.asarray(model(images, training=True))).max() > 1e-2 * spread


def test_norms_are_folded_and_the_net_stays_as_it_was():
    model = kfcn.fcn8s(4, **TINY)
    before = [(id(operation), dict(vars(operation))) for operation in model.operations]
    graph = _function(model).get_concrete_function(keras.ops.zeros((1, 32, 32, 3))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert "FusedBatchNormV3" not in kinds and "GatherV2" not in kinds
    assert kinds.count("DepthwiseConv2dNative") == 17 and kinds.count("Conv2D") == 38
    assert [(id(operation), vars(operation)) for operation in model.operations] == before


def test_relu6_in_two_operations_has_the_same_bits():
    image = keras.Input((None, None, 3))
    x = keras.layers.ReLU(6.0, name="clipped")(image)
    x = keras.layers.Activation("relu6", name="named")(x * 2)
    for name, options in (("plain", {}), ("leaky", {"max_value": 6, "negative_slope": 0.1})):
        x = keras.layers.ReLU(**options, name=name)(x + 1)
    net = keras.Model(image, x)
    values = keras.ops.convert_to_tensor(
        np.r_[-np.inf, -1, -0.0, 0, 1.5, 3, 3.0000002, 5.9999995, 6, 7, np.inf, np.nan]
        .astype(np.float32)
        .reshape(1, 2, 2, 3)
    )
    instead = clipped_after(net)
    assert {layer.name for layer in instead} == {"clipped", "named"}
    (usual, *_), kinds = traced(net, values)
    (ours, *_), ours_kinds = traced(net, values, instead)
    np.testing.assert_array_equal(ours, usual)
    assert kinds.count("Relu6") == ours_kinds.count("Relu6") + 2  # "leaky" has one of its own


def test_inference_joins_no_relu6_to_a_convolution():
    model = kfcn.fcn8s(4, **TINY)
    graph = _function(model).get_concrete_function(keras.ops.zeros((1, 32, 32, 3))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert "Relu6" not in kinds and kinds.count("Relu") == sum(map(_clips, model.layers)) > 30


def _clips(layer):
    return isinstance(layer, keras.layers.ReLU) and layer.max_value == 6


def test_a_training_step_sees_the_variables_and_the_training_layers():
    """Against Keras' own forward pass: values, gradients, moving statistics, dropout."""
    import tensorflow as tf

    def found(forward):
        keras.utils.set_random_seed(0)
        image = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(4, 3, 2, use_bias=False)(image)
        x = keras.layers.BatchNormalization(momentum=0.5)(x)
        x = keras.layers.Dropout(0.5, seed=3)(x)
        x = upsample(x, 2, "up")
        model = keras.Model(image, keras.layers.Conv2D(2, 1)(match_size(x, image)))
        images = tf.random.stateless_uniform((2, 13, 10, 3), (0, 0))
        run = forward(model)

        @tf.function
        def step(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(run(images)))
            return loss, tape.gradient(loss, model.trainable_variables)

        loss, gradients = step(images)
        return [loss, *gradients, *model.non_trainable_variables]

    ours = found(training_forward)
    theirs = found(lambda model: lambda images: model(images, training=True))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    control = found(lambda model: lambda images: model(images, training=False))
    assert abs(float(control[0]) / float(theirs[0]) - 1) > 0.01


@needs_bfloat16
@pytest.mark.parametrize("way", ["training", "inference"])
def test_mixed_precision_keeps_the_dtypes_of_the_layers(way):
    import tensorflow as tf

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = kfcn.fcn8s(4, **TINY)
    finally:
        keras.config.set_dtype_policy(before)
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    function = tf.function(training_forward(model)) if way == "training" else _function(model)
    function = function.get_concrete_function(tf.TensorSpec(images.shape))
    kinds = ("Conv2D", "DepthwiseConv2dNative")
    used = {x.outputs[0].dtype for x in function.graph.get_operations() if x.type in kinds}
    assert used == {tf.bfloat16}
    assert function.structured_outputs.dtype == tf.float32  # as the last enlargement is


def test_folded_convolutions_give_the_values_of_the_pair():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 6, 4)).astype(np.float32)
    for conv in (
        keras.layers.Conv2D(5, 3, use_bias=True),
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
    ):
        norm = keras.layers.BatchNormalization()
        norm.build((None, 4, 4, 5 if isinstance(conv, keras.layers.Conv2D) else 8))
        conv.build(x.shape)
        for weight in (*conv.weights, *norm.weights):
            weight.assign(rng.uniform(0.2, 2.0, weight.shape))
        expected = np.asarray(norm(conv(x), training=False))
        config = conv.get_config() | {"use_bias": True}
        folded = type(conv).from_config(config)
        folded.build(x.shape)
        folded.set_weights([keras.ops.convert_to_numpy(x) for x in fold(conv, norm)])
        np.testing.assert_allclose(folded(x), expected, rtol=1e-4, atol=1e-4)


def test_a_norm_whose_map_others_need_is_not_folded():
    image = keras.Input((None, None, 3))
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, padding="same")(image)
    y = keras.layers.BatchNormalization()(x)
    model = randomize(keras.Model(image, keras.layers.Add()([x, y])))
    images = np.random.default_rng(0).uniform(0, 9, (1, 5, 6, 3)).astype("float32")
    np.testing.assert_allclose(
        run_net(model, images), model.predict_on_batch(images), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("stride", "channels", "offset"), [(8, 3, None), (2, 40, None), (4, 5, 3), (2, 3, 0)]
)
@pytest.mark.parametrize("known", [True, False])
def test_enlarging_by_channel_has_the_values_and_gradients_of_the_layer(
    stride, channels, offset, known, monkeypatch
):
    import tensorflow as tf

    monkeypatch.setattr(fused_enlargements, "onednn_is_on", lambda: True)
    x = keras.Input((None, None, channels))
    model = keras.Model(x, upsample(x, stride, "up", offset=offset))
    (found,) = enlargements(model)
    # Two groups of 16, a rest of 8.
    parts = ["up", "up", "up_rest"] if channels == 40 else ["up"]
    assert [part.name for part in found.parts] == parts
    for layer in found.layers:  # no two channels alike, to see their order
        kernel = layer.get_weights()[0]
        layer.set_weights([kernel * np.linspace(1, 2, kernel.shape[-1])])
    rng = np.random.default_rng(0)
    values = tf.constant(rng.normal(size=(2, 5, 3, channels)).astype("float32"))

    ours, kinds = traced(model, values, by_channel(model), known)
    theirs, usual = traced(model, values, known=known)
    assert kinds.count("DepthwiseConv2dNativeBackpropInput") == 1
    assert usual.count("Conv2DBackpropInput") == (3 if channels == 40 else 1)
    assert "Conv2DBackpropInput" not in kinds
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("on", [True, False])
def test_class_by_class_only_where_onednn_does_it(on, monkeypatch):
    """In inference and in training; TensorFlow's own kernel is slower than the dense layer."""
    import tensorflow as tf

    monkeypatch.setattr(fused_enlargements, "onednn_is_on", lambda: on)
    image = keras.Input((None, None, 3))
    model = keras.Model(image, upsample(image, 8, "up"))
    values = np.random.default_rng(0).normal(size=(1, 4, 5, 3)).astype("float32")
    for forward in (_function(model), tf.function(training_forward(model))):
        graph = forward.get_concrete_function(tf.TensorSpec(values.shape)).graph
        kinds = [operation.type for operation in graph.get_operations()]
        assert kinds.count("DepthwiseConv2dNativeBackpropInput") == on
        assert kinds.count("Conv2DBackpropInput") == (not on)
        np.testing.assert_allclose(forward(values), model(values), rtol=1e-5, atol=1e-5)


def test_what_mixes_classes_or_learns_is_not_done_by_channel(monkeypatch):
    monkeypatch.setattr(fused_enlargements, "onednn_is_on", lambda: True)

    def found(change=None, **options):
        x = keras.Input((None, None, 3))
        model = keras.Model(x, upsample(x, 4, "up", **options))
        if change:
            kernel = model.get_layer("up").get_weights()[0]
            kernel[change] = 1e-3
            model.get_layer("up").set_weights([kernel])
        return len(by_channel(model))

    assert found() == found(change=(0, 0, 1, 1)) == 1
    assert found(change=(0, 0, 0, 1)) == found(trainable=True) == 0


def test_follows_the_weights_and_the_size():
    image = keras.Input((None, None, 3))
    x = keras.layers.BatchNormalization(epsilon=0.0, name="norm")(image)
    model = keras.Model(image, x)
    model.get_layer("norm").set_weights(np.repeat([[2.0], [1.0], [10.0], [4.0]], 3, 1))
    # 2 * (30 - 10) / sqrt(4) + 1
    assert np.all(run_net(model, np.full((1, 2, 5, 3), 30, "float32")) == 21)
    model.get_layer("norm").set_weights(np.repeat([[2.0], [0.0], [10.0], [4.0]], 3, 1))
    assert np.all(run_net(model, np.full((3, 4, 2, 3), 30, "float32")) == 20)


@pytest.mark.parametrize(("size", "wanted"), [((5, 6), (5, 6)), ((7, 6), (5, 9)), ((3, 2), (6, 5))])
def test_cuts_by_slices_have_the_values_and_gradients_of_gathers(size, wanted):
    """Equal, too much, short by several; `match_size` itself is tested by hand elsewhere."""
    import tensorflow as tf

    x = keras.Input((None, None, 2))
    model = keras.Model(x, match_size(x, keras.ops.zeros((1, *wanted, 1))))
    model = keras.models.clone_model(model)  # as one that was saved and loaded
    rng = np.random.default_rng(0)
    values = tf.constant(rng.normal(size=(2, *size, 2)).astype("float32"))
    ours, kinds = traced(model, values, slices(model))
    theirs, usual = traced(model, values)
    assert "GatherV2" in usual and "GatherV2" not in kinds
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_other_gathers_stay_as_they_are():
    x = keras.Input((4, 5, 2))
    model = keras.Model(x, keras.ops.take(x, keras.ops.convert_to_tensor([2, 0]), axis=1))
    values = np.arange(40, dtype="float32").reshape(1, 4, 5, 2)
    np.testing.assert_array_equal(run_net(model, values), values[:, [2, 0]])


def test_cuts_of_unknown_sizes_stay_gathers():
    import tensorflow as tf

    x = keras.Input((None, None, 2))
    model = keras.Model(x, match_size(upsample(x, 2, "up"), x))
    values = np.random.default_rng(0).normal(size=(1, 2, 3, 2)).astype("float32")
    cut = tf.function(lambda x: replay(model, x, slices(model)))
    cut = cut.get_concrete_function(tf.TensorSpec((1, None, None, 2)))
    assert "GatherV2" in [operation.type for operation in cut.graph.get_operations()]
    np.testing.assert_array_equal(cut(values), model(values))


# Pads before the convolution, or how it pads itself; stride; size; whether the padding layer goes.
PADDINGS = [
    ("same", 1, (9, 6), True), ("same", 2, (9, 6), True), ("valid", 2, (10, 9), True),
    (((1, 2), (1, 2)), 2, (10, 8), True), (((1, 3), (1, 3)), 2, (10, 8), True),
    (((1, 3), (1, 3)), 2, (9, 8), False), (((2, 2), (2, 2)), 1, (9, 8), True),
    (((0, 1), (3, 1)), 1, (9, 8), False),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("onednn", ["avx512", "avx2", "off"])
@pytest.mark.parametrize(("padding", "stride", "size", "gone"), PADDINGS)
def test_depthwise_convolutions_and_their_gradients_are_those_of_the_layers(
    padding, stride, size, gone, onednn, kernel, known, monkeypatch
):
    import tensorflow as tf

    monkeypatch.setattr(depthwise, "onednn_is_on", lambda: onednn != "off")
    monkeypatch.setattr(depthwise, "onednn_lacks_avx512", lambda: onednn == "avx2")
    image = keras.Input((None, None, 3))
    pads = not isinstance(padding, str)
    if pads and kernel == 3:
        padding = tuple((max(before - 1, 0), after - (before > 0)) for before, after in padding)
    x = keras.layers.ZeroPadding2D(padding)(image * 1.5) if pads else image
    own = "valid" if pads else padding
    layer = keras.layers.DepthwiseConv2D(kernel, stride, own, use_bias=False)
    model = randomize(keras.Model(image, layer(x)))
    values = tf.constant(np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32"))

    ours, parts = traced(model, values, depthwise_convolutions(model), known)
    theirs, whole = traced(model, values, known=known)
    assert ours[2].shape == (kernel, kernel, 3, 1)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    if known:
        kind = "DepthwiseConv2dNativeBackpropFilter"
        assert whole.count(kind) == 1
        assert parts.count(kind) == 1
        if pads:
            assert (parts.count("Pad"), whole.count("Pad")) == (0 if gone else 1, 1)


@needs_bfloat16
@pytest.mark.skipif(not onednn_is_on(), reason="TensorFlow's own kernels add up too coarsely")
@pytest.mark.parametrize(("padding", "stride", "size", "gone"), PADDINGS)
def test_in_bfloat16_the_gradient_of_a_5x5_kernel_is_that_of_four_3x3(
    padding, stride, size, gone, monkeypatch
):
    """To rounding: 0.0064 of the largest number here, at most."""
    import tensorflow as tf

    monkeypatch.setattr(depthwise, "onednn_is_on", lambda: True)
    monkeypatch.setattr(depthwise, "onednn_lacks_avx512", lambda: False)
    rng = np.random.default_rng(0)
    start = keras.initializers.Constant(rng.normal(size=(5, 5, 3, 1)))
    values = tf.constant(rng.normal(size=(2, *size, 3)).astype("float32"))

    def net(dtype):
        image = keras.Input((None, None, 3))
        pads = not isinstance(padding, str)
        x = keras.layers.ZeroPadding2D(padding, dtype=dtype)(image) if pads else image
        own = "valid" if pads else padding
        layer = keras.layers.DepthwiseConv2D(
            5, stride, own, use_bias=False, dtype=dtype, depthwise_initializer=start
        )
        return keras.Model(image, keras.ops.cast(layer(x), "float32"))

    model = net("mixed_bfloat16")
    (*_, ours), parts = traced(model, values, depthwise_convolutions(model))
    (*_, theirs), _ = traced(net("float32"), values)
    assert parts.count("DepthwiseConv2dNativeBackpropFilter") == 4
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.01 * np.abs(theirs).max())


def test_copies_for_a_kernel_s_gradient_wait_for_the_gradient(monkeypatch):
    """What depends on the input alone is computed on the way forward, and is kept until then."""
    import tensorflow as tf

    monkeypatch.setattr(depthwise, "onednn_is_on", lambda: True)
    monkeypatch.setattr(depthwise, "onednn_lacks_avx512", lambda: False)
    image = keras.Input((8, 8, 3))
    layer = keras.layers.DepthwiseConv2D(5, padding="same", use_bias=False, dtype="mixed_bfloat16")
    model = keras.Model(image, layer(image))

    @tf.function
    def step(values):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(replay(model, values, depthwise_convolutions(model))))
        return tape.gradient(loss, model.trainable_variables)

    graph = step.get_concrete_function(tf.TensorSpec((2, 8, 8, 3))).graph
    (pad,) = [x for x in graph.get_operations() if x.type == "Pad"]
    assert pad.inputs[0].op.control_inputs


def test_a_padding_layer_that_others_read_stays():
    image = keras.Input((8, 8, 3))
    padded = keras.layers.ZeroPadding2D(((0, 1), (0, 1)))(image)
    x = keras.layers.DepthwiseConv2D(3, 2, "valid", use_bias=False)(padded)
    y = keras.layers.DepthwiseConv2D(3, 2, "valid", use_bias=False)(padded)
    model = randomize(keras.Model(image, x * y))
    values = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    instead = depthwise_convolutions(model)
    assert not any(isinstance(layer, keras.layers.ZeroPadding2D) for layer in instead)
    np.testing.assert_allclose(replay(model, values, instead), model(values), atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("nested", [False, True])
def test_maps_are_resized_at_one_size_after_the_other(interpolation, nested):
    """Keras asks a symbolic size whether it is positive, from the second size on."""
    model = u_net(interpolation=interpolation)
    if nested:
        image = keras.Input((None, None, 3))
        model = keras.Model(image, keras.layers.Conv2D(4, 1)(model(image)))
    rng = np.random.default_rng(0)
    for size in ((16, 24), (18, 24), (20, 30)):
        images = rng.uniform(0, 255, (2, *size, 3)).astype("float32")
        expected = np.asarray(model(images, training=False))
        np.testing.assert_allclose(run_net(model, images), expected, atol=1e-4 * expected.std())


def test_a_sequential_is_computed_as_its_graph():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(4, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6),
            layers.Conv2DTranspose(3, 4, strides=2, padding="same", use_bias=False),
        ]
    )
    fit_statistics(model)
    images = np.random.default_rng(0).uniform(0, 255, (1, 9, 14, 3)).astype("float32")
    expected = np.asarray(model(images, training=False))
    np.testing.assert_allclose(run_net(model, images), expected, atol=1e-4 * expected.std())


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_kernel_smaller_than_its_stride_enlarges_to_the_size_of_the_layer(padding):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(1, 1)(image)
    layer = keras.layers.Conv2DTranspose(1, 1, strides=2, padding=padding, use_bias=False)
    layer.trainable = False
    model = keras.Model(image, layer(x))
    images = np.random.default_rng(0).uniform(0, 255, (1, 5, 7, 3)).astype("float32")
    expected = np.asarray(model(images))
    assert expected.shape == (1, 10, 14, 1)
    np.testing.assert_allclose(run_net(model, images), expected, atol=1e-4 * expected.std())
