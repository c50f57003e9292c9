"""Nets as programs: in LiteRT, and as ONNX, the values and labels that Keras gives."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from small_nets import fit_statistics, randomize

import kfcn
from kfcn.crf import add_crf
from kfcn.inference.runtime.from_keras import program_of
from kfcn.inference.runtime.on_litert import _KEPT_BYTES, LiteRTNet, _Key
from kfcn.inference.runtime.on_onnxruntime import OnnxRuntimeNet
from kfcn.inference.runtime.onnx_graph import write_onnx
from kfcn.inference.runtime.program import Program, Step, UnsupportedError
from kfcn.inference.runtime.program_net import ProgramNet
from kfcn.inference.runtime.tflite_graph import TFLiteWriter
from kfcn.nets import architectures
from kfcn.nets.backbones import BACKBONES
from kfcn.nets.upsample import match_size, upsample
from kfcn.rewrite import DilatedPooling2D

SMALL = {"alpha": 0.35}
# Each backbone once, each head once, and what changes the kernels of the enlargements.
NETS = {
    "fcn8s": ("fcn8s", "mobilenet_v2", None, {}, SMALL),
    "aligned": ("fcn8s", "mobilenet_v2", None, {"align": True}, SMALL),
    "fcn32s": ("fcn32s", "efficientnet_lite0", None, {}, {}),
    "atonce": ("fcn8s-atonce", "mobilenet_v3_large", None, {}, {}),
    "fcn2s": ("fcn2s", "efficientnet_v2_b0", None, {}, {}),
    "fcn4s": ("fcn4s", "efficientnet_lite1", None, {}, {}),
    "fcn16s": ("fcn16s", "efficientnet_lite2", None, {}, {}),
    "pyramid": ("fcn8s-fpn", "mobilenet_v2", 16, {}, SMALL),
    "nearest": ("heatmap", "resnet50", None, {}, {}),
    "dilated": ("dilated", "mobilenet_v2", 8, {}, SMALL),
    "dilated pooling": ("dilated", "vgg16", 8, {}, {"fc_filters": 16}),
    "convnet": ("convnet", "", None, {}, {}),
}


def built(name, classes=5):
    arch, backbone, stride, head, body = NETS[name]
    keras.utils.set_random_seed(0)
    model = architectures.build(arch, classes, backbone, stride, head, body)
    # With the statistics of noise a photograph is far out of range, and rounding grows to all.
    images = np.asarray(photograph((128, 128)), np.float32) if name == "fcn2s" else None
    return fit_statistics(randomize(model), images=images)


def picture(size, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (1, size[0] // 8 + 1, size[1] // 8 + 1, 3))
    fine = keras.ops.image.resize(coarse, size, interpolation="bicubic")
    return np.clip(keras.ops.convert_to_numpy(fine), 0, 255).astype(np.uint8)


def photograph(size):
    """One that comes along, reduced."""
    with Image.open(Path(kfcn.__file__).parent / "pretrained/voc_animals/example_2.jpg") as file:
        return np.asarray(file.convert("RGB").resize(size[::-1]))[None]


def opened(name, program):
    return (LiteRTNet if name == "litert" else OnnxRuntimeNet)(program, threads=1)


def assert_agrees(net, model, image):
    """Values within rounding, labels but for ties."""
    theirs = np.asarray(model(image.astype(np.float32), training=False))
    ours, labels = net.logits(image), net.labels(image)
    assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)
    assert (labels.shape, labels.dtype) == (theirs.shape[:3], np.uint8)
    assert np.abs(ours - theirs).max() < 2e-3 * theirs.std()  # measured 3e-4 at most
    differ = labels != theirs.argmax(-1)
    second, first = np.moveaxis(np.partition(theirs, -2, axis=-1)[..., -2:], -1, 0)
    assert (first - second)[differ].max(initial=0) < 4e-3 * theirs.std()
    assert len(np.unique(labels)) > 1


def test_no_architecture_and_no_backbone_is_left_out():
    tested = {row[:2] for row in NETS.values()}
    assert {arch for arch, _ in tested} == set(architectures.NAMES)
    assert {backbone for _, backbone in tested if backbone} == set(BACKBONES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_every_architecture_and_backbone(name):
    """A photograph, a size that needs no cut, an odd one, and the first again; one program."""
    model = built(name)
    program = program_of(model)
    for runtime in ("litert", "onnxruntime"):
        if (name, runtime) == ("dilated pooling", "litert"):
            with pytest.raises(UnsupportedError, match="holes"):
                opened(runtime, program)
            continue
        net = opened(runtime, program)
        images = photograph((75, 101)), picture((64, 96)), picture((53, 87))
        for image in images:
            assert_agrees(net, model, image)
        assert_agrees(net, model, images[0])
    assert program.sizes(75, 101)[-1] == (75, 101, 5)
    assert program.classes == 5


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_many_classes_and_learned_enlargements(runtime):
    keras.utils.set_random_seed(0)
    model = architectures.build("fcn8s", 37, "mobilenet_v2", None, {}, SMALL)
    rng = np.random.default_rng(0)
    for name in ("upscore2", "upscore_pool4"):
        layer = model.get_layer(name)
        layer.set_weights([w + rng.normal(0, 0.02, w.shape) for w in layer.get_weights()])
    model = fit_statistics(randomize(model))
    program = program_of(model)
    assert [step.kind for step in program.steps].count("transposed") == 2
    assert [step.kind for step in program.steps].count("enlarge") == 1
    net = opened(runtime, program)
    assert_agrees(net, model, picture((47, 70)))
    with pytest.raises(AssertionError):  # the control: a net of other weights
        assert_agrees(net, randomize(model, seed=1), picture((47, 70)))


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_steps_that_the_nets_use_in_one_form_only(runtime):
    """A norm behind a sum, 'valid' padding, maps that come out short, batches, a depth of two."""
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(6, 3, 2, padding="valid", activation="swish")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="valid", depth_multiplier=2)(x)
    y = keras.layers.Conv2D(12, 3, dilation_rate=2, padding="same", activation="sigmoid")(x)
    x = keras.layers.BatchNormalization()(keras.layers.Add()([x, y, y]))
    x = keras.layers.ReLU()(x)
    x = keras.layers.MaxPooling2D(3, 2, padding="same")(x)
    x = keras.layers.Cropping2D(((1, 0), (0, 1)))(x)
    gate = keras.layers.GlobalAveragePooling2D()(x)
    gate = keras.layers.Reshape((1, 1, 12))(gate)
    x = keras.layers.Multiply()([x, keras.layers.Activation("hard_sigmoid")(gate)])
    x = keras.layers.Dropout(0.5)(keras.ops.add(x, 0.5) * 3.0)
    x = keras.layers.Activation("hard_swish")(x)
    x = match_size(upsample(x, 4, "up"), image)  # short by several rows
    model = fit_statistics(keras.Model(image, keras.layers.Conv2D(4, 1)(x)), size=32)
    program = program_of(model)
    assert [step.options for step in program.steps if step.kind == "trim"] == [{"short": True}]
    images = np.concatenate([picture((37, 42), seed) for seed in (1, 2)])
    assert_agrees(opened(runtime, program), model, images)


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_maps_that_come_out_short_in_columns_alone(runtime):
    image = keras.Input((None, None, 3))
    x = match_size(keras.layers.Conv2D(4, (1, 5))(image), image)
    model = keras.Model(image, x)
    assert_agrees(opened(runtime, program_of(model)), model, picture((37, 45)))


def test_the_share_of_wide_convolutions_by_hand():
    def step(kind, shape, stride=1):
        options = {"stride": [stride, stride], "dilation": [1, 1], "padding": "same"}
        kernel = np.zeros(shape, np.float32)
        return lambda *given: Step(kind, given, options, {"kernel": kernel})

    steps = (
        step("conv", (3, 3, 3, 8), stride=2)(0),  # 128x128, 216 multiplications each
        step("conv", (1, 1, 8, 16))(1),  # 128
        step("depthwise", (3, 3, 16, 1))(2),  # 144
        step("conv", (1, 3, 16, 4), stride=4)(3),  # 32x32, 192
    )
    wide = 216 + 192 / 16
    assert Program(steps, 4, None).wide_share() == pytest.approx(wide / (wide + 128 + 144))
    assert Program((step("conv", (1, 1, 3, 16))(0),), 16, None).wide_share() == 0


def test_activations_are_part_of_the_step_before_and_norms_of_convolutions():
    steps = program_of(built("fcn8s")).steps
    kinds = [step.kind for step in steps]
    assert "activate" not in kinds and kinds.count("affine") == 1  # to -1..1
    assert kinds.count("depthwise") == 17 and kinds.count("conv") == 38
    assert kinds.count("trim") == kinds.count("enlarge") + kinds.count("transposed") == 3
    assert not any(step.options["short"] for step in steps if step.kind == "trim")


def test_what_has_no_step_is_refused_by_name():
    model = architectures.build("fcn8s", 3, "mobilenet_v2", None, {}, SMALL)
    with pytest.raises(UnsupportedError, match="crf"):
        program_of(add_crf(model))
    image = keras.Input((None, None, 3))
    with pytest.raises(UnsupportedError, match="Take"):
        x = keras.ops.take(image, keras.ops.convert_to_tensor([0]), axis=1)
        program_of(keras.Model(image, x))
    with pytest.raises(UnsupportedError, match="computes in bfloat16"):
        convolution = keras.layers.Conv2D(2, 1, dtype="mixed_bfloat16")
        program_of(keras.Model(image, convolution(image)))
    fixed = keras.Input((32, 32, 3))
    image = keras.Input((None, None, 3))
    for pads, whole in (((1, 1), (1, 1)), True), (((1, 4), (1, 1)), False):
        pooled = DilatedPooling2D((2, 2), (2, 2), "max", pads)(image)
        if whole:
            assert program_of(keras.Model(image, pooled)).steps[-1].kind == "max_pool"
        else:
            with pytest.raises(UnsupportedError, match="DilatedPooling2D"):
                program_of(keras.Model(image, pooled))
    # Keras adds rows of zeros behind the last cell, or pools some cells and steps over others.
    layers = (
        keras.layers.Conv2DTranspose(2, 1, strides=2, padding="valid", use_bias=False),
        keras.layers.MaxPooling2D(2, strides=4, padding="same"),
    )
    for layer, name in zip(layers, ("smaller than its stride", "at strides"), strict=True):
        with pytest.raises(UnsupportedError, match=name):
            program_of(keras.Model(image, layer(image)))
    with pytest.raises(UnsupportedError, match="any size"):
        program_of(keras.Model(fixed, keras.layers.Conv2D(2, 1)(fixed)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnet", "pyramid", "fcn2s"])
def test_a_size_made_from_the_file_of_another_is_written_as_anew(name):
    """Byte for byte; one file is packed for all sizes that are cut anywhere."""
    program = program_of(built(name))
    writer = TFLiteWriter(program)
    sizes = [(64, 64), *((40 + 3 * n, 61 - n) for n in range(11))]
    for number, size in enumerate(sizes):
        asked = (1 + number % 2, *size, ("uint8", "float32")[number % 2], "labels")
        assert writer.write(*asked) == TFLiteWriter(program).write(*asked), asked
    assert len(writer._patterns) <= 3  # two dtypes, and a size that needs no cut
    held = sum(pattern._rest.nbytes for pattern in writer._patterns.values())
    assert held < 200_000 * len(writer._patterns)  # the weights stand in the writer alone


@pytest.mark.parametrize("runtime", [LiteRTNet, OnnxRuntimeNet])
@pytest.mark.parametrize("first", ["cell", "channel"])
def test_the_smaller_factor_may_come_first(runtime, first):
    """A gate of one cell, or a map of one channel, before the map that it weighs."""
    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(image)
    if first == "cell":
        gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = keras.layers.Add()([gate, gate, x])
    else:
        gate = keras.layers.Conv2D(1, 1, activation="sigmoid")(x)
    x = keras.layers.Multiply()([gate, x])
    x = keras.layers.UpSampling2D(2)(keras.layers.ZeroPadding2D(1)(x))
    model = keras.Model(image, keras.layers.Conv2D(3, 1)(x))
    images = picture((9, 14)).astype(np.float64)  # and numbers of another kind
    expected = keras.ops.convert_to_numpy(model(images.astype(np.float32)))
    found = runtime(program_of(model), 1).logits(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_sizes_that_litert_keeps_ready_have_a_bound(monkeypatch):
    from kfcn.inference.runtime import on_litert

    net = LiteRTNet(program_of(built("convnet")), threads=1)
    of_one = net._bytes(_Key(1, 40, 41, "uint8", "labels", 1))
    monkeypatch.setattr(on_litert, "_KEPT_BYTES", 2.5 * of_one)
    sizes = [(40, 40), (40, 41), (41, 40), (40, 40), (42, 42)]
    results = [net.labels(picture(size)) for size in sizes]
    assert len(net._ready) == 2
    for size, before in zip(sizes, results, strict=True):
        np.testing.assert_array_equal(net.labels(picture(size)), before)
    net.labels(picture((200, 200)))
    assert len(net._ready) == 1
    monkeypatch.setattr(on_litert, "_KEPT_BYTES", 0.5 * of_one)  # what one size takes is needed
    np.testing.assert_array_equal(net.labels(picture(sizes[1])), results[1])
    assert len(net._ready) == 1


@pytest.mark.parametrize("runtime", [LiteRTNet, OnnxRuntimeNet])
def test_callers_at_once_get_what_one_after_another_gets(runtime):
    program, sizes = program_of(built("fcn8s")), [(40, 41), (33, 50), (40, 41), (64, 40)] * 4
    images = [picture(size, seed) for seed, size in enumerate(sizes)]
    alone = runtime(program, threads=1)
    expected = [alone.labels(image) for image in images]
    assert len({labels.tobytes() for labels in expected}) == len(images)
    net = runtime(program, threads=5, at_once=3)
    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(net.labels, images))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_so_many_share_the_threads_and_a_large_image_gets_them_all():
    meet, lock, running, asked = threading.Barrier(3, timeout=20), threading.Lock(), [0], []

    class Counting(ProgramNet):
        name = "counting"

        def run(self, images, output, threads):
            with lock:
                running[0] += 1
                asked.append((images.shape[1] > 1, threads, running[0]))
            if images.shape[1] == 1:
                meet.wait()  # three small ones compute at the same time, or none would end
            with lock:
                running[0] -= 1
            return images[..., 0]

    net = Counting(program_of(built("convnet")), threads=5, at_once=3)
    small, large = np.zeros((1, 1, 9, 3), np.uint8), np.zeros((1, 1000, 1000, 3), np.uint8)
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(net.labels, [small, small, large, small, large, small, small, small]))
    assert {threads for is_large, threads, _ in asked if not is_large} == {2}
    assert {(threads, beside) for is_large, threads, beside in asked if is_large} == {(5, 1)}
    assert max(beside for *_, beside in asked) == 3
    assert Counting(net.program, threads=2, at_once=4).at_once == 2


def test_many_small_pictures_keep_no_more_weights_than_fit():
    """Of a net of 500 MB as of one of 1.5 MB, and on many cores."""
    kept = {}
    for megabytes, threads in ((1.5, 2), (1.5, 64), (500, 2)):
        net = LiteRTNet(program_of(built("convnet")), threads=threads)
        net._writer.weights_bytes = megabytes * 1e6
        key = _Key(1, 100, 100, "uint8", "labels", threads)
        kept[megabytes, threads] = _KEPT_BYTES // net._bytes(key)
    assert kept == {(1.5, 2): 57, (1.5, 64): 5, (500, 2): 0}


@pytest.mark.slow
@pytest.mark.parametrize("output", ["labels", "scores", "logits"])
def test_onnx_files_are_whole(output):
    model = onnx.load_from_string(
        write_onnx(program_of(built("aligned")), output, {"classes": '["a", "ü"]'})
    )
    onnx.checker.check_model(model, full_check=True)
    (image,), (result,) = model.graph.input, model.graph.output
    assert (image.name, result.name) == ("image", output)
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    kind = onnx.TensorProto.UINT8 if output == "labels" else onnx.TensorProto.FLOAT
    assert result.type.tensor_type.elem_type == kind
    assert len(result.type.tensor_type.shape.dim) == (3 if output == "labels" else 4)
    assert {p.key: p.value for p in model.metadata_props} == {"classes": '["a", "ü"]'}
    assert model.producer_name == "kfcn" and model.opset_import[0].version == 17


def test_onnx_scores_are_the_softmax():
    model = built("convnet")
    image = picture((21, 34))
    session = onnxruntime.InferenceSession(write_onnx(program_of(model), "scores"))
    (scores,) = session.run(None, {"image": image})
    logits = np.asarray(model(image.astype(np.float32), training=False))
    theirs = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(scores, theirs, atol=1e-5)
