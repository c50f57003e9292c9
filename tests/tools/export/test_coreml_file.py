"""Core ML's package: what it says of itself. It cannot be run here."""

import json

import pytest
from kfcn_tools.export import export
from shipping import tiny_model

coremltools = pytest.importorskip("coremltools")


@pytest.mark.long
@pytest.mark.parametrize(
    ("scores", "name", "shape", "dtype"),
    [(False, "labels", [1, 48, 64], "INT32"), (True, "scores", [1, 48, 64, 3], "FLOAT32")],
)
def test_an_image_goes_in_and_labels_or_scores_come_out(tmp_path, scores, name, shape, dtype):
    out = export(tiny_model(), tmp_path / "out", "coreml", size=(48, 64), scores=scores)
    spec = coremltools.models.MLModel(str(out / "model.mlpackage"), skip_model_load=True).get_spec()
    (given,), (made,) = spec.description.input, spec.description.output
    image = given.type.imageType
    assert (given.name, image.height, image.width) == ("image", 48, 64)
    assert image.colorSpace == image.ColorSpace.Value("RGB")
    kind = made.type.multiArrayType
    assert (made.name, list(kind.shape)) == (name, shape)
    assert kind.dataType == kind.ArrayDataType.Value(dtype)
    about = spec.description.metadata.userDefined
    assert json.loads(about["classes"]) == ["class 0", "class 1", "class 2"]
    assert json.loads((out / "export.json").read_text())["checked"] == {}
