"""Label maps and overlays for a person's own pictures."""

import dataclasses
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kfcn.data.formats.images import read_image
from kfcn.data.formats.labelme import to_labelme
from kfcn.errors import DataError, UsageError
from kfcn.files import make_folder, write_json, write_text
from kfcn.fused import run_net
from kfcn.inference import tiling
from kfcn.labels import voc_colour
from kfcn.saved import open_model
from kfcn.visualize import overlay, save_label_map, write_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The result of `predict`: label maps written, and what could not be read and why."""

    written: list[Path]
    failed: dict[Path, str]


def segment(model: keras.Model, image: np.ndarray) -> np.ndarray:
    """The class of each pixel of one image; a large one is done in tiles (`kfcn.inference.tiling`).

    Args:
        model: a net that takes `(B, H, W, 3)` RGB 0..255 and gives logits `(B, H, W, C)`.
        image: uint8 `(H, W, 3)`, RGB.

    Returns:
        uint8 `(H, W)`.
    """
    large = image.shape[0] * image.shape[1] > tiling.LARGE
    if large and tiling.margin(model) is not None:
        return tiling.segment_tiled(model, image)
    return np.argmax(image_logits(model, image), axis=-1).astype(np.uint8)


def image_logits(model: keras.Model, image: np.ndarray) -> np.ndarray:
    """The logits of one image: uint8 `(H, W, 3)` in, float32 `(H, W, C)` out."""
    return run_net(model, image[None].astype("float32"))[0]


FORMATS = ("png", "labelme")


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes what was predicted for an image.

    Attributes:
        out: folder for the results.
        names: of the classes.
        palette: RGB of each class.
        format: "png" for `<stem>.png` (palette label map) and `<stem>_overlay.jpg`; "labelme" for
            `<stem>.json` with polygons, and `classes.txt` with the names once.
    """

    out: Path
    names: Sequence[str]
    palette: Sequence[Sequence[int]]
    format: str = "png"

    def target(self, path: Path) -> Path:
        """The file that is written last: where it is, the image is done."""
        return self.out / f"{path.stem}.{'json' if self.format == 'labelme' else 'png'}"

    def write(self, path: Path, image: np.ndarray, labels: np.ndarray) -> None:
        """Writes the results of the image file `path`, last of all `target(path)`."""
        target = self.target(path)
        if self.format == "labelme":
            image_path = Path(os.path.relpath(path, self.out)).as_posix()
            write_json(target, to_labelme(labels, self.names, image_path))
        else:
            picture = Image.fromarray(overlay(image, labels, self.palette))
            write_image(self.out / f"{path.stem}_overlay.jpg", picture, quality=92)
            save_label_map(target, labels, self.palette)

    def start(self) -> None:
        """Makes the folder, and `classes.txt` where the format needs the names in order."""
        make_folder(self.out)
        if self.format == "labelme":
            lines = [
                f"{name} #{bytes(colour).hex()}\n"
                for name, colour in zip(self.names, self.palette, strict=True)
            ]
            write_text(self.out / "classes.txt", "".join(lines))


def writer_for(
    model: keras.Model | None, card: dict | None, out: Path | str, format: str
) -> Writer:
    """The writer with the names and colours of a model's card; without one, the model's classes.

    Raises:
        UsageError: an unknown format.
    """
    if format not in FORMATS:
        raise UsageError(f"format {format!r}: expected {' or '.join(FORMATS)}")
    if card is not None:
        return Writer(Path(out), card["classes"], card["palette"], format)
    classes = range(model.outputs[0].shape[-1])
    names = [f"class {index}" for index in classes]
    return Writer(Path(out), names, [voc_colour(index) for index in classes], format)


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


def collect(images: Sequence[Path | str]) -> list[Path]:
    """All images that are meant, in order.

    A folder and a pattern (`*`, `?`, `[`) give theirs sorted by name; a `.txt` file holds a path a
    line.
    """
    paths = []
    for path in map(Path, images):
        if glob.has_magic(str(path)) and not path.exists():
            inside = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
            if not inside:
                raise UsageError(f"{path}: no file is named like this")
            paths += inside
        elif path.suffix.lower() == ".txt" and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            paths += [Path(line.strip()) for line in lines if line.strip()]
        elif path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise UsageError(f"{path}: no images; expected {', '.join(sorted(SUFFIXES))}")
            paths += inside
        else:
            paths.append(path)  # a missing file is told with the unreadable ones
    seen = {}
    for path in paths:
        if path.stem in seen:
            raise UsageError(
                f"{seen[path.stem]} and {path} would both be written to {path.stem}.png; "
                "rename one, or write them to different folders"
            )
        seen[path.stem] = path
    if not paths:
        raise UsageError("no image to segment; expected image files or folders of them")
    return paths
