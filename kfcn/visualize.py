"""Pictures: palette label maps, overlays, rows of image, truth and prediction, curves, heat."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from kfcn.errors import UsageError, counted
from kfcn.files import aside, save_picture
from kfcn.labels import IGNORE, VOID_COLOUR

Palette = Sequence[Sequence[int]]
"""RGB of each class, 0..255."""


def colours(palette: Palette) -> np.ndarray:
    """A palette of all 256 values, uint8 `(256, 3)`: the classes', then black, 255 cream."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    table[IGNORE] = VOID_COLOUR
    return table


def palette_picture(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> Image.Image:
    """Labels uint8 `(H, W)` as a palette picture whose indices are the classes."""
    picture = Image.fromarray(np.asarray(labels, np.uint8))  # mode L; putpalette makes it P
    picture.putpalette(colours(palette).tobytes())
    return picture


def overlay(
    image: np.ndarray, labels: np.ndarray, palette: Palette, strength: float = 0.55
) -> np.ndarray:
    """The image tinted with its classes' colours, outlines drawn at class boundaries.

    Args:
        image: uint8 `(H, W, 3)`.
        labels: uint8 `(H, W)`; 255 is left as it is.
        palette: RGB of each class (`kfcn.labels.tints`). Black, the background's, tints nothing.
        strength: share of the class colour, 0..1.

    Returns:
        uint8 `(H, W, 3)`.
    """
    # OpenCV takes a fifth of NumPy's time for each of these.
    image, labels = np.ascontiguousarray(image), np.asarray(labels, np.uint8)
    table = colours(palette)
    painted = cv2.LUT(cv2.merge([labels] * 3), table[None])
    tinted = cv2.addWeighted(image, 1 - strength, painted, strength, 0)
    untinted = np.asarray(~table.any(axis=1), np.uint8)
    untinted[IGNORE] = 1
    cv2.copyTo(image, cv2.LUT(labels, untinted), tinted)
    outlines = boundaries(labels) & (labels != IGNORE)
    cv2.copyTo(np.full_like(image, 255), outlines.view(np.uint8), tinted)
    return tinted


def boundaries(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label, as a bool `(H, W)`."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def draw_joints(
    picture: Image.Image, joints: np.ndarray, skeleton: Sequence[tuple[int, int]]
) -> Image.Image:
    """Draws the joints of people over a picture, in place.

    Args:
        picture: RGB.
        joints: `(people, K, 3)` of x, y in pixels and visibility: 0 is not drawn, 1 (hidden) is a
            ring, 2 (seen) a dot.
        skeleton: pairs of joints that a line connects.
    """
    draw = ImageDraw.Draw(picture)
    for person in np.asarray(joints).tolist():
        for a, b in skeleton:
            if person[a][2] and person[b][2]:
                draw.line((*person[a][:2], *person[b][:2]), (255, 255, 0), 2)
        for x, y, seen in person:
            if seen:
                fill = (255, 80, 0) if seen == 2 else None
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill, (255, 255, 255))
    return picture


def comparison(
    rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, str]],
    classes: Sequence[str],
    palette: Palette,
) -> Image.Image:
    """Rows of image, truth and prediction side by side, with a legend of the classes below.

    Args:
        rows: sequence of `(image, truth, prediction, name)`; the sizes may differ.
        classes: class names.
        palette: RGB of each class.
    """
    gap, caption = 4, 16
    heights = [row[0].shape[0] + caption for row in rows]
    width = max(3 * row[0].shape[1] + 2 * gap for row in rows)
    legend = _legend(classes, palette, width)
    canvas = Image.new("RGB", (width, sum(heights) + gap + legend.height), "white")
    draw = ImageDraw.Draw(canvas)
    y = 0
    for (image, truth, prediction, name), height in zip(rows, heights, strict=True):
        w = truth.shape[1]
        table = colours(palette)
        tiles = (image, table[truth], overlay(image, prediction, palette))
        for column, tile in enumerate(tiles):
            canvas.paste(Image.fromarray(tile), (column * (w + gap), y + caption))
        agree = (prediction == truth)[truth != IGNORE]
        share = f"{100 * agree.mean():.1f} %" if agree.size else "no label"
        draw.text((2, y + 2), f"{name}   image | truth | prediction ({share} right)", "black")
        y += height
    canvas.paste(legend, (0, y + gap))
    return canvas


