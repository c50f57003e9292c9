"""What happens at the end of an epoch: validate, keep the best, draw."""

import dataclasses
import gc
import math
from collections.abc import Callable
from types import NoneType
from typing import Any

import keras
import numpy as np

from kfcn.data.dataset import Dataset, Sample, spread
from kfcn.data.feed.views import Subset
from kfcn.errors import WriteError, first_line
from kfcn.files import write_error
from kfcn.inference.evaluate import Evaluation, measure
from kfcn.inference.segment import segment
from kfcn.labels import tints
from kfcn.metrics import scores
from kfcn.saved import MODEL, save_model
from kfcn.training.replicas import Replicas
from kfcn.training.run_folder import RunFolder
from kfcn.visualize import comparison, curves, write_image

SHOWN = 4  # validation images in overlays.png and TensorBoard
DRAWINGS = 50
"""Most drawings of curves and images in a run. Of twenty pictures an epoch is four steps, and what
was drawn after each took half as long as they."""


@dataclasses.dataclass
class Progress:
    """How far a run is; with the variables of the net, all that a checkpoint holds.

    Attributes:
        step: training steps done.
        rows: the history, a row for each epoch that was validated.
        loss: sum of the loss over the labelled pixels of the running epoch.
        weight: the sum of their weights.
        matrix: `(C, C)`, its counted pixels by true class (row) and predicted class (column).
        seconds: how long its steps took; the part of it that they waited for input.
        unlabelled: its steps with pictures without labels.
        confident: the sum over them of the share of such pixels that had a pseudo-label.
    """

    step: int = 0
    rows: list[dict] = dataclasses.field(default_factory=list)
    loss: float = 0.0
    weight: float = 0.0
    matrix: np.ndarray | int = 0
    seconds: float = 0.0
    waited: float = 0.0
    unlabelled: int = 0
    confident: float = 0.0

    @classmethod
    def from_note(cls, note: dict) -> "Progress":
        """What `note` has written.

        Raises:
            ValueError: it is anything else.
        """
        defaults = vars(cls())
        if unknown := note.keys() - defaults.keys():
            raise ValueError(f"its note has the entry {min(unknown)!r}")
        values = {**defaults, **note}
        for name in ("loss", "weight", "seconds", "waited", "confident"):
            if type(values[name]) not in (int, float) or not math.isfinite(values[name]):
                raise ValueError(f"its note has the {name} {values[name]!r}")
        counts = values["step"], values["unlabelled"]
        if any(type(n) is not int or n < 0 for n in counts) or values["weight"] < 0:
            raise ValueError("its note has a negative count")
        rows = values["rows"]
        if not isinstance(rows, list) or not all(map(_is_row, rows)):
            raise ValueError("its note has no history")
        matrix = np.asarray(values["matrix"])
        if matrix.dtype.kind not in "iu" or matrix.ndim not in (0, 2) or (matrix < 0).any():
            raise ValueError("its note has no confusion matrix")
        return cls(**{**values, "matrix": matrix.astype(np.int64)})

    def note(self) -> dict:
        """The same as JSON values; floats come back with the same bits."""
        return {**vars(self), "matrix": np.asarray(self.matrix).tolist()}

    def add(self, done, seconds: float, waited: float) -> None:
        """Counts one more step."""
        self.step += 1
        self.loss += done.loss * done.weight
        self.weight += done.weight
        self.matrix = self.matrix + done.matrix
        self.seconds += seconds
        self.waited += waited
        if done.confident is not None:
            self.unlabelled += 1
            self.confident += done.confident

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.weight, 1e-12)

    @property
    def mean_confident(self) -> float | None:
        """Share of the pixels without labels that had a pseudo-label; None where there are none."""
        return self.confident / self.unlabelled if self.unlabelled else None

    def end_epoch(self, row: dict) -> None:
        self.rows.append(row)
        self.loss = self.weight = self.seconds = self.waited = self.confident = 0.0
        self.unlabelled = 0
        self.matrix = 0


