"""`kfcn-data next`: chooses the pictures to label next and writes labels to be corrected."""

import dataclasses
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kfcn.data import Dataset
from kfcn.data.formats.images import read_image
from kfcn.data.formats.text import nfc
from kfcn.errors import DataError, UsageError, counted
from kfcn.files import as_csv
from kfcn.inference.collect import collect
from kfcn.inference.runtime.net import quickest
from kfcn.inference.segment import image_logits
from kfcn.inference.writer import Writer
from kfcn.labelling.next_pictures import (
    choose,
    describer,
    description,
    picture_uncertainty,
    pixel_uncertainty,
)
from kfcn.labels import tints
from kfcn.pages import document, figure
from kfcn.visualize import overlay

TABLE, PAGE = "next.csv", "next.html"


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Which pictures to label next.

    Attributes:
        chosen: the most useful first.
        uncertainty: of each picture that was looked at, 0..1.
        labelled: how many were left out because they have labels already.
        failed: pictures that could not be read, and why.
        stretch: how pictures of more than 8 bits are read (`kfcn.data.Reading`).
    """

    chosen: list[Path]
    uncertainty: dict[Path, float]
    labelled: int
    failed: dict[Path, str]
    stretch: tuple[int, int] | None = None


def propose(
    model: keras.Model,
    images: Path | str | Iterable[Path | str],
    count: int,
    labelled: Sequence[Dataset] = (),
    progress: bool = False,
    stretch: tuple[int, int] | None = None,
) -> Proposal:
    """Looks at all pictures and chooses `count` of them.

    Args:
        model: a net of kfcn with a backbone.
        images: as in `kfcn.predict`.
        count: how many are wanted, at least 1.
        labelled: what has labels already, a net's training and validation splits; pictures of the
            same file name are left out, and those like them come late.
        progress: show a progress bar.
        stretch: how pictures of more than 8 bits are read (`kfcn.data.Reading`).

    Raises:
        UsageError: no picture is left to choose from.
    """
    from tqdm import tqdm

    if count < 1:
        raise UsageError(f"count {count}: expected 1 or more")
    paths = collect([images] if isinstance(images, (str, Path)) else list(images))
    net, body, known, vectors = quickest(model), describer(model), set(), []
    hidden = None if progress else True
    there = [(dataset, index) for dataset in labelled for index in range(len(dataset))]
    for dataset, index in tqdm(there, "labelled", unit="image", disable=hidden):
        known.add(nfc(Path(dataset.file_name(index)).stem))
        vectors.append(description(body, dataset[index].image))
    rest = [path for path in paths if nfc(path.stem) not in known]
    uncertainty, found, failed = {}, [], {}
    for path in tqdm(rest, "pictures", unit="image", disable=hidden):
        try:
            image = read_image(path, stretch=stretch)
        except DataError as error:
            failed[path] = str(error)
            continue
        uncertainty[path] = picture_uncertainty(image_logits(net, image))
        found.append(description(body, image))
    if not found:
        raise UsageError(
            f"none of {counted(len(paths), 'picture')} is left to choose from: "
            f"{counted(len(paths) - len(rest), 'has', 'have')} labels already, {len(failed)} "
            "cannot be read"
        )
    chosen = choose(
        list(uncertainty.values()), np.stack(found), count, np.stack(vectors) if vectors else None
    )
    ready = list(uncertainty)
    known_already = len(paths) - len(rest)
    return Proposal([ready[i] for i in chosen], uncertainty, known_already, failed, stretch)


def check_outputs(writer: Writer, chosen: Sequence[Path]) -> dict[Path, Path]:
    """As `Writer.check` of the chosen pictures, and of the table and the page too."""
    kept = writer.check(chosen)
    writer.outputs.check([writer.outputs.folder / name for name in (TABLE, PAGE)])
    return kept


def write_proposal(proposal: Proposal, model: keras.Model, writer: Writer) -> list[Path]:
    """Writes labels to be corrected for each chosen picture, `next.csv` and `next.html`.

    Args:
        proposal: what was chosen.
        model: the net.
        writer: of the pre-labels; its folder is locked by the caller.

    Returns:
        Files that a person has corrected already; they stay as they are.
    """
    outputs = writer.outputs
    table, page = outputs.folder / TABLE, outputs.folder / PAGE
    kept = check_outputs(writer, proposal.chosen)
    writer.start()
    net, figures = quickest(model), []
    for number, path in enumerate(proposal.chosen, start=1):
        image = read_image(path, stretch=proposal.stretch)
        logits = image_logits(net, image)
        labels = logits.argmax(-1).astype(np.uint8)
        if path not in kept:
            writer.write(path, image, labels)
        figures += _figures(
            number, path, image, labels, logits, proposal, tints(writer.names, writer.palette)
        )
    writer.finish([path for path in proposal.chosen if path not in kept])
    order = {path: number for number, path in enumerate(proposal.chosen, start=1)}
    ranked = sorted(
        proposal.uncertainty, key=lambda p: (order.get(p, np.inf), -proposal.uncertainty[p])
    )
    rows = ((order.get(p, ""), p, f"{proposal.uncertainty[p]:.5f}") for p in ranked)
    outputs.write_text(table, as_csv(("order", "picture", "uncertainty"), rows))
    title = f"{counted(len(proposal.chosen), 'picture')} to label next"
    outputs.write_text(page, document(title, f"<h1>{title}</h1>{''.join(figures)}"))
    return list(kept.values())


def _figures(number, path, image, labels, logits, proposal, palette) -> list[str]:
    unsure = pixel_uncertainty(logits)[..., None]
    heat = image // 3 * (1 - unsure) + np.array([255, 60, 0]) * unsure
    return [
        f"<h2>{number}. {html.escape(path.name)}</h2>"
        f"<p>uncertainty {proposal.uncertainty[path]:.3f}</p>"
        '<div class="row">',
        figure(Image.fromarray(image), "picture", path.resolve().as_uri()),
        figure(Image.fromarray(overlay(image, labels, palette)), "prediction, to be corrected"),
        figure(Image.fromarray(heat.astype(np.uint8)), "where the net is unsure"),
        "</div>",
    ]
