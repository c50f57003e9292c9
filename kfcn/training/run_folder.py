"""The run folder: what a run leaves, and all that is needed to continue it."""

import contextlib
import csv
import dataclasses
import importlib.metadata
import io
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kfcn.errors import KfcnError, UsageError, first_line, received
from kfcn.files import TEMPORARY, make_folder, read_object, write_json, write_text
from kfcn.machine import (
    ONEDNN,
    ONEDNN_MOST,
    WIDTHS,
    cores,
    cpu_name,
    instruction_set,
    onednn_instructions,
    onednn_is_on,
)
from kfcn.outputs import locked
from kfcn.saved import CARD, CONFIG, MODEL
from kfcn.training.resolution import FORMAT, OtherStartError, from_stored
from kfcn.training.settings import Settings

UNLABELLED = "unlabelled_dir"
"""The name of the pictures without labels among the splits, for their fingerprints."""
_LOCK = ".lock"
_PACKAGES = ("kfcn", "tensorflow", "keras", "numpy", "pillow", "tensorflow-datasets")


class RunFolder:
    """Paths and small files of one run.

    config.json    resolved settings, hashes of the data sets' files, versions, the machine, and
                   what `model.json` will say and is known already
    model.keras    the best net on validation; model.json is its card
    checkpoints/   weights, optimizer, seeds and history of the last epochs; the lock
    history.csv    a row for each epoch; curves.png draws it
    overlays.png   validation images beside truth and prediction
    tensorboard/   the same for TensorBoard
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.config = self.path / CONFIG
        self.checkpoints = self.path / "checkpoints"
        self.history = self.path / "history.csv"
        self.curves = self.path / "curves.png"
        self.overlays = self.path / "overlays.png"
        self.tensorboard = self.path / "tensorboard"

    def stored_settings(self) -> Settings | None:
        """The settings with which the run was started; None for a new run.

        Raises:
            KfcnError: the file is damaged.
            UsageError: the folder holds something else.
        """
        if self.config.is_file():
            try:
                return from_stored(read_config(self.config))
            except (KfcnError, ValueError) as error:
                raise KfcnError(
                    f"{self.config} is damaged ({first_line(error)}); choose another --run-dir"
                ) from error
        if self.path.is_file():
            raise UsageError(f"{self.path} is a file; choose another --run-dir")
        if self.path.is_dir() and not all(map(self._is_of_a_start, self.path.iterdir())):
            raise UsageError(f"{self.path} is not empty and holds no run; choose another --run-dir")
        return None

    def _is_of_a_start(self, path: Path) -> bool:
        """Whether it is what a start leaves that ended before `config.json` was written."""
        if path == self.checkpoints and path.is_dir():
            return all(inner.name == _LOCK or _is_half(inner) for inner in path.iterdir())
        return _is_half(path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training in this folder, which is made.

        The operating system releases the lock when the process ends, however it ends.

        Raises:
            UsageError: another process trains in it.
            KfcnError: the folder cannot be written to.
        """
        busy = (
            f"another process is training in {self.path}; wait for it, or choose another --run-dir"
        )
        with locked(make_folder(self.checkpoints) / _LOCK, busy):
            yield

    def check_data(self, settings: Settings, data: Mapping[str, str]) -> None:
        """Makes sure that a run goes on with the data that it was started with, wherever they lie.

        Args:
            settings: with the folder of the data set as it is now.
            data: split or `UNLABELLED` -> `Dataset.fingerprint`, as it is now.

        Raises:
            OtherStartError: the run was started with other data.
            KfcnError: `config.json` is damaged.
        """
        stored = self.stored_settings()
        if stored is None:
            return
        known = read_config(self.config).get("data")
        if isinstance(known, dict):
            changed = []
            for part in sorted(part for part in data if data[part] != known.get(part)):
                now, then = data_place(settings, part), data_place(stored, part)
                changed.append(
                    f"{now} had other files then"
                    if now == then
                    else f"{now} has other files than {then} had"
                )
            what = f"{self.path} was started with other data: {'; '.join(changed)}"
        else:  # written before fingerprints were stored
            changed = settings.data_dir != stored.data_dir
            what = (
                f"{self.path} was started with data_dir={stored.data_dir} (now "
                f"{settings.data_dir}) and does not say which files were there"
            )
        if changed:
            raise OtherStartError(what, "continue it with the data it had", self.path)

    @property
    def finished(self) -> bool:
        return (self.path / CARD).is_file()

    def holds_results(self) -> bool:
        """Whether it has a net that took more than an epoch."""
        if not (self.path / MODEL).is_file():
            return False
        rows = self.history.read_text().splitlines()[1:] if self.history.is_file() else []
        return len(rows) > 1

    def start(
        self,
        settings: Settings,
        data: Mapping[str, str] | None = None,
        card: Mapping[str, Any] | None = None,
        goes_on: bool = False,
    ) -> None:
        """Makes the folder and writes `config.json`.

        Args:
            settings: of the run.
            data: split or `UNLABELLED` -> `Dataset.fingerprint`.
            card: what is known of the net's card; `kfcn.cards.read_card` gives it until there is
                a card.
            goes_on: whether it goes on from a checkpoint: what it began on is kept then.
        """
        make_folder(self.checkpoints)
        versions = {"python": platform.python_version()}
        for package in _PACKAGES:
            versions[package] = importlib.metadata.version(package)
        begun = {}
        if goes_on:
            with contextlib.suppress(ValueError):  # damaged: said by who reads the settings in it
                begun = read_config(self.config)
        contents = {
            "format": FORMAT,
            "settings": dataclasses.asdict(settings),
            "data": dict(data or {}),
            "versions": begun.get("versions") or versions,
            "machine": begun.get("machine") or machine(),
            "card": dict(card or {}),
        }
        write_json(self.config, contents)

    def other_kernels(self) -> str | None:
        """What differs from the start of the run in how this process computes; None for nothing."""
        before = read_config(self.config).get("machine", {})
        on = onednn_is_on()
        if before.get("onednn", on) != on:
            state, value = ("off", 0) if on else ("on", 1)
            return f"oneDNN was {state} before; set {ONEDNN}={value} to resume bit for bit"
        # Older runs do not say with which instructions, nor does a processor that is not known.
        then, now = before.get("onednn_instructions"), onednn_instructions()
        if then == now or then not in WIDTHS or now not in WIDTHS:
            return None
        told = f"oneDNN used {then.upper()} before and uses {now.upper()} now"
        own = instruction_set()
        if then == own:
            return f"{told}; unset {ONEDNN_MOST} to resume bit for bit"
        if WIDTHS.index(then) < WIDTHS.index(own):
            return f"{told}; set {ONEDNN_MOST}={then.upper()} to resume bit for bit"
        return told

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Writes `history.csv` from all rows, so that a repeated epoch has one row."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.history, text.getvalue())