class Recorder:
    """Validates after each epoch and writes everything that a run folder holds, but checkpoints.

    Whoever stops the run meanwhile repeats the validation, and every file written until then is
    written again with the same contents.

    Args:
        run: where the chief writes.
        validation: the split to validate on; each worker takes its part of it.
        epochs: of the whole run.
        replicas: of the run.
        say: prints one line.
    """

    def __init__(
        self,
        run: RunFolder,
        validation: Dataset,
        epochs: int,
        replicas: Replicas,
        say: Callable[[str], None],
    ):
        self.run, self.validation, self.epochs = run, validation, epochs
        self.replicas, self.say = replicas, say
        self.shown: list[Sample] = [validation[i] for i in spread(len(validation), SHOWN)]

    def end_epoch(self, model: keras.Model, progress: Progress, learning_rate: float) -> None:
        """Validates the net, which lies on one device, and adds the epoch's row."""
        result = self.evaluate(model)
        row = {
            "epoch": len(progress.rows) + 1,
            "loss": progress.mean_loss,
            "mean_iou": scores(np.asarray(progress.matrix))["mean_iou"],
            "val_cross_entropy": result.cross_entropy,
            **{f"val_{name}": value for name, value in result.scores.items()},
            "learning_rate": learning_rate,
            "seconds": round(progress.seconds, 1),
        }
        sure = ""
        if progress.mean_confident is not None:
            row["confident"] = progress.mean_confident
            sure = f", sure of {100 * row['confident']:.0f} % of the unlabelled pixels"
        before = best(progress.rows)
        better = before is None or row["val_mean_iou"] > before["val_mean_iou"]
        progress.end_epoch(row)
        self.say(
            f"epoch {row['epoch']}/{self.epochs}: loss {row['loss']:.4f}, validation mean IoU "
            f"{100 * row['val_mean_iou']:.2f}, pixel accuracy "
            f"{100 * row['val_pixel_accuracy']:.2f}{sure}{' (best so far)' if better else ''}"
        )
        if self.replicas.chief:
            if better:
                save_model(model, self.run.path / MODEL)
            self.run.write_history(progress.rows)
            drawing = is_drawn(row["epoch"], self.epochs)
            if drawing:
                curves(progress.rows, self.run.curves)
                # A figure is a circle of 10,000 objects around its pixels. Beside TensorFlow's they
                # are so few that Python lets twenty figures gather, 2 MB each, before it looks for
                # them.
                gc.collect()
            self._log(row, self.draw(model) if drawing else None)

    def evaluate(self, model: keras.Model) -> Evaluation:
        """The figures on the whole split; each worker segments its part of the images."""
        worker, workers = self.replicas.worker, self.replicas.workers
        if workers == 1:
            return measure(model, self.validation)
        part = measure(model, Subset(self.validation, range(worker, len(self.validation), workers)))
        loss = self.replicas.sum(part.cross_entropy * part.matrix.sum())
        matrix = self.replicas.sum(part.matrix)
        return dataclasses.replace(
            part,
            matrix=matrix,
            boundary=self.replicas.sum(part.boundary),
            cross_entropy=float(loss / max(matrix.sum(), 1)),
            images=len(self.validation),
        )

    def draw(self, model: keras.Model) -> np.ndarray:
        """Image, truth and prediction of the shown images, uint8 `(H, W, 3)`."""
        classes = self.validation.classes
        rows = [(s.image, s.labels, segment(model, s.image), s.name) for s in self.shown]
        return np.asarray(comparison(rows, classes.names, tints(classes.names, classes.palette)))

    def save_overlays(self, model: keras.Model) -> None:
        from PIL import Image

        write_image(self.run.overlays, Image.fromarray(self.draw(model)), format="PNG")

    def _log(self, row, image: np.ndarray | None):
        import tensorflow as tf

        try:
            with tf.summary.create_file_writer(str(self.run.tensorboard)).as_default():
                for name, value in row.items():
                    if name != "epoch":
                        tf.summary.scalar(name, value, step=row["epoch"])
                if image is not None:
                    tf.summary.image("validation", image[None], step=row["epoch"])
        except tf.errors.OpError as error:
            failure = f"{self.run.tensorboard} could not be written"
            raise write_error(failure, error, self.run.path) or WriteError(
                f"{failure}: {first_line(error)}"
            ) from error


def is_drawn(epoch: int, epochs: int) -> bool:
    """Whether curves and images are drawn after an epoch (1, 2, ...): the first, the last, some."""
    return epoch in (1, epochs) or epoch % math.ceil(epochs / DRAWINGS) == 0


def _is_row(row: Any) -> bool:
    """Whether it is an epoch of a history: numbers by name, the mean IoU among them."""
    return (
        isinstance(row, dict)
        and type(row.get("val_mean_iou")) in (int, float)
        and all(type(value) in (int, float, NoneType) for value in row.values())
    )


def best(rows: list[dict]) -> dict | None:
    """The row of the epoch whose net is kept."""
    return max(rows, key=lambda row: row["val_mean_iou"], default=None)
