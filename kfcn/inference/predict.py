"""Label maps and overlays for a person's own pictures."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import keras

from kfcn.data.formats.images import read_image
from kfcn.errors import DataError
from kfcn.inference.collect import collect
from kfcn.inference.segment import segment
from kfcn.inference.writer import Writer, writer_for
from kfcn.saved import open_model


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The result of `predict`: label maps written, and what could not be read and why."""

    written: list[Path]
    failed: dict[Path, str]


def predict(
    model: keras.Model | Path | str,
    images: Path | str | Iterable[Path | str],
    out: Path | str,
    progress: bool = False,
    crf: bool = False,
    format: str = "png",
) -> Predictions:
    """Writes `<stem>.png` (palette label map) and `<stem>_overlay.jpg` for each image.

    Args:
        model: a net, its file, or a run folder.
        images: an image, a folder of images (not its subfolders), a pattern such as `in/**/*.jpg`,
            a `.txt` file with a path a line, or several of these.
        out: folder for the results, made if it is missing.
        progress: show a progress bar.
        crf: put a dense CRF on top, tuned where the run folder has a `crf.json`.
        format: "labelme" writes `<stem>.json` with polygons instead, to be corrected in labelme
            and read again by the data set `folder`.

    Returns:
        What was written. An image that cannot be read is told in `failed`; the others are done.

    Raises:
        UsageError: no image at all, two images that would write the same file, or an unknown
            format.
        KfcnError: the folder cannot be written to.
    """
    from tqdm import tqdm

    paths = collect([images] if isinstance(images, (str, Path)) else list(images))
    model, card = open_model(model, crf)
    writer = writer_for(model, card, out, format)
    writer.start()
    written, failed = [], {}
    for path in tqdm(paths, desc="predict", unit="image", disable=None if progress else True):
        if reason := predict_file(model, path, writer):
            failed[path] = reason
        else:
            written.append(writer.target(path))
    return Predictions(written, failed)


def predict_file(model: keras.Model, path: Path, writer: Writer) -> str | None:
    """Segments one image file and writes the result; why it could not be read, or None."""
    try:
        image = read_image(path)
    except DataError as error:
        return str(error)
    writer.write(path, image, segment(model, image))
    return None
