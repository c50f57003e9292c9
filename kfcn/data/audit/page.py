"""`check.html`: the audit as a page with sample overlays, in one file that needs no other."""

import base64
import html
import io
from pathlib import Path

import numpy as np
from PIL import Image

from kfcn.data.audit.audit import Audit, SplitAudit, sizes_in_words
from kfcn.data.audit.check import class_weights
from kfcn.data.dataset import Dataset
from kfcn.errors import DataError
from kfcn.files import write_text
from kfcn.visualize import draw_joints, overlay

SHOWN = 12  # overlays of a split
WIDTH = 360  # of an overlay on the page

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
.chip { display: inline-block; width: .8em; height: .8em; border: 1px solid #777;
        margin-right: .5em }
.bar { display: inline-block; height: .7em; background: #7aa6d8; vertical-align: middle }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }
figure { margin: 0 } figure img { width: 100%; display: block }
figcaption { font-size: 12px; color: #555; overflow-wrap: anywhere }
.error { color: #a40000 } .warning { color: #8a5a00 } .fine { color: #1c6b1c }
"""


def write_page(path: Path | str, audit: Audit) -> None:
    """Writes the page; `SHOWN` images of each split are drawn with their labels."""
    name = html.escape(audit.splits[0].dataset.name)
    body = [f"<h1>{name}</h1>", _list("errors", audit.errors), _list("warnings", audit.warnings)]
    if not audit.errors:
        body.insert(1, '<p class="fine">No errors: ready for training.</p>')
    body += [_split(split) for split in audit.splits]
    write_text(
        path,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{name}: label audit</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n",
    )


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
            dataset.classes.palette,
            share,
            split.class_images,
            class_weights(counts, "median"),
            class_weights(counts, "sqrt"),
            strict=True,
        )
    ]
    masks = ", ".join(f"{n} {kind}" for kind, n in split.masks.most_common())
    return (
        f"<h2>{html.escape(dataset.split)}: {len(dataset)} images</h2>"
        f"<p>{html.escape(sizes_in_words(split))}. Masks: {html.escape(masks)}. "
        f"{counts.ignored} pixels are ignored.</p>"
        f'<div class="sheet">{"".join(_figures(dataset))}</div>'
        "<table><tr><th>class</th><th>share of labelled pixels</th><th>images</th>"
        f"<th>weight, median</th><th>weight, sqrt</th></tr>{''.join(rows)}</table>"
    )


def _figures(dataset: Dataset):
    spread = np.linspace(0, len(dataset) - 1, min(SHOWN, len(dataset))).astype(int)
    for index in dict.fromkeys(spread.tolist()):
        try:
            sample = dataset[index]
        except DataError:
            continue  # it stands among the errors
        if sample.image.shape[:2] != sample.labels.shape:
            continue
        picture = overlay(sample.image, sample.labels, dataset.classes.palette)
        joints, skeleton = dataset.joints(index)
        picture = draw_joints(Image.fromarray(picture), joints, skeleton)
        if picture.width > WIDTH:
            picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        content = base64.b64encode(file.getvalue()).decode()
        names = dataset.classes.names
        seen = [names[i] for i in np.unique(sample.labels) if i < len(names)]
        yield (
            f'<figure><img alt="" src="data:image/jpeg;base64,{content}">'
            f"<figcaption>{html.escape(sample.name)}: {html.escape(', '.join(seen))}"
            "</figcaption></figure>"
        )
