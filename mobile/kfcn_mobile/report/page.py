"""The report as one HTML file that needs nothing else: styles and pictures stand in it."""

import base64
import html
import io

from PIL import Image

from kfcn_mobile.bundle import Bundle
from kfcn_mobile.gates import explain
from kfcn_mobile.report.pictures import disagreement
from kfcn_mobile.report.table import confidence_lines, hash_rows, kernels

# Pictures are the bulk of the file: the worst few of each mode show where a net changed.
PICTURES = 3
PICTURE_WIDTH = 960

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--bad:#c8102e;--good:#1a7f37;--bar:#3b82f6}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}
.wide{overflow-x:auto}.failed{color:var(--bad);font-weight:600}.passed{color:var(--good)}
.bars{display:flex;align-items:flex-end;gap:2px;height:90px;border-bottom:1px solid var(--line)}
.bars i{flex:1;max-width:28px;background:var(--bar);min-height:1px}
.bars i.low{background:var(--bad)}
figure{margin:1rem 0}img{max-width:100%;height:auto;border:1px solid var(--line)}
figcaption,.note{color:GrayText;font-size:.9rem}code{overflow-wrap:anywhere}
"""


def html_page(bundle: Bundle, report: dict, label_maps: dict) -> str:
    """The report of `kfcn_mobile.validate.validate` as a self-contained HTML page."""
    source = report["source"] or {}
    verdict = "passed" if report["passed"] else "failed"
    height, width = report["size"]
    golden = report["golden_images"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>kfcn: agreement report</title><style>{_STYLE}</style>",
        f"<h1>Agreement report: <span class={verdict}>{verdict}</span></h1>",
        f"<p>{_text(source.get('name', report['bundle']))}, {height}×{width} pixels,"
        f" {golden} golden image{'s' * (golden != 1)}."
        f" kfcn {_text(report['kfcn_version'])}, source sha256"
        f" <code>{_text(source.get('sha256', 'unknown'))}</code></p>",
        "<p class=note>Agreement: share of pixels whose label is the Keras float32 model's. Edge:"
        " within 3 pixels of a class boundary. Confident: the Keras model's two highest logits"
        " are more than 1 apart.</p>",
        _targets_list(report),
        _models_table(report),
        *_promise(report),
        "<h2>By class</h2>",
        _classes_table(report),
    ]
    parts += [
        _model_section(bundle, model, label_maps[model["target"], model["mode"]])
        for model in _different(report)
    ]
    return "\n".join(parts) + "\n"


def _text(value) -> str:
    return html.escape(str(value))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3f}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{cell}" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows)
    return f"<div class=wide><table><tr>{head}{body}</table></div>"


def _different(report: dict) -> list[dict]:
    """The first target's files, and of the others those whose labels are not the same."""
    first = report["targets"][0]["name"]
    return [
        model
        for model in report["models"]
        if model["target"] == first or model["against_first"]["differing"]
    ]


def _targets_list(report: dict) -> str:
    items = "".join(
        f"<li><b>{_text(place['name'])}</b>: {_text(place['machine'])}"
        f"{' (times are the emulator’s)' if place['emulated'] else ''}</li>"
        for place in report["targets"]
    )
    return f"<p>Measured on</p><ul>{items}</ul>"


def _promise(report: dict) -> list[str]:
    if len(report["targets"]) == 1:
        return []
    header, *rows = ([_text(cell) for cell in row] for row in hash_rows(report))
    return [
        "<h2>Label maps across targets</h2>",
        "<p class=note>Start of each sha256, with the number of pixels that differ from the first"
        " target's. int8 must be the same wherever the same file runs on the same kernels: integer"
        " sums have no rounding, and every kernel library scales them in its own way. Where a file"
        " computes in float (dynamic ranges, layers kept in float) the order of a sum can change"
        " a label, and nothing is promised. Below, a file is shown once for each different set of"
        " labels.</p>",
        _table(header, rows),
        *(
            f"<p class=note>{_text(line)}"
            for line in (f"Kernels: {'; '.join(kernels(report))}.", *confidence_lines(report))
        ),
    ]


