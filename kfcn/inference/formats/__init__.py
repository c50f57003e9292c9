"""The formats in which predictions are written, one a file; the table of their names."""

from collections.abc import Mapping
from typing import Any

from kfcn.errors import UsageError
from kfcn.inference.formats.coco import CocoWriter
from kfcn.inference.formats.labelme import LabelmeWriter
from kfcn.inference.formats.png import PngWriter
from kfcn.inference.formats.voc import VocWriter
from kfcn.inference.writer import Writer
from kfcn.labels import voc_colour
from kfcn.outputs import Outputs

FORMATS: dict[str, type[Writer]] = {
    "png": PngWriter,
    "labelme": LabelmeWriter,
    "voc": VocWriter,
    "coco": CocoWriter,
}


def writer_for(
    classes: int | None, card: Mapping[str, Any] | None, outputs: Outputs, format: str
) -> Writer:
    """The writer with the names and colours of a model's card; without one, numbers.

    Args:
        classes: how many there are; wanted where there is no card.
        card: of the model, with `classes` and `palette`.
        outputs: where to write.
        format: one of `FORMATS`.

    Raises:
        UsageError: an unknown format, or classes that it cannot hold.
    """
    if format not in FORMATS:
        raise UsageError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
    if card is not None:
        return FORMATS[format](outputs, card["classes"], card["palette"])
    if classes is None:
        raise ValueError("neither a number of classes nor a card")
    names = [f"class {index}" for index in range(classes)]
    return FORMATS[format](outputs, names, [voc_colour(index) for index in range(classes)])
