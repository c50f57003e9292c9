"""`kfcn-data suspects`: ranks the labels of a data set by how much nets contradict them."""

import dataclasses
import html
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw

from kfcn.data import Dataset
from kfcn.data.audit.check import checked_sample
from kfcn.errors import counted
from kfcn.files import as_csv
from kfcn.inference.formats.labelme import seen_from
from kfcn.inference.runtime.net import quickest
from kfcn.inference.segment import image_logits
from kfcn.labelling.folds import Fold
from kfcn.labelling.suspects import Region, own_probabilities, picture_score, ranked, regions
from kfcn.labels import IGNORE, tints
from kfcn.outputs import Outputs
from kfcn.pages import document, figure
from kfcn.visualize import overlay

SHOWN = 60
"""Regions on the page; the tables hold all."""
MARGIN = 24  # pixels around a region that its pictures show at least

FILES = ("suspects.html", "pictures.csv", "regions.csv")


@dataclasses.dataclass(frozen=True)
class Suspects:
    """What was found in one split.

    Attributes:
        dataset: the whole split.
        scores: float64 `(N,)`, soft minimum of each picture's own probabilities; low is suspicious.
        regions: the contradicted regions, the most suspicious first.
        predictions: by picture, uint8 `(H, W)`, of the pictures with a region on the page.
    """

    dataset: Dataset
    scores: np.ndarray
    regions: list[Region]
    predictions: dict[int, np.ndarray]

    def picture_scores(self) -> np.ndarray:
        """float64 `(N,)`: of each picture its most suspicious region's score, 0 without any."""
        best = np.zeros(len(self.dataset))
        for region in self.regions:
            best[region.picture] = max(best[region.picture], region.score)
        return best


def find_suspects(dataset: Dataset, folds: Iterable[Fold], progress: bool = False) -> Suspects:
    """Scores each picture and region of a split.

    Args:
        dataset: the whole split.
        folds: its parts, each with a net that has not seen it; together the whole split.
        progress: show a progress bar.

    Raises:
        DataError: a file that cannot be used.
    """
    from tqdm import tqdm

    scores = np.full(len(dataset), np.nan)
    found: list[Region] = []
    best: list[Region] = []  # those that stand on the page
    shown: dict[int, np.ndarray] = {}
    hidden = None if progress else True
    with tqdm(total=len(dataset), desc="suspects", unit="image", disable=hidden) as bar:
        for fold in folds:
            net = quickest(fold.model)
            for index in range(len(fold.dataset)):
                image, labels, _ = checked_sample(fold.dataset, index)
                logits = image_logits(net, image)
                picture = fold.first + index
                scores[picture] = picture_score(own_probabilities(logits, labels))
                here = regions(picture, logits, labels)
                if here:
                    shown[picture] = logits.argmax(-1).astype(np.uint8)
                    found += here
                    best = ranked([*best, *here])[:SHOWN]
                    keep = {region.picture for region in best}
                    shown = {key: value for key, value in shown.items() if key in keep}
                bar.update()
    return Suspects(dataset, scores, ranked(found), shown)


def write_suspects(suspects: Suspects, outputs: Outputs) -> None:
    """Writes `FILES` into the folder of `outputs`, which the caller has locked."""
    page, pictures, table = (outputs.folder / name for name in FILES)
    dataset, names = suspects.dataset, suspects.dataset.classes.names
    order = np.argsort(suspects.scores, kind="stable").tolist()
    worst = suspects.picture_scores()
    outputs.write_text(
        pictures,
        as_csv(
            ("picture", "labels", "score", "worst_region"),
            (
                (
                    dataset.file_name(i),
                    dataset.label_name(i),
                    f"{suspects.scores[i]:.6f}",
                    f"{worst[i]:.3f}",
                )
                for i in order
            ),
        ),
    )
    outputs.write_text(
        table,
        as_csv(
            (
                *("picture", "labels", "label", "seen", "score", "own_probability", "pixels"),
                *("left", "top", "right", "bottom"),
            ),
            (
                (
                    dataset.file_name(r.picture),
                    dataset.label_name(r.picture),
                    names[r.label],
                    names[r.seen],
                    f"{r.score:.3f}",
                    f"{r.own:.4f}",
                    r.pixels,
                    *r.box,
                )
                for r in suspects.regions
            ),
        ),
    )
    outputs.write_text(page, _page(suspects, outputs.folder))


def _page(suspects: Suspects, folder: Path) -> str:
    dataset, names = suspects.dataset, suspects.dataset.classes.names
    title = f"{dataset.name}/{dataset.split}: suspicious labels"
    shown = suspects.regions[:SHOWN]
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{counted(len(suspects.regions), 'region')} in {counted(len(dataset), 'picture')}: "
        "labelled as one class and surely seen as another by a net that was not trained on them; "
        f"the {len(shown)} most suspicious are shown here, and all are listed in "
        f"<code>{FILES[2]}</code>. The net may be wrong: check before you correct.</p>",
    ]
    for number, region in enumerate(shown, start=1):
        body.append(
            f"<h2>{number}. {html.escape(dataset.label_name(region.picture))}: labelled "
            f"{html.escape(names[region.label])}, seen as {html.escape(names[region.seen])}</h2>"
            f"<p>{region.pixels} pixels; the label's probability is {100 * region.own:.1f} %.</p>"
            f'<div class="row">{"".join(_pictures(suspects, region, folder))}</div>'
        )
    return document(title, "".join(body))


def _pictures(suspects: Suspects, region: Region, folder: Path) -> Iterable[str]:
    """The region in the image, in the labels, as predicted, and where the two differ."""
    dataset = suspects.dataset
    image, labels, _ = dataset[region.picture]
    seen, classes = suspects.predictions[region.picture], dataset.classes
    palette = tints(classes.names, classes.palette)
    left, top, right, bottom = region.box
    spare = max(MARGIN, (right - left) // 2, (bottom - top) // 2)
    height, width = labels.shape
    rows = slice(max(top - spare, 0), min(bottom + spare, height))
    columns = slice(max(left - spare, 0), min(right + spare, width))
    box = (left - columns.start, top - rows.start, right - columns.start, bottom - rows.start)
    part, truth, found = image[rows, columns], labels[rows, columns], seen[rows, columns]
    differs = np.where(((truth != found) & (truth != IGNORE))[..., None], (255, 0, 80), part // 3)
    files = (dataset.image_file(region.picture), dataset.label_file(region.picture))
    links = [quote(seen_from(folder, file), safe="/:") if file else "" for file in files]
    for what, pixels, link in (
        ("image", part, links[0]),
        ("labels", overlay(part, truth, palette), links[1]),
        ("prediction", overlay(part, found, palette), ""),
        ("difference", differs.astype(np.uint8), ""),
    ):
        picture = Image.fromarray(pixels)
        ImageDraw.Draw(picture).rectangle(box, outline=(255, 255, 255))
        scale = max(1, 240 // max(picture.size))
        picture = picture.resize((picture.width * scale, picture.height * scale))
        yield figure(picture, what, link)
