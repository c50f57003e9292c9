"""Label maps and overlays for a person's own pictures."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kfcn import tiling
from kfcn.data.dataset import voc_colour
from kfcn.data.decode import read_image
from kfcn.errors import DataError, UsageError
from kfcn.files import make_folder
from kfcn.saved import open_model
from kfcn.visualize import overlay, save_label_map, write_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The result of `predict`: label maps written, and what could not be read and why."""

    written: list[Path]
    failed: dict[Path, str]


def segment(model: keras.Model, image: np.ndarray) -> np.ndarray:
    """The class of each pixel of one image; a large one is done in tiles (`kfcn.tiling`).

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
    return model.predict_on_batch(image[None].astype("float32"))[0]


def predict(
    model: keras.Model | Path | str,
    images: Path | str | Iterable[Path | str],
    out: Path | str,
    progress: bool = False,
    crf: bool = False,
) -> Predictions:
    """Writes `<stem>.png` (palette label map) and `<stem>_overlay.jpg` for each image.

    Args:
        model: a net, its file, or a run folder.
        images: an image, a folder of images (not its subfolders), or several of both.
        out: folder for the results, made if it is missing.
        progress: show a progress bar.
        crf: put a dense CRF on top, tuned where the run folder has a `crf.json`.

    Returns:
        What was written. An image that cannot be read is told in `failed`; the others are done.

    Raises:
        UsageError: no image at all, or two images that would write the same file.
        KfcnError: the folder cannot be written to.
    """
    from tqdm import tqdm

    paths = _collect([images] if isinstance(images, (str, Path)) else list(images))
    model, card = open_model(model, crf)
    palette = (
        card["palette"] if card else [voc_colour(i) for i in range(model.outputs[0].shape[-1])]
    )
    out = make_folder(out)
    written, failed = [], {}
    for path in tqdm(paths, desc="predict", unit="image", disable=None if progress else True):
        try:
            image = read_image(path)
        except DataError as error:
            failed[path] = str(error)
            continue
        labels = segment(model, image)
        target = out / f"{path.stem}.png"
        save_label_map(target, labels, palette)
        picture = Image.fromarray(overlay(image, labels, palette))
        write_image(out / f"{path.stem}_overlay.jpg", picture, quality=92)
        written.append(target)
    return Predictions(written, failed)


def _collect(images: Sequence[Path | str]) -> list[Path]:
    """All images that are meant, in order; folders give theirs sorted by name."""
    paths = []
    for path in map(Path, images):
        if path.is_dir():
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
