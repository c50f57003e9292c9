import tempfile

import keras
import numpy as np
import pytest
from kfcn_tools.convert import structure
from kfcn_tools.convert.fix_size import fix_size
from kfcn_tools.convert.flatbuffer import packed, unpacked
from kfcn_tools.convert.int8.graph import convolutions
from kfcn_tools.convert.tflite import export_tflite
from kfcn_tools.litert import runner
from shipping import SIZE, picture, tiny_files, tiny_scores
from small_nets import u_net

from kfcn.errors import KfcnError

IMAGE = picture(0)


@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_good_files(mode):
    found = structure.check_structure(tiny_files()[mode][0], mode, IMAGE, one_partition=True)
    assert found["xnnpack_partitions"] == 1
    operators = found["operators"]
    assert (operators["CONV_2D"], operators["DEPTHWISE_CONV_2D"]) == (13, 5)
    assert operators["RESIZE_BILINEAR"] == 3 and operators["ARG_MAX"] == 1
    # Batch normalisation is folded: what remains of it would be multiplications.
    assert operators["MUL"] == 1
    assert not {"TRANSPOSE_CONV", "GATHER", "CUSTOM"} & operators.keys()


def with_operator(name, custom=None):
    """The float32 file, its first operator's code replaced."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(tiny_files()["float32"][0])
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.customCode = custom
    return packed(model)


def test_a_flex_operator_fails():
    with pytest.raises(KfcnError, match="beyond the built-in ones: FlexErf"):
        structure.check_structure(with_operator("CUSTOM", "FlexErf"), "float32", IMAGE)


def test_weights_that_were_not_frozen_fail():
    with pytest.raises(KfcnError, match="not frozen, it has READ_VARIABLE"):
        structure.check_structure(with_operator("READ_VARIABLE"), "float32", IMAGE)


def convert(function, signature):
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec((1, *SIZE, 3), tf.uint8, name="image")
    concrete = tf.function(function, [spec]).get_concrete_function()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={signature: concrete})
        return tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[signature]
        ).convert()


def labels(x):
    import tensorflow as tf

    return {"labels": tf.cast(tf.argmax(x, -1, output_type=tf.int32), tf.uint8)}


def test_a_file_without_the_signature_fails():
    import tensorflow as tf

    content = convert(lambda image: labels(tf.cast(image, tf.float32)), "other")
    with pytest.raises(KfcnError, match="expected the signature segment"):
        structure.check_structure(content, "float32", IMAGE)


def test_several_partitions_fail():
    """Two parts that XNNPACK takes, with an operator between them that it does not."""
    import tensorflow as tf

    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32)

    def segment(image):
        x = tf.nn.relu(tf.nn.conv2d(tf.cast(image, tf.float32), kernel, 1, "SAME"))
        x = tf.cumsum(x, axis=1)
        return labels(tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")))

    content = convert(segment, "segment")
    with pytest.raises(KfcnError, match="in 2 partitions, expected 1"):
        structure.check_structure(content, "float32", IMAGE, one_partition=True)
    # Dynamic files are not held to it.
    assert structure.check_structure(content, "dynamic", IMAGE)["xnnpack_partitions"] == 2


def test_a_net_that_repeats_cells_may_have_several_partitions():
    """XNNPACK has no such operator: a U-Net is as it should be, and runs in parts."""
    keras.utils.set_random_seed(0)
    model = u_net()
    content = export_tflite(fix_size(model, *SIZE))
    found = structure.check_structure(content, "float32", IMAGE, one_partition=True)
    assert found["operators"]["TILE"] == 2 and found["xnnpack_partitions"] > 1
    expected = np.asarray(model(IMAGE[None].astype(np.float32))).argmax(-1)[0]
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(runner(content)(IMAGE), expected)


def test_a_file_of_another_size_fails():
    with pytest.raises(KfcnError, match=r"takes \(1, 48, 64, 3\), expected \(1, 64, 64, 3\)"):
        structure.check_structure(tiny_files()["float32"][0], "float32", picture(0, (64, 64)))


def with_scores(factor, bias):
    """The float32 file, the weights of its three score layers scaled and their biases set."""
    copy = bytearray(tiny_files()["float32"][0])
    found = 0
    for convolution in convolutions(copy):
        if "/score_" in convolution.output:
            kernel = convolution.kernel
            kernel *= factor
            convolution.bias[:] = bias
            found += 1
    assert found == 3
    return bytes(copy)


def test_constant_scores_fail():
    structure.check_structure(with_scores(1, 0), "float32", IMAGE)
    with pytest.raises(KfcnError, match="scores are all the same"):
        structure.check_structure(with_scores(0, 0), "float32", IMAGE)


def test_scores_that_are_not_finite_fail():
    with pytest.raises(KfcnError, match="not finite"):
        structure.check_structure(with_scores(1, np.nan), "float32", IMAGE)


def test_files_of_scores():
    for mode, (content, details) in tiny_scores().items():
        found = structure.check_structure(content, mode, IMAGE, output="logits")
        assert found == details and "ARG_MAX" not in found["operators"]
    assert tiny_scores()["int8"][1]["operators"]["DEQUANTIZE"] == 1
    with pytest.raises(KfcnError, match=r"expected the signature segment\(image\) -> labels"):
        structure.check_structure(tiny_scores()["float32"][0], "float32", IMAGE)
    with pytest.raises(KfcnError, match=r"expected the signature logits\(image\) -> logits"):
        structure.check_structure(tiny_files()["float32"][0], "float32", IMAGE, output="logits")
