"""Standard TFLite Metadata: what MediaPipe, Android Studio and other tools read in a `.tflite`.

A file's entry `TFLITE_METADATA` is a flatbuffer of its own, `ModelMetadata` of metadata_schema.fbs
(schema 1.5.0, identifier "M001"), and for scores there is another one inside it,
`ImageSegmenterOptions` of image_segmenter_metadata_schema.fbs (identifier "V001"). Both schemas are
public, in MediaPipe's and TFLite Support's repositories. The numbers of their fields stand below as
the schemas count them: in the order of a table's lines from 0, a union counting twice.
"""

from dataclasses import dataclass

import flatbuffers

NAME = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"

# enum AssociatedFileType, ColorSpaceType, Activation; union ContentProperties
_TENSOR_AXIS_LABELS, _TENSOR_VALUE_LABELS = 2, 3
_RGB, _GRAYSCALE = 1, 2
_SOFTMAX = 2
_IMAGE_PROPERTIES = 2


@dataclass(frozen=True)
class Description:
    """What a file of the signature `segment` or `logits` is, for other people's programs.

    Attributes:
        size: (H, W).
        scores: whether it gives float32 (1, H, W, C) scores, or uint8 (1, H, W) labels.
        text: a sentence for people.
        version: of kfcn.
    """

    size: tuple[int, int]
    scores: bool
    text: str
    version: str


def model_metadata(described: Description) -> bytes:
    """The content of `TFLITE_METADATA`; the file has one subgraph, one input and one output."""
    b = flatbuffers.Builder(1024)
    image = _tensor(
        b,
        "image",
        "uint8 RGB, 0 to 255; normalisation is inside",
        _image_content(b, _RGB, described.size),
    )
    if described.scores:
        name, kind = "scores", _TENSOR_AXIS_LABELS
        text = "a score for each class (last axis); softmax makes them probabilities"
    else:
        name, kind = "labels", _TENSOR_VALUE_LABELS
        text = "the class of each pixel, as its line in labels.txt, counted from 0"
    labels = _table(
        b,
        {
            0: _text(b, LABELS_FILE),  # AssociatedFile.name
            1: _text(b, "the classes, one a line"),  # .description
        },
        int8={2: kind},  # .type
    )
    content = _image_content(b, _GRAYSCALE, described.size)
    output = _tensor(b, name, text, content, files=_vector(b, [labels]))
    subgraph = {
        2: _vector(b, [image]),  # SubGraphMetadata.input_tensor_metadata
        3: _vector(b, [output]),  # .output_tensor_metadata
    }
    if described.scores:
        options = _table(
            b,
            {
                0: _text(b, "SEGMENTER_METADATA"),  # CustomMetadata.name
                1: _bytes(b, _segmenter_options()),  # .data
            },
        )
        subgraph[9] = _vector(b, [options])  # .custom_metadata
    root = _table(
        b,
        {
            0: _text(b, "kfcn"),  # ModelMetadata.name
            1: _text(b, described.text),  # .description
            2: _text(b, described.version),  # .version
            3: _vector(b, [_table(b, subgraph)]),  # .subgraph_metadata
            # The schema's version that knows all of the fields: custom metadata came with 1.5.0.
            7: _text(b, "1.5.0" if described.scores else "1.0.0"),  # .min_parser_version
        },
    )
    b.Finish(root, file_identifier=b"M001")
    return bytes(b.Output())


def _segmenter_options() -> bytes:
    """MediaPipe's `ImageSegmenterOptions`: the scores go through a softmax."""
    b = flatbuffers.Builder(64)
    version = _text(b, "1.0.0")
    # ImageSegmenterOptions.activation, .min_parser_version
    b.Finish(_table(b, {1: version}, int8={0: _SOFTMAX}), file_identifier=b"V001")
    return bytes(b.Output())


def _tensor(b, name: str, text: str, content: int, files: int | None = None) -> int:
    fields = {
        0: _text(b, name),  # TensorMetadata.name
        1: _text(b, text),  # .description
        3: content,  # .content
    }
    if files is not None:
        fields[6] = files  # .associated_files
    return _table(b, fields)


def _image_content(b, color_space: int, size: tuple[int, int]) -> int:
    height, width = size
    # ImageSize.width, .height
    default_size = _table(b, {}, uint32={0: width, 1: height})
    # ImageProperties.color_space, .default_size
    properties = _table(b, {1: default_size}, int8={0: color_space})
    # Content.content_properties_type, .content_properties
    return _table(b, {1: properties}, uint8={0: _IMAGE_PROPERTIES})


def _table(
    b,
    offsets: dict[int, int],
    int8: dict[int, int] | None = None,
    uint8: dict[int, int] | None = None,
    uint32: dict[int, int] | None = None,
) -> int:
    """A table with these fields, by number; what they point to has been written before."""
    fields = [*offsets, *(int8 or {}), *(uint8 or {}), *(uint32 or {})]
    b.StartObject(max(fields) + 1)
    for field, value in offsets.items():
        b.PrependUOffsetTRelativeSlot(field, value, 0)
    for field, value in (uint32 or {}).items():
        b.PrependUint32Slot(field, value, 0)
    for field, value in (int8 or {}).items():
        b.PrependInt8Slot(field, value, 0)
    for field, value in (uint8 or {}).items():
        b.PrependUint8Slot(field, value, 0)
    return b.EndObject()


def _text(b, text: str) -> int:
    return b.CreateString(text)


def _vector(b, tables: list[int]) -> int:
    b.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        b.PrependUOffsetTRelative(table)
    return b.EndVector()


def _bytes(b, content: bytes) -> int:
    # force_align: 16, so that the flatbuffer inside can be read where it lies.
    b.StartVector(1, len(content), 16)
    b.head = b.head - len(content)
    b.Bytes[b.head : b.head + len(content)] = content
    return b.EndVector()