def _legend(classes, palette, width) -> Image.Image:
    """Class names with their colours, in as many lines as the width asks for."""
    places, x, y = [], 2, 2
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    for name, colour in zip(classes, palette, strict=True):
        length = 18 + int(ruler.textlength(name)) + 12
        if x + length > width and x > 2:
            x, y = 2, y + 18
        places.append((x, y, name, tuple(colour)))
        x += length
    legend = Image.new("RGB", (width, y + 20), "white")
    draw = ImageDraw.Draw(legend)
    for x, y, name, colour in places:
        draw.rectangle((x, y, x + 13, y + 13), colour, "black")
        draw.text((x + 18, y + 1), name, "black")
    return legend


def curves(history: Sequence[dict], path: Path) -> None:
    """Draws loss, mean IoU and learning rate over the epochs, for training and validation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # no pyplot: it keeps every figure alive

    epochs = [row["epoch"] for row in history]
    panels = (
        # What is minimised has class weights and may have more terms: two scales, not one.
        ("loss", {"loss": "training", "val_cross_entropy": "validation, cross entropy alone"}),
        ("mean IoU", {"mean_iou": "training", "val_mean_iou": "validation"}),
        ("learning rate", {"learning_rate": "training"}),
    )
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, keys) in zip(figure.subplots(1, 3), panels, strict=True):
        for key, label in keys.items():
            if key in history[0]:
                axes.plot(epochs, [row[key] for row in history], marker=".", label=label)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if len(keys) > 1:
            axes.legend()
    with aside(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def draw_class_heatmap(
    path: Path, image: np.ndarray, heat: np.ndarray, title: str, top: Sequence[tuple[str, float]]
) -> None:
    """Draws a class heatmap over its image with a colour bar, and the leading classes beside it.

    Args:
        path: a file to write; its ending says which format.
        image: `(H, W, 3)`, 0..255.
        heat: probabilities `(H, W)`, NaN where there are none.
        title: what the heat is of.
        top: `(label, mean probability over the map)`, the best first.

    Raises:
        UsageError: the ending names no format.
    """
    from matplotlib.figure import Figure

    kind = figure_format(path)
    height, width = image.shape[:2]
    ratio = min(max(width / height, 0.2), 8.0)  # of the panel; a longer picture is smaller in it
    figure = Figure(figsize=(4.5 * ratio + 4.5, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=(ratio, 0.6))
    # Grey, so that every colour in the picture is heat.
    axes[0].imshow(image @ np.array([0.299, 0.587, 0.114]), cmap="gray", vmin=0, vmax=255)
    # Thin where it is cold, so that the image stays visible there.
    alpha = np.nan_to_num(0.15 + 0.6 * heat / max(float(np.nanmax(heat)), 1e-12))
    overlay = axes[0].imshow(heat, cmap="inferno", alpha=alpha, vmin=0)
    axes[0].set_title(title)
    axes[0].set_axis_off()
    figure.colorbar(overlay, ax=axes[0], label="probability", shrink=0.9)
    labels = [label for label, _ in top]
    places = range(len(top))
    axes[1].barh(places, [share for _, share in top], color="tab:orange")
    axes[1].set_yticks(places, labels)
    axes[1].invert_yaxis()
    axes[1].set_xlabel("mean probability over the map")
    axes[1].set_title(f"top {counted(len(top), 'class', 'classes')}")
    for side in ("top", "right"):
        axes[1].spines[side].set_visible(False)

    content = io.BytesIO()  # as in `kfcn.files.save_picture`
    figure.savefig(content, format=kind, dpi=150)
    path.write_bytes(content.getbuffer())


def figure_format(path: Path) -> str:
    """The format that a figure's file name asks for, such as "png".

    Raises:
        UsageError: matplotlib writes no such format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    kind, known = path.suffix.removeprefix(".").lower(), FigureCanvasAgg.get_supported_filetypes()
    if kind not in known:
        raise UsageError(f"{path}: expected a name that ends in .{', .'.join(sorted(known))}")
    return kind


def write_image(path: Path, picture: Image.Image, format: str, **options: Any) -> None:
    """Saves a picture aside and renames it, so that no half-written file is ever found."""
    with aside(path) as temporary:
        save_picture(picture, temporary, format, **options)