def _models_table(report: dict) -> str:
    threads = [run["threads"] for run in report["models"][0]["latency"]]
    header = [
        "target",
        "mode",
        "KiB",
        "agreement %",
        "worst image %",
        "edge %",
        "away %",
        "confident %",
    ]
    header += ["mean IoU", "Keras mean IoU"]
    header += [f"ms, {n} thread{'s' * (n > 1)} (p90)" for n in threads]
    header += ["model MiB", "gate"]
    rows = []
    for model in report["models"]:
        row = [_text(model["target"]), _text(model["mode"]), f"{model['bytes'] / 1024:.0f}"]
        row += [
            _percent(value)
            for value in (
                model["agreement"],
                model["worst_image"]["agreement"],
                model["boundary"],
                model["interior"],
                model["confident"],
            )
        ]
        row += [
            "–" if iou is None else f"{iou:.4f}"
            for iou in (model["mean_iou"], model["mean_iou_keras"])
        ]
        timed = {run["threads"]: run for run in model["latency"]}
        row += [
            f"{timed[n]['median_ms']:.2f} ({timed[n]['p90_ms']:.2f})" if n in timed else "–"
            for n in threads
        ]
        memory = timed[1].get("model_bytes") if timed else None
        verdict = "failed" if model["failures"] else "passed"
        row += [
            "–" if memory is None else f"{memory / 2**20:.1f}",
            f"<span class={verdict}>{verdict}</span>",
        ]
        rows.append(row)
    return _table(header, rows)


def _classes_table(report: dict) -> str:
    models = _different(report)
    several = len(report["targets"]) > 1
    names = [f"{model['target']} " * several + model["mode"] for model in models]
    rows = [
        [_text(name)] + [_percent(model["classes"][name]) for model in models]
        for name in report["classes"]
    ]
    return _table(["class", *(_text(name) for name in names)], rows)


def _model_section(bundle: Bundle, model: dict, label_maps: list) -> str:
    images = sorted(model["images"], key=lambda image: image["agreement"])
    lowest = images[0]["agreement"]
    # The bars start a little under the lowest image: from zero all would look alike.
    floor = max(0.0, 1 - 1.25 * (1 - lowest)) if lowest < 1 else 0.0
    limit = model["limits"]["image"] or 0
    bars = "".join(
        f"<i class={'low' if image['agreement'] < limit else 'ok'}"
        f' style="height:{100 * (image["agreement"] - floor) / (1 - floor):.1f}%"'
        f' title="{_text(image["name"])}: {_percent(image["agreement"])} %"></i>'
        for image in images
    )
    parts = [
        f"<h2>{_text(model['target'])}: {_text(model['file'])}</h2>",
        *(
            f"<p class=failed>{_text(explain(model['mode'], failure))}</p>"
            for failure in model["failures"]
        ),
        f"<div class=bars>{bars}</div>",
        f"<p class=note>Each image's agreement, from the worst ({_percent(lowest)} %); the axis"
        f" runs from {_percent(floor)} to 100 %. Label maps' sha256"
        f" <code>{model['labels_sha256']}</code></p>",
    ]
    index = {golden.name: i for i, golden in enumerate(bundle.golden)}
    for image in images[:PICTURES]:
        if not image["differing"]:
            continue
        i = index[image["name"]]
        picture = disagreement(bundle.golden[i], label_maps[i], bundle.palette)
        count = image["differing"]
        parts.append(
            f'<figure><img alt="disagreement" src="{_data_url(picture)}">'
            f"<figcaption>{_text(image['name'])}: image, Keras labels, the file's labels, the"
            f" {count} differing pixel{'s' * (count != 1)}</figcaption></figure>"
        )
    return "\n".join(parts)


def _data_url(picture: Image.Image) -> str:
    if picture.width > PICTURE_WIDTH:
        size = (PICTURE_WIDTH, round(picture.height * PICTURE_WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
