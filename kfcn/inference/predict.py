"""Label maps and overlays for a person's own pictures."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kfcn.data.formats.images import read_image
from kfcn.data.reading import Reading
from kfcn.errors import KfcnError, UsageError
from kfcn.inference.collect import collect
from kfcn.inference.formats import writer_for
from kfcn.inference.pipeline import pipelined
from kfcn.inference.runtime.net import AT_ONCE, Net, open_net
from kfcn.inference.segment import segment
from kfcn.inference.tiling import is_large
from kfcn.inference.writer import Writer
from kfcn.labels import is_background
from kfcn.outputs import Outputs
from kfcn.saved import files_of

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The result of `predict`.

    Attributes:
        written: the file of each picture that says what it shows, such as its label map.
        failed: pictures that could not be read or whose results could not be written, and why.
        kept: files that are not as kfcn wrote them, such as corrected polygons; they stay, and
            their pictures were left out.
        pixels: of each picture that was written, how many pixels show which class, the most
            frequent first; classes that do not occur are left out.
    """

    written: list[Path]
    failed: dict[Path, str]
    kept: list[Path] = dataclasses.field(default_factory=list)
    pixels: dict[Path, dict[str, int]] = dataclasses.field(default_factory=dict)

    @property
    def background_only(self) -> list[Path]:
        """The pictures in which the net saw nothing that it knows, but for a stray pixel."""
        return [path for path, counts in self.pixels.items() if _is_empty(counts)]


_LEAST = 0.0005
"""Of a picture: a few stray pixels, which a list would call 0.0 %, are not told."""


def _seen(counts: Mapping[str, int]) -> dict[str, float]:
    total = max(sum(counts.values()), 1)
    return {name: count / total for name, count in counts.items() if count >= _LEAST * total}


def _is_empty(counts: Mapping[str, int]) -> bool:
    return all(map(is_background, _seen(counts)))


def shares(counts: Mapping[str, int]) -> str:
    """Which classes a picture shows and how much of it each takes, in words.

    Classes of less than 0.05 % are left out.
    """
    if _is_empty(counts):
        return "background only"
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in _seen(counts).items())


def predict(
    model: "keras.Model | Path | str",
    images: Path | str | Iterable[Path | str],
    out: Path | str,
    progress: bool = False,
    crf: bool = False,
    format: str = "png",
    overwrite: bool = False,
    done: Callable[[Path, dict[str, int]], None] | None = None,
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
        format: "labelme" writes `<stem>.json` with polygons instead, to be corrected in labelme;
            "voc" the folders of PASCAL VOC; "coco" an instances file. The data set `folder` reads
            all three again.
        overwrite: replace existing files, whoever wrote them; the images themselves never.
        done: is called for each image that was written, with its pixels by class.

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
    net, card = open_net(model, crf, at_once=min(AT_ONCE, len(paths)))
    writer = writer_for(net.classes, card, outputs, format)
    read = functools.partial(read_image, stretch=Reading.of_card(card).stretch)
    writer.check(paths)
    pixels: dict[Path, dict[str, int]] = {}
    failed: dict[Path, str] = {}

    def write(path: Path, image: np.ndarray, labels: np.ndarray) -> dict[str, int]:
        writer.write(path, image, labels)
        return writer.count(labels)

    with outputs.lock():
        kept = writer.check(paths)  # again, now that nobody else writes there
        writer.start()
        chosen = [path for path in paths if path not in kept]
        compute = functools.partial(segment, net)
        outcomes = pipelined(chosen, read, compute, write, is_large, net.at_once)
        # Whatever ends the loop, no thread writes after it, and what is done is listed: two Ctrl-C
        # are needed to leave that out.
        with _finished(writer, pixels), contextlib.closing(outcomes):
            for path, outcome in tqdm(
                outcomes, "predict", len(chosen), unit="image", disable=None if progress else True
            ):
                if isinstance(outcome, UsageError):  # no picture's fault: none can be read
                    raise outcome
                if isinstance(outcome, KfcnError):
                    failed[path] = str(outcome)
                    continue
                pixels[path] = outcome
                if done is not None:
                    done(path, outcome)
    written = [writer.targets(path)[-1] for path in pixels]
    return Predictions(written, failed, list(kept.values()), pixels)


@contextlib.contextmanager
def _finished(writer: Writer, pixels: Mapping[Path, object]) -> Iterator[None]:
    """Writes what belongs to all pictures once they are done, or as many as could be."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(KfcnError):  # the disk may be full: the first error is told
            writer.finish(list(pixels))
        raise
    writer.finish(list(pixels))


def inputs_of(model: "keras.Model | Path | str", images: Sequence[Path | str]) -> list[Path | str]:
    """The files that a prediction reads beside the pictures: the model's, and lists."""
    return [*images, *(files_of(model) if isinstance(model, (str, Path)) else ())]


def predict_file(
    net: Net, path: Path, writer: Writer, stretch: tuple[int, int] | None = None
) -> str | None:
    """Segments one image file and writes the result; why that could not be done, or None."""
    try:
        image = read_image(path, stretch=stretch)
        writer.write(path, image, segment(net, image))
    except KfcnError as error:
        return str(error)
    return None