def _is_half(path: Path) -> bool:
    """Whether it is a file that was being written when its process ended."""
    return path.match(TEMPORARY) and path.is_file()


def data_place(settings: Settings, part: str) -> str:
    """What a part of the data is called: its folder, and the split of a data set."""
    if part == UNLABELLED:
        return str(settings.unlabelled_dir)
    return f"{part} of {settings.data_dir or settings.data}"


def read_config(file: Path) -> dict[str, Any]:
    """What `config.json` holds, once its parts are known to be objects.

    Raises:
        ValueError: it holds something else; the message does not name the file.
    """
    contents = read_object(file)
    for part in ("settings", "data", "versions", "machine", "card"):
        if not isinstance(contents.get(part, {}), dict):
            raise ValueError(f"{part} {received(contents[part])}: expected an object")
    onednn = contents.get("machine", {}).get("onednn", True)
    if not isinstance(onednn, bool):
        raise ValueError(f"onednn {received(onednn)}: expected true or false")
    return contents


def machine() -> dict[str, Any]:
    """What this process computes on: processor, cores that it may use, oneDNN, GPUs by name.

    What oneDNN may use belongs to it: the traced step differs by that (`kfcn.fused`).
    """
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "onednn": onednn_is_on(),
        "onednn_instructions": onednn_instructions(),
        "gpus": [gpu.get("device_name", "GPU") for gpu in details],
    }
