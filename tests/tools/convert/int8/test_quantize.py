"""From the float32 file to int8: ranges, equalisation, quantisation."""

import keras
import numpy as np
import pytest
from kfcn_tools.convert.fix_size import fix_size
from kfcn_tools.convert.flatbuffer import unpacked
from kfcn_tools.convert.int8 import equalize, graph, quantize, ranges, weights
from kfcn_tools.convert.int8.observe import observe
from kfcn_tools.litert import open_interpreter, runner
from shipping import SIZE, picture, tiny_fcn, tiny_files, tiny_model

from kfcn.errors import UsageError

IMAGES = [picture(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def content():
    return tiny_files()["float32"][0]


@pytest.fixture(scope="module")
def fixed():
    return fix_size(tiny_model(), *SIZE)


def outputs(model, name, images=IMAGES):
    tap = keras.Function(model.inputs, model.get_layer(name).output)
    return np.concatenate([np.asarray(tap([x[None].astype(np.float32)])) for x in images])


def tensor_of(names, layer):
    (name,) = [name for name in names if f"/{layer}_1/" in name.split(";")[0] + "/"]
    return name


def ranges_of(content, method="min-max"):
    observer = ranges.TensorRanges(content, method)
    observe(content, IMAGES, observer)
    return observer.ranges()


def test_ranges_are_those_of_the_keras_net(content, fixed):
    found = ranges_of(content)
    for layer in ("block8_project", "score_pool3"):
        values = outputs(fixed, layer)
        low, high = found[tensor_of(found, layer)]
        assert low == pytest.approx(min(0, values.min()), abs=1e-4)
        assert high == pytest.approx(max(0, values.max()), abs=1e-4)


def test_percentile_and_least_squares_lie_inside_min_max(content):
    widest = ranges_of(content)
    for method in ("percentile", "least-squares"):
        found = ranges_of(content, method)
        assert found.keys() == widest.keys()
        for name, (low, high) in found.items():
            assert widest[name][0] <= low <= 0 <= high <= widest[name][1]
        assert found != widest


def test_a_tensor_that_was_always_zero(content):
    """A skip that has learnt nothing yet: XNNPACK ends the process on a step of zero."""
    zero = bytearray(content)
    (skip,) = (c for c in graph.convolutions(zero) if "/score_pool3_1/" in c.output.split(";")[0])
    skip.kernel[...] = skip.bias[...] = 0
    found = ranges_of(bytes(zero))
    assert found[skip.output] == (0.0, 0.0)
    source = quantize.Quantizable(bytes(zero), found, {})
    run = runner(quantize.quantize_int8(source))
    in_float = runner(quantize.quantize_int8(source, keep_float=[skip.output]))
    for image in IMAGES:
        np.testing.assert_array_equal(run(image), in_float(image))


def test_unknown_calibration(content):
    with pytest.raises(UsageError, match="expected one of min-max"):
        ranges.TensorRanges(content, "median")


def test_least_squares_cuts_an_outlier_and_keeps_an_even_spread():
    even = np.linspace(0, 6, 4096, dtype=np.float32)
    low, high = ranges.least_squares_range(even, 0.0, 6.0)
    assert low == 0 and high > 5.9
    # One value of 9 among 4096 between -1 and 1: clipping it to 4.5 costs 20.25 / 4096 = 0.005,
    # more than the rounding error (10/255)^2/12 = 0.0001 that a narrower range could save.
    normal = np.linspace(-1, 1, 4096, dtype=np.float32)
    normal[-1] = 9
    assert ranges.least_squares_range(normal, -1.0, 9.0)[1] > 8.5
    # Among a million values it is worth clipping.
    many = np.concatenate([np.linspace(-1, 1, 10**6, dtype=np.float32), [1.6]])
    assert ranges.least_squares_range(many, -1.0, 1.6)[1] < 1.2


def test_rounded_by_hand():
    kernel = np.array([[127.0, 1.4], [-63.6, -0.7]])
    # Rows are output channels: steps 1 and 0.5007...
    by_row = weights.rounded(kernel, axis=0)
    np.testing.assert_allclose(by_row[0], [127, 1])
    np.testing.assert_allclose(by_row[1], [-63.6, -0.5007874], rtol=1e-6)
    by_column = weights.rounded(kernel, axis=-1)
    np.testing.assert_allclose(by_column[:, 0], [127, -64])
    np.testing.assert_allclose(by_column[:, 1], [1.4, -0.7055118], rtol=1e-6)


def test_equalising_keeps_the_net_where_no_clip_is_reached():
    model = fix_size(tiny_fcn(), *SIZE)
    before = np.asarray(model(IMAGES[0][None].astype(np.float32)))
    factors = equalize.equalize(model, IMAGES)
    after = np.asarray(model(IMAGES[0][None].astype(np.float32)))
    np.testing.assert_allclose(after, before, atol=2e-4)
    assert any(np.any(factor > 1.5) for factor in factors.values())
    # A channel read by a depthwise convolution alone now fills its range up to the margin.
    values = outputs(model, "block8_expand_relu").max((0, 1, 2))
    factor = factors["block8_expand_relu"]
    np.testing.assert_allclose(values[factor > 1], 6 / equalize.MARGIN, rtol=1e-3)
    assert np.all(factor >= 1)


def test_a_dead_channel_keeps_its_bias_in_int32():
    image = keras.Input(batch_shape=(1, 4, 4, 2))
    conv = keras.layers.Conv2D(2, 1, name="conv")
    model = keras.Model(image, conv(image))
    conv.set_weights([np.array([[[[1.0, 1e-20], [0.5, -1e-21]]]]), np.array([0.1, 0.084])])
    assert weights.revive_dead_channels(model) == {"conv": 1}
    kernel, bias = conv.get_weights()
    np.testing.assert_allclose(kernel[0, 0, :, 0], [1.0, 0.5])
    # The int32 bias: 0.084 in steps of input step * weight step fits, and the weight is small.
    assert 0.084 / (0.01 * kernel[0, 0, 0, 1] / 127) < 2**31
    assert 0 < kernel[0, 0, 0, 1] < 2e-5
    np.testing.assert_allclose(bias, [0.1, 0.084])
    assert weights.revive_dead_channels(model) == {}


def test_older_readers_find_the_operators_of_an_int8_file():
    """OpenVINO and tf2onnx read the field that holds codes up to 127, and LiteRT the other one."""
    codes = unpacked(tiny_files()["int8"][0]).operatorCodes
    assert {code.builtinCode for code in codes} == {c.deprecatedBuiltinCode for c in codes}


def test_openvino_reads_an_int8_file(tmp_path):
    openvino = pytest.importorskip("openvino")
    from kfcn_tools.litert import runner

    content, image = tiny_files()["int8"][0], IMAGES[0]
    (tmp_path / "int8.tflite").write_bytes(content)
    model = openvino.Core().read_model(tmp_path / "int8.tflite")
    # Its kernels of 8 bits give other labels where there is no VNNI; in float it rounds as told.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
    labels = openvino.Core().compile_model(model, "CPU", exact)(image[None])[0][0]
    # Measured: 0.991 on this unsure net.
    assert np.mean(labels == runner(content)(image)) > 0.97


def test_int8_file_has_int8_convolutions_and_keeps_named_ones_in_float(content):
    found = ranges_of(content)
    source = quantize.Quantizable(content, found, {})
    float_conv = tensor_of(found, "block2_depthwise_relu")

    def types(file):
        interpreter = open_interpreter(file, xnnpack=False)
        detail = {d["index"]: d for d in interpreter.get_tensor_details()}
        return {
            detail[op["outputs"][0]]["name"]: detail[op["inputs"][1]]["dtype"]
            for op in interpreter._get_ops_details()
            if "CONV" in op["op_name"]
        }

    assert set(types(quantize.quantize_int8(source)).values()) == {np.int8}
    mixed = types(quantize.quantize_int8(source, [float_conv]))
    assert [name for name, kind in mixed.items() if kind == np.float32] == [float_conv]
