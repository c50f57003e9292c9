"""What files say of themselves, read by others' code, and what others make of the scores."""

import io
import zipfile

import numpy as np
import pytest
from kfcn_mobile.bundle import LOGITS_STEP, read_bundle
from kfcn_tools.convert import metadata
from kfcn_tools.convert.int8.sensitivity import agreement_of
from kfcn_tools.convert.write_bundle import keras_labels, keras_logits
from kfcn_tools.litert import open_interpreter, runner
from shipping import CLASSES, picture, tiny_bundle, tiny_files, tiny_model, tiny_scores

IMAGE = picture(0)
INFO = {"classes": ["sky", "a ü", "two\nlines"], "size": [48, 64], "kfcn_version": "1.2"}


@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_metadata_comes_back_and_leaves_the_labels(mode):
    content = tiny_files()[mode][0]
    marked = metadata.embed(content, INFO)
    assert metadata.read(marked) == INFO
    assert metadata.read(content) is None
    assert agreement_of(marked, [IMAGE], [runner(content)(IMAGE)]) == (1.0, 1.0)
    # The same net gives the same bytes.
    assert metadata.embed(content, INFO) == marked


def test_the_names_lie_uncompressed_behind_the_file():
    marked = metadata.embed(tiny_files()["float32"][0], INFO)
    with zipfile.ZipFile(io.BytesIO(marked)) as archive:
        (member,) = archive.infolist()
        assert (member.filename, member.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        # One class a line, whatever a name holds.
        assert archive.read(member).decode() == "sky\na ü\ntwo lines\n"
    assert "sky\na ü\n".encode() in marked


@pytest.mark.parametrize("scores", [False, True])
def test_mediapipes_own_reader_finds_what_was_written(scores):
    pytest.importorskip("mediapipe")
    from mediapipe.tasks.metadata import image_segmenter_metadata_schema_py_generated as segmenter
    from mediapipe.tasks.metadata import metadata_schema_py_generated as schema

    content = (tiny_scores() if scores else tiny_files())["float32"][0]
    standard = metadata.entry(metadata.embed(content, INFO, scores), "TFLITE_METADATA")
    assert schema.ModelMetadata.ModelMetadataBufferHasIdentifier(standard, 0)
    found = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAs(standard, 0))
    assert found.name == b"kfcn" and found.version == b"1.2"
    (graph,) = found.subgraphMetadata
    (image,), (output,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    for tensor, colour in ((image, "RGB"), (output, "GRAYSCALE")):
        assert tensor.content.contentPropertiesType == schema.ContentProperties.ImageProperties
        properties = tensor.content.contentProperties
        assert properties.colorSpace == getattr(schema.ColorSpaceType, colour)
        assert (properties.defaultSize.height, properties.defaultSize.width) == (48, 64)
    (labels,) = output.associatedFiles
    kinds = schema.AssociatedFileType
    assert labels.name == b"labels.txt"
    assert labels.type == (kinds.TENSOR_AXIS_LABELS if scores else kinds.TENSOR_VALUE_LABELS)
    assert output.name == (b"scores" if scores else b"labels")
    if not scores:
        assert graph.customMetadata is None
        return
    (custom,) = graph.customMetadata
    assert custom.name == b"SEGMENTER_METADATA"
    options = bytes(bytearray(custom.data))
    assert segmenter.ImageSegmenterOptions.ImageSegmenterOptionsBufferHasIdentifier(options, 0)
    read = segmenter.ImageSegmenterOptions.GetRootAs(options, 0)
    assert read.Activation() == segmenter.Activation.SOFTMAX


def test_scores_are_the_logits_of_keras():
    golden = read_bundle(tiny_bundle()).golden[0]
    expected = keras_logits(tiny_model(), golden.image)
    np.testing.assert_array_equal(golden.logits, expected[::LOGITS_STEP, ::LOGITS_STEP])
    scores = {mode: runner(content)(golden.image) for mode, (content, _) in tiny_scores().items()}
    assert scores["int8"].dtype == scores["float32"].dtype == np.float32
    # To the border: files of labels are not so there, `fix_size` says why.
    np.testing.assert_allclose(scores["float32"], expected, atol=1e-4)
    # The quantised file has 256 values, of the step that its scores have before they leave.
    interpreter = open_interpreter(tiny_scores()["int8"][0], xnnpack=False)
    made = interpreter._get_ops_details()[-1]
    (step, zero) = interpreter.get_tensor_details()[made["inputs"][0]]["quantization"]
    assert made["op_name"] == "DEQUANTIZE" and len(np.unique(scores["int8"])) <= 256
    steps = scores["int8"] / step + zero
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    inside = np.s_[4:-4, 4:-4]
    labels = runner(tiny_files()["int8"][0])(golden.image)
    # Measured 0.975: the last map is rounded to steps of its own.
    assert np.mean(scores["int8"].argmax(-1)[inside] == labels[inside]) > 0.96


def segmented(content, image):
    """MediaPipe's names, category mask (H, W) and confidences (H, W, C)."""
    mediapipe = pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageSegmenterOptions(
        base_options=BaseOptions(model_asset_buffer=content),
        output_category_mask=True,
        output_confidence_masks=True,
    )
    with vision.ImageSegmenter.create_from_options(options) as segmenter:
        given = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
        result = segmenter.segment(given)
        confidences = [mask.numpy_view().squeeze() for mask in result.confidence_masks]
        category = result.category_mask.numpy_view().squeeze().copy()
        return segmenter.labels, category, np.stack(confidences, axis=-1)


def test_mediapipe_shows_what_keras_says():
    info = {"classes": CLASSES, "size": list(IMAGE.shape[:2]), "kfcn_version": "0"}
    content, _ = tiny_scores()["float32"]
    names, labels, confidences = segmented(metadata.embed(content, info, scores=True), IMAGE)
    assert names == CLASSES
    np.testing.assert_array_equal(labels, keras_labels(tiny_model(), IMAGE)[0])
    powers = np.exp(keras_logits(tiny_model(), IMAGE))
    expected = powers / powers.sum(-1, keepdims=True)
    assert np.abs(confidences - expected).max() < 1e-4
    content, _ = tiny_scores()["int8"]
    names, labels, confidences = segmented(metadata.embed(content, info, scores=True), IMAGE)
    assert names == CLASSES
    # Two classes may have the same of 256 scores, or neighbouring ones, and MediaPipe brings
    # kernels of its own: measured one pixel of 3072.
    scores = runner(content)(IMAGE)
    step = np.diff(np.unique(scores)).min()
    second, first = np.moveaxis(np.sort(scores, axis=-1)[..., -2:], -1, 0)
    differ = labels != scores.argmax(-1)
    assert differ.mean() < 0.002 and (first - second)[differ].max(initial=0) < 1.5 * step
    np.testing.assert_allclose(confidences.sum(-1), 1, atol=1e-5)
    assert np.abs(confidences - expected).max() > 1e-3
    # A label map it misreads: as a picture of one row, with a class for each column.
    names, _, confidences = segmented(metadata.embed(tiny_files()["float32"][0], info), IMAGE)
    assert names == [] and confidences.shape[-1] == IMAGE.shape[1]
