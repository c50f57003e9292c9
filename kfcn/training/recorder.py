"""What happens at the end of an epoch: validate, keep the best, draw, save."""

import time
from collections.abc import Callable, Sequence

import keras
import numpy as np

from kfcn.data.dataset import Dataset, Sample
from kfcn.errors import KfcnError
from kfcn.evaluation import evaluate
from kfcn.prediction import segment
from kfcn.saved import MODEL, save_model
from kfcn.training import checkpoint
from kfcn.training.run_folder import RunFolder
from kfcn.visualize import comparison, curves, write_image

SHOWN = 4  # validation images in overlays.png and TensorBoard


class Recorder(keras.callbacks.Callback):
    """Validates after each epoch and writes everything that a run folder holds.

    The checkpoint comes last: whoever stops the run before it repeats the epoch, and every file
    written until then is written again with the same contents.

    Args:
        run: where to write.
        validation: the split to validate on.
        steps: training steps of an epoch.
        epochs: of the whole run.
        rows: history of the epochs done before.
        say: prints one line.
    """

    def __init__(
        self,
        run: RunFolder,
        validation: Dataset,
        steps: int,
        epochs: int,
        rows: Sequence[dict],
        say: Callable[[str], None],
    ):
        super().__init__()
        self.run, self.validation = run, validation
        self.steps, self.epochs, self.rows, self.say = steps, epochs, list(rows), say
        spread = np.linspace(0, len(validation) - 1, min(SHOWN, len(validation))).astype(int)
        self.shown: list[Sample] = [validation[int(i)] for i in spread]

    @property
    def best(self) -> dict | None:
        """The row of the epoch whose net is kept."""
        return max(self.rows, key=lambda row: row["val_mean_iou"], default=None)

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):
            raise KfcnError(
                f"the loss is {logs['loss']} at batch {batch + 1}; try a lower --learning-rate "
                f"(the last good state is in {self.run.checkpoints})"
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        seconds = time.perf_counter() - self._started
        result = evaluate(self.model, self.validation)
        row = {
            "epoch": done,
            "loss": float(logs["loss"]),
            "mean_iou": float(logs["mean_iou"]),
            "val_cross_entropy": result.cross_entropy,
            **{f"val_{name}": value for name, value in result.scores.items()},
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": round(seconds, 1),
        }
        better = self.best is None or row["val_mean_iou"] > self.best["val_mean_iou"]
        self.rows.append(row)
        self.say(
            f"epoch {done}/{self.epochs}: loss {row['loss']:.4f}, validation mean IoU "
            f"{100 * row['val_mean_iou']:.2f}, pixel accuracy "
            f"{100 * row['val_pixel_accuracy']:.2f}{' (best so far)' if better else ''}"
        )
        if better:
            save_model(self.model, self.run.path / MODEL)
        self.run.write_history(self.rows)
        curves(self.rows, self.run.curves)
        self._log(row)
        checkpoint.save(self.run.checkpoints, self.model, done * self.steps, {"rows": self.rows})

    def draw(self, model: keras.Model) -> np.ndarray:
        """Image, truth and prediction of the shown images, uint8 `(H, W, 3)`."""
        classes = self.validation.classes
        rows = [(s.image, s.labels, segment(model, s.image), s.name) for s in self.shown]
        return np.asarray(comparison(rows, classes.names, classes.palette))

    def save_overlays(self, model: keras.Model) -> None:
        from PIL import Image

        write_image(self.run.overlays, Image.fromarray(self.draw(model)), format="PNG")

    def _log(self, row):
        import tensorflow as tf

        with tf.summary.create_file_writer(str(self.run.tensorboard)).as_default():
            for name, value in row.items():
                if name != "epoch":
                    tf.summary.scalar(name, value, step=row["epoch"])
            tf.summary.image("validation", self.draw(self.model)[None], step=row["epoch"])
