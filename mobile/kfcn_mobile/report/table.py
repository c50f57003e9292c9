"""The report as plain text."""

from collections.abc import Sequence


def table(report: dict) -> str:
    """A line for each file and target; with several targets, their label hashes side by side."""
    rows = [("mode", "KiB", "agree %", "worst %", "edge %", "conf %", "mIoU", "ms x1", "gate")]
    emulated = {place["name"] for place in report["targets"] if place["emulated"]}
    several = len(report["targets"]) > 1
    for model in report["models"]:
        latency = model["latency"][0]["median_ms"] if model["latency"] else None
        mark = "*" if model["target"] in emulated else ""
        rows.append(
            (
                model["mode"],
                f"{model['bytes'] / 1024:.0f}",
                _percent(model["agreement"]),
                _percent(model["worst_image"]["agreement"]),
                _percent(model["boundary"]),
                _percent(model["confident"]),
                "-" if model["mean_iou"] is None else f"{model['mean_iou']:.4f}",
                "-" if latency is None else f"{latency:.2f}{mark}",
                "FAILED" if model["failures"] else "passed",
            )
        )
    if not several:
        return _aligned(rows)
    names = ["target", *(model["target"] for model in report["models"])]
    parts = [_aligned([(name, *row) for name, row in zip(names, rows, strict=True)])]
    if emulated:
        parts.append("* an emulator's time: it says nothing of the hardware")
    parts += ["", "sha256 of the label maps, and pixels that differ from the first target's"]
    parts.append(_aligned(hash_rows(report)))
    parts += ["", "kernels: " + "; ".join(kernels(report))]
    parts += confidence_lines(report)
    return "\n".join(parts)


def hash_rows(report: dict) -> list[tuple[str, ...]]:
    """Targets side by side: a row for each mode with the hash of each one's label maps."""
    names = [place["name"] for place in report["targets"]]
    by_key = {(model["target"], model["mode"]): model for model in report["models"]}
    rows = [("mode", *names)]
    for mode in dict.fromkeys(model["mode"] for model in report["models"]):
        cells = []
        for name in names:
            if (model := by_key.get((name, mode))) is None:
                cells.append("-")
                continue
            count = model["against_first"]["differing"]
            cells.append(model["labels_sha256"][:12] + (f" ({count} px)" if count else ""))
        rows.append((mode, *cells))
    return rows


def kernels(report: dict) -> list[str]:
    """Which kernels ran on each target, in words."""
    found: dict[str, list[str]] = {}
    for model in report["models"]:
        found.setdefault(model["target"], []).append(model["kernels"])
    return [f"{target}: {' and '.join(dict.fromkeys(names))}" for target, names in found.items()]


def confidence_lines(report: dict) -> list[str]:
    """How far the probabilities are off, for targets that give any."""
    return [
        f"{model['target']} {model['mode']}: probabilities at most"
        f" {model['confidence_error']['value']:.1e} from the softmax of the Keras logits"
        for model in report["models"]
        if model["confidence_error"]
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(r, widths, strict=True))
        )
        for r in rows
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3f}"
