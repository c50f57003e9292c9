"""Label maps and overlays for a person's own pictures."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras

from kfcn.data.formats.images import read_image
from kfcn.errors import KfcnError
from kfcn.inference.collect import collect
from kfcn.inference.segment import segment
from kfcn.inference.writer import Writer, writer_for
from kfcn.outputs import Outputs
from kfcn.saved import files_of, open_model


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The result of `predict`.

    Attributes:
        written: the file of each picture that says what it shows, such as its label map.
        failed: pictures that could not be read or whose results could not be written, and why.
        kept: files that are not as kfcn wrote them, such as corrected polygons; they stay, and
            their pictures were left out.
    """

    written: list[Path]
    failed: dict[Path, str]
    kept: list[Path] = dataclasses.field(default_factory=list)


def predict(
    model: keras.Model | Path | str,
    images: Path | str | Iterable[Path | str],
    out: Path | str,
    progress: bool = False,
    crf: bool = False,
    format: str = "png",
    overwrite: bool = False,
) -> Predictions:
    """Writes `<stem>.png` (palette label map) and `<stem>_overlay.jpg` for each image.

    Nothing of the user's is replaced: results that kfcn wrote and nobody has changed are written
    anew; those that have been changed stay, and their pictures are left out.

    Args:
        model: a net, its file, or a run folder.
        images: an image, a folder of images (not its subfolders), a pattern such as `in/**/*.jpg`,
            a `.txt` file with a path a line, or several of these.
        out: folder for the results, made if it is missing.
        progress: show a progress bar.
        crf: put a dense CRF on top, tuned where the run folder has a `crf.json`.
        format: "labelme" writes `<stem>.json` with polygons instead, to be corrected in labelme
            and read again by the data set `folder`.
        overwrite: replace existing files, whoever wrote them; the images themselves never.

    Returns:
        What was written. An image that cannot be read is in `failed`; the others are done.

    Raises:
        UsageError: no image at all, two images that would write the same file, a file to be
            written that is an input or not kfcn's, another command that writes there, or an
            unknown format.
        KfcnError: the folder cannot be written to.
    """
    from tqdm import tqdm

    images = [images] if isinstance(images, (str, Path)) else list(images)
    paths = collect(images)
    outputs = Outputs(out, [*inputs_of(model, images), *paths], overwrite)
    net, card = open_model(model, crf)
    writer = writer_for(net, card, outputs, format)
    writer.check(paths)
    written, failed = [], {}
    with outputs.lock():
        kept = writer.check(paths)  # again, now that nobody else writes there
        writer.start()
        chosen = [path for path in paths if path not in kept]
        for path in tqdm(chosen, desc="predict", unit="image", disable=None if progress else True):
            if reason := predict_file(net, path, writer):
                failed[path] = reason
            else:
                written.append(path)
        writer.finish(written)
    return Predictions([writer.targets(path)[-1] for path in written], failed, list(kept.values()))


def inputs_of(model: keras.Model | Path | str, images: Sequence[Path | str]) -> list[Path | str]:
    """The files that a prediction reads beside the pictures: the model's, and lists."""
    return [*images, *(() if isinstance(model, keras.Model) else files_of(model))]


def predict_file(model: keras.Model, path: Path, writer: Writer) -> str | None:
    """Segments one image file and writes the result; why that could not be done, or None."""
    try:
        image = read_image(path)
        writer.write(path, image, segment(model, image))
    except KfcnError as error:
        return str(error)
    return None
