"""The run folder: what a run leaves, and all that is needed to continue it."""

import csv
import dataclasses
import importlib.metadata
import io
import json
import platform
from pathlib import Path
from typing import Any

from kfcn.errors import KfcnError, UsageError, first_line
from kfcn.files import make_folder, write_json, write_text
from kfcn.saved import CARD
from kfcn.training.settings import Settings

_PACKAGES = ("kfcn", "tensorflow", "keras", "numpy", "pillow", "tensorflow-datasets")


class RunFolder:
    """Paths and small files of one run.

    config.json    resolved settings and package versions
    model.keras    the best net on validation; model.json is its card
    checkpoints/   weights, optimizer, seeds and history of the last epochs
    history.csv    a row for each epoch; curves.png draws it
    overlays.png   validation images beside truth and prediction
    tensorboard/   the same for TensorBoard
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.checkpoints = self.path / "checkpoints"
        self.history = self.path / "history.csv"
        self.curves = self.path / "curves.png"
        self.overlays = self.path / "overlays.png"
        self.tensorboard = self.path / "tensorboard"

    def stored_settings(self) -> dict[str, Any] | None:
        """The settings with which the run was started; None for a new run.

        Raises:
            KfcnError: the file is damaged.
            UsageError: the folder holds something else.
        """
        if self.config.is_file():
            try:
                return json.loads(self.config.read_text(encoding="utf-8"))["settings"]
            except (ValueError, KeyError, TypeError) as error:
                raise KfcnError(
                    f"{self.config} is damaged ({first_line(error)}); choose another --run-dir"
                ) from error
        if self.path.is_dir() and any(self.path.iterdir()):
            raise UsageError(f"{self.path} is not empty and holds no run; choose another --run-dir")
        return None

    def start(self, settings: Settings) -> None:
        """Makes the folder and writes `config.json`."""
        make_folder(self.checkpoints)
        versions = {"python": platform.python_version()}
        for package in _PACKAGES:
            versions[package] = importlib.metadata.version(package)
        write_json(self.config, {"settings": dataclasses.asdict(settings), "versions": versions})

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Writes `history.csv` from all rows, so that a repeated epoch has one row."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.history, text.getvalue())


def run_path(settings: Settings) -> Path:
    """`runs/DATA-ARCH`, or `-2` and so on where that is taken.

    A folder is not taken by an unfinished run of the same settings: that is the one to go on
    with, so that the same command resumes it.
    """
    name = f"{settings.data}-{settings.arch}"
    path, number = Path("runs") / name, 2
    while path.exists() and not _unfinished(RunFolder(path), settings):
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path


def _unfinished(run: RunFolder, settings: Settings) -> bool:
    try:
        stored = run.stored_settings()
    except KfcnError:
        return False
    same = stored == json.loads(json.dumps(dataclasses.asdict(settings)))
    return same and not (run.path / CARD).is_file()
