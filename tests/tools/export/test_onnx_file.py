"""ONNX files: read by ONNX Runtime, described for people, and in 8 bits."""

import json

import numpy as np
import pytest
from kfcn_tools.export import export, onnx_file
from kfcn_tools.export.net import Net
from shipping import CLASSES, PALETTE, picture, tiny_model
from small_nets import net_of_probabilities

from kfcn.crf import add_crf
from kfcn.errors import KfcnError
from kfcn.labels import Classes

onnxruntime = pytest.importorskip("onnxruntime")


def a_net(model=None, scores=False):
    names = Classes(tuple(CLASSES), tuple(map(tuple, PALETTE)))
    return Net(model or tiny_model(), names, scores, {"kfcn_version": "0", "source": {"name": "x"}})


def images(batch, size):
    return np.stack([picture(seed, size) for seed in range(batch)])


def test_a_file_takes_any_size_and_batch_and_says_what_it_is(tmp_path):
    net = a_net()
    assert onnx_file.write(net, tmp_path) == {"float32": "model.onnx"}
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[3]) == ("image", "tensor(uint8)", 3)
    assert (made.name, made.type) == ("labels", "tensor(uint8)")
    for batch, size in ((2, (40, 72)), (3, (33, 47))):
        expected = net.logits(images(batch, size)).argmax(-1)
        (labels,) = session.run(None, {"image": images(batch, size)})
        assert len(np.unique(expected)) > 1
        np.testing.assert_array_equal(labels, expected)
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["classes"]) == CLASSES
    assert json.loads(properties["palette"]) == PALETTE
    assert json.loads(properties["kfcn"])["source"] == {"name": "x"}


def test_export_checks_scores_and_describes_them(tmp_path):
    out = export(tiny_model(), tmp_path / "out", "onnx", scores=True)
    described = json.loads((out / "export.json").read_text())
    assert described["models"] == [{"mode": "float32", "file": "model.onnx"}]
    assert all(found["error"] < 1e-4 for found in described["checked"]["float32"])
    assert list(described["files"]) == ["model.onnx"]


def test_an_int8_file_has_8_bit_weights_and_nearly_the_same_labels(tmp_path):
    pytest.importorskip("onnx")
    net = a_net()
    onnx_file.write(net, tmp_path)
    calibration = list(images(8, (48, 64)))
    files = onnx_file.quantize(net, tmp_path, "model.onnx", calibration)
    assert files == {"int8": "model_int8.onnx"}
    given = images(3, (40, 72))
    expected = net.logits(given).argmax(-1)
    share = {
        name: np.mean(onnx_file.opened(net, tmp_path, name)([given])[0] == expected)
        for name in ("model.onnx", "model_int8.onnx")
    }
    assert share["model.onnx"] == 1
    assert 0.85 < share["model_int8.onnx"] < 1  # measured 0.88, for a net that is unsure
    import onnx

    kinds = {w.data_type for w in onnx.load(tmp_path / "model_int8.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    properties = onnxruntime.InferenceSession(str(tmp_path / "model_int8.onnx")).get_modelmeta()
    assert json.loads(properties.custom_metadata_map["classes"]) == CLASSES


def test_a_net_that_was_trained_in_half_precision_is_written_in_float32(tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    model = keras.Model(image, keras.layers.Conv2D(3, 3, padding="same", dtype="mixed_float16")(x))
    out = export(model, tmp_path / "out", "onnx", scores=True)
    given = images(1, (40, 72))
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    scores = session.run(["scores"], {"image": given})[0]
    kernel, bias = model.layers[-1].get_weights()
    logits = keras.ops.conv(given.astype(np.float32) / 255, kernel, padding="same") + bias
    np.testing.assert_allclose(scores, keras.ops.softmax(logits), atol=1e-5)


def test_the_scores_of_a_net_of_probabilities_are_its_own(tmp_path):
    model = net_of_probabilities(3, 1 / 64)
    out = export(model, tmp_path / "out", "onnx", scores=True)
    given = images(1, (40, 72))
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    scores = session.run(["scores"], {"image": given})[0]
    np.testing.assert_allclose(scores, model(given.astype(np.float32)), atol=1e-5)


def test_what_onnx_has_nothing_for_is_named(tmp_path):
    with pytest.raises(KfcnError, match=r"crf.*: cannot be written as ONNX; saved_model can"):
        onnx_file.write(a_net(add_crf(tiny_model())), tmp_path)
    assert list(tmp_path.iterdir()) == []
