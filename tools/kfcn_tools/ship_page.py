"""The page of a pretrained net, made from its card: `docs/pretrained/NAME.md` and its pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kfcn.files import read_object
from kfcn.labels import tints
from kfcn.pretrained import CARD, MODEL
from kfcn.saved import load_model
from kfcn.visualize import overlay, write_image


def command(name: str) -> str:
    """The first thing to do with a net; its page has it, and is known by it."""
    return f"kfcn-predict {name} photo.jpg --out out"


def page(name: str, card: dict[str, Any]) -> str:
    """The page of a pretrained net, in Markdown, from its card."""
    metrics = card["metrics"]
    lines = [
        f"# {name}",
        "",
        f"{card['description'][:1].upper()}{card['description'][1:]}.",
        "",
        "```sh",
        command(name),
        "```",
        "",
        f"**Classes**: {', '.join(card['classes'])}.",
        "",
        f"**Trained on** {card['trained_on']}. {card['terms']}",
        "",
        f"**It does not know**: {card['does_not_know']}",
        "",
        f"**Net**: {card['architecture']} on {card['backbone']}, "
        f"{card['parameters'] / 1e6:.2f} M parameters; input RGB of any size.",
        "",
        f"**How it was made**: {card['time']} on {card['hardware']}.",
        "",
        "```sh",
        card["command"],
        "```",
        *(["", f"**Pictures that come along**: {card['credits']}"] if "credits" in card else []),
        *(
            line
            for example in _examples(card)
            for line in ("", f"![The picture, and what the net sees in it]({name}_{example})")
        ),
        "",
        f"## Measured on {card['measured_on']}",
        *(["", f"{card['unseen']}."] if "unseen" in card else []),
        "",
        f"{metrics['images']} images at full size, {metrics['protocol']}. Boundary IoU says little "
        "where the labels leave the outlines void, as PASCAL VOC's and NYUDv2's do.",
        "",
        "| pixel accuracy | mean accuracy | mean IoU | f.w. IoU | boundary IoU |",
        "|---|---|---|---|---|",
        "| "
        + " | ".join(
            f"{100 * metrics[key]:.1f}"
            for key in (
                *("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou"),
                "boundary_iou",
            )
        )
        + " |",
        "",
        *_by_class(metrics["class_iou"], card.get("unseen_class_iou")),
        "",
        f"## On a phone: {' x '.join(map(str, card['tflite']['size']))}",
        "",
        f"Against the labels of the Keras model on {card['tflite']['golden_images']} images; "
        f"milliseconds are the median on one thread of {card['tflite']['hardware']}.",
        "",
        "| file | KiB | equal labels % | worst image % | mean IoU | ms |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{m['file']}` | {m['bytes'] / 1024:.0f} | {100 * m['agreement']:.3f} | "
            f"{100 * m['worst_image']:.3f} | {100 * m['mean_iou']:.2f} | {m['milliseconds']:.1f} |"
            for m in card["tflite"]["models"]
        ),
        *_missed(card["tflite"]["models"]),
        "",
        f"Kernels are rounded to half precision; that changed "
        f"{100 * card['labels_changed_by_rounding']:.4f} % of the labels.",
        "",
    ]
    return "\n".join(lines)


def _by_class(seen: dict[str, float | None], unseen: dict[str, float | None] | None) -> list[str]:
    """The table of classes; a second column where a twin was measured on what it had not seen."""

    def cell(iou: float | None) -> str:
        return "absent" if iou is None else f"{100 * iou:.1f}"

    if unseen is None:
        return ["| class | IoU |", "|---|---|", *(f"| {c} | {cell(v)} |" for c, v in seen.items())]
    rows = (f"| {c} | {cell(v)} | {cell(unseen[c])} |" for c, v in seen.items())
    return ["| class | IoU | of the twin |", "|---|---|---|", *rows]


def _examples(card: dict[str, Any]) -> list[str]:
    return sorted(name for name in card["files"] if name.startswith("example_"))


def draw(name: str, shipped: Path, docs: Path) -> None:
    """Writes each example beside what the net sees in it, for the page."""
    from kfcn.data.formats.images import read_image
    from kfcn.inference.segment import segment

    card, net = read_object(shipped / CARD), load_model(shipped / MODEL)
    palette = tints(card["classes"], card["palette"])
    for example in _examples(card):
        image = read_image(shipped / example)
        seen = overlay(image, segment(net, image), palette)
        both = Image.fromarray(np.hstack([image, seen]))
        write_image(docs / f"{name}_{example}", both, "PNG" if example.endswith("png") else "JPEG")


def _missed(models: list[dict[str, Any]]) -> list[str]:
    """A paragraph on the gates of `kfcn-validate` that files miss; nothing where they miss none."""
    words = {
        "agreement": "all pixels together",
        "image": "the worst image",
        "confident": "sure pixels",
    }
    lines = [
        f"`{model['file']}` misses the gate of {100 * limit:.1f} % for {words.get(gate, gate)}."
        for model in models
        for gate, limit in model.get("missed_gates", {}).items()
    ]
    return (
        ["", *lines, "The more classes there are, the more pixels lie between two."]
        if lines
        else []
    )
