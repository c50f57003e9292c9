"""`check.html`: the audit as a page with sample overlays, in one file that needs no other."""

import html

import numpy as np
from PIL import Image

from kfcn.data.audit.audit import Audit, SplitAudit, sizes_in_words
from kfcn.data.audit.check import class_weights
from kfcn.data.dataset import Dataset, spread
from kfcn.errors import DataError, counted
from kfcn.labels import tints
from kfcn.pages import document, figure
from kfcn.visualize import draw_joints, overlay

SHOWN = 12  # overlays of a split


def page(audit: Audit) -> str:
    """The page as HTML; `SHOWN` images of each split are drawn with their labels."""
    name = html.escape(audit.splits[0].dataset.name)
    found = {"errors": audit.errors, "warnings": audit.warnings, "notes": audit.notes}
    body = [f"<h1>{name}</h1>", *(_list(title, lines) for title, lines in found.items())]
    if not audit.errors:
        body.insert(1, '<p class="fine">No errors: ready for training.</p>')
    body += [_split(split) for split in audit.splits]
    return document(f"{audit.splits[0].dataset.name}: label audit", "".join(body))


def _list(title: str, lines: list[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines[:100])
    more = f"<li>and {len(lines) - 100} more</li>" if len(lines) > 100 else ""
    return f'<h2>{len(lines)} {title}</h2><ul class="{title[:-1]}">{items}{more}</ul>'


def _split(split: SplitAudit) -> str:
    dataset, counts = split.dataset, split.counts
    share = counts.pixels / max(counts.pixels.sum(), 1)
    rows = [
        f'<tr><td><span class="chip" style="background:rgb{tuple(colour)}"></span>'
        f"{html.escape(name)}</td>"
        f'<td><span class="bar" style="width:{160 * part:.0f}px"></span> {100 * part:.3f} %</td>'
        f"<td>{images}</td><td>{median:.3f}</td><td>{root:.3f}</td></tr>"
        for name, colour, part, images, median, root in zip(
            dataset.classes.names,
            tints(dataset.classes.names, dataset.classes.palette),
            share,
            split.class_images,
            class_weights(counts, "median"),
            class_weights(counts, "sqrt"),
            strict=True,
        )
    ]
    masks = ", ".join(f"{n} {kind}" for kind, n in split.masks.most_common())
    return (
        f"<h2>{html.escape(dataset.split)}: {counted(len(dataset), 'image')}</h2>"
        f"<p>{html.escape(sizes_in_words(split))}. Masks: {html.escape(masks)}. "
        f"{counted(counts.ignored, 'pixel is', 'pixels are')} ignored.</p>"
        f'<div class="sheet">{"".join(_figures(dataset))}</div>'
        "<table><tr><th>class</th><th>share of labelled pixels</th><th>images</th>"
        f"<th>weight, median</th><th>weight, sqrt</th></tr>{''.join(rows)}</table>"
    )


def _figures(dataset: Dataset):
    names = dataset.classes.names
    palette = tints(names, dataset.classes.palette)
    for index in spread(len(dataset), SHOWN):
        try:
            sample = dataset[index]
        except DataError:
            continue  # it stands among the errors
        if sample.image.shape[:2] != sample.labels.shape:
            continue
        picture = overlay(sample.image, sample.labels, palette)
        joints, skeleton = dataset.joints(index)
        picture = draw_joints(Image.fromarray(picture), joints, skeleton)
        seen = [names[i] for i in np.unique(sample.labels) if i < len(names)]
        yield figure(picture, f"{sample.name}: {', '.join(seen)}")
