"""What was measured, as a section of docs/RESULTS.md."""

from pathlib import Path
from typing import Any

from kfcn.errors import KfcnError, first_line
from kfcn.files import read_object
from kfcn_tools.benchmarks.labels.next_pictures import next_table
from kfcn_tools.benchmarks.labels.sparse import sparse_table
from kfcn_tools.benchmarks.labels.suspects import suspects_table
from kfcn_tools.benchmarks.labels.training import CLASS_WEIGHTS, EMA, RESULTS
from kfcn_tools.benchmarks.labels.unlabelled import unlabelled_table

TABLES = {
    "sparse": ("points and scribbles", sparse_table, "Mean IoU"),
    "unlabelled": ("pictures without labels", unlabelled_table, "Mean IoU"),
    "next": ("what to label next", next_table, "Mean IoU"),
    "suspects": ("errors planted in the training labels", suspects_table, "Average precision"),
}


def section(folder: Path | str) -> tuple[str, str]:
    """The title and the text of the measurement in a folder, Markdown.

    Raises:
        KfcnError: the folder holds none, or it is damaged.
    """
    file = Path(folder) / RESULTS
    try:
        stored = read_object(file)
        settings, units = stored["settings"], stored["units"]
        what, table, figure = TABLES[settings["what"]]
        title = f"{settings['data']}/{settings.get('val', 'train')}: {what}"
        lines = [
            f"{figure} in percent, of several seeds the mean with the least and the greatest. "
            f"{_how(settings)} {stored['machine']}.",
            "",
            table(settings, units),
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KfcnError(f"{file} is damaged: {first_line(error)}") from error
    return title, "\n".join(lines)


def _how(settings: dict[str, Any]) -> str:
    start = settings["init_from"] or f"{settings['weights']} weights"
    (height, width), (low, high) = settings["crop"], settings["scale"]
    grouped = f" Classes: `{settings['classes']}`." if "classes" in settings else ""
    smaller = f" of pictures made {settings['shrink']} times smaller"
    return (
        f"Each net: {settings['arch']} on {settings['backbone']} from {start}, {settings['steps']} "
        f"steps of {settings['batch_size']} crops of {height}x{width}"
        f"{smaller if settings['shrink'] > 1 else ''}, scale {low:g} to {high:g}, class weights "
        f"{CLASS_WEIGHTS}, ema {EMA:g}.{grouped}"
    )
