"""A model's figures on a split, at the full size of its images."""

import contextlib
import dataclasses
import functools
from pathlib import Path

import keras
import numpy as np

from kfcn import metrics
from kfcn.cards import check_classes, data_to_measure
from kfcn.data.audit.check import checked_sample, nothing_in
from kfcn.data.catalog import Source
from kfcn.data.dataset import Dataset, Sample
from kfcn.errors import DataError, KfcnError, counted
from kfcn.inference.pipeline import pipelined
from kfcn.inference.protocol import SINGLE_SCALE, Protocol
from kfcn.inference.runtime.net import AT_ONCE, Net, as_net, open_net
from kfcn.labels import IGNORE
from kfcn.saved import described

_LARGE = 25_000_000
"""Logits of an image, 100 MB of float32, from which on those of no other are kept beside them."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        classes: names of the C classes.
        matrix: int64 `(C, C)`, pixels by true class (row) and predicted class (column).
        boundary: int64 `(2, C)`, intersection and union along the classes' boundaries
            (`metrics.boundary_counts`).
        cross_entropy: mean over all labelled pixels, natural logarithm, without class weights.
        images: how many images were counted.
        data: data set and split, as in "camvid/val".
        protocol: how each image was segmented (`Protocol`), in words.
    """

    classes: tuple[str, ...]
    matrix: np.ndarray
    boundary: np.ndarray
    cross_entropy: float
    images: int
    data: str
    protocol: str = "single scale"

    @property
    def scores(self) -> dict[str, float]:
        """The four metrics, under the names of `kfcn.metrics.NAMES`."""
        return metrics.scores(self.matrix)

    @property
    def boundary_iou(self) -> float:
        """Mean over the classes of the IoU within 3 pixels of their boundaries."""
        return metrics.boundary_iou(self.boundary)

    @property
    def class_iou(self) -> dict[str, float | None]:
        """IoU by class name; None for a class in neither truth nor prediction."""
        values = metrics.class_iou(self.matrix)
        return {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(self.classes, values, strict=True)
        }

    @property
    def absent(self) -> list[str]:
        """Classes without a pixel in the truth; they are left out of the mean accuracy."""
        return [n for n, total in zip(self.classes, self.matrix.sum(1), strict=True) if not total]

    def as_dict(self) -> dict:
        """All figures, ready for JSON."""
        return {
            "data": self.data,
            "protocol": self.protocol,
            "images": self.images,
            **self.scores,
            "boundary_iou": self.boundary_iou,
            "cross_entropy": self.cross_entropy,
            "class_iou": self.class_iou,
            "absent": self.absent,
        }

    def table(self) -> str:
        """The per-class table, the four metrics and the boundary IoU, as text."""
        share = self.matrix.sum(1) / max(self.matrix.sum(), 1)
        width = max(map(len, (*self.classes, "frequency_weighted_iou")))
        lines = [f"{'class':{width}}    IoU   pixels"]
        for (name, iou), part in zip(self.class_iou.items(), share, strict=True):
            value = "absent" if iou is None else f"{100 * iou:6.2f}"
            lines.append(f"{name:{width}} {value:>6} {100 * part:6.2f} %")
        lines.append("")
        figures = self.scores | {"boundary_iou": self.boundary_iou}
        lines += [f"{name:{width}} {100 * value:6.2f}" for name, value in figures.items()]
        if self.absent:
            lines.append(f"not in the truth, left out: {', '.join(self.absent)}")
        return "\n".join(lines)


def evaluate(
    model: keras.Model | Path | str,
    data: str | Source | Dataset | None = None,
    split: str | None = None,
    data_dir: Path | str | None = None,
    seed: int | None = None,
    progress: bool = False,
    crf: bool = False,
    classes: str | None = None,
    protocol: Protocol = SINGLE_SCALE,
) -> Evaluation:
    """Opens a model and a split and measures the one on the other.

    Args:
        model: a net that returns logits `(B, H, W, C)`, or its file or run folder.
        data: a `kfcn.data.Source`, or a name of `kfcn.data.NAMES`, which `data_dir`, `seed` and
            `classes` then complete; or an open data set (`split` is then its own). None for what
            the net was validated on, as its run or its card says, and "scenes" where neither does.
        split: e.g. "val", which is also the default unless the run has another name for it.
        data_dir: folder of the data set; another than the run's where `data` is None.
        seed: of a data set that is drawn; None for the run's where `data` is None, and 0 else.
        progress: show a progress bar.
        crf: put a dense CRF on top, tuned where the run folder has a `crf.json`.
        classes: which classes (`kfcn.data.load`); None for those that the net was trained for.
        protocol: to average over scales and mirror images; by default neither.

    Raises:
        UsageError: unknown names, or a model of other classes than the data.
        DataError: a file that cannot be used.
    """
    net, card = open_net(model, crf, at_once=AT_ONCE)
    if data is None or isinstance(data, str):
        own = data_to_measure(
            model, data, data_dir=data_dir, seed=seed, classes=classes, split=split
        )
        data, split = Source(own.data, own.data_dir, own.seed, own.classes), own.split
    dataset = data.open_for(card, split or "val") if isinstance(data, Source) else data
    check_classes(card, dataset, net.classes)
    if fault := nothing_in(dataset):
        raise DataError(fault)
    result = measure(net, dataset, protocol, progress)
    if not result.matrix.any():
        raise DataError(
            f"{result.data}: no labelled pixel in {counted(result.images, 'image')}, all are "
            f"{IGNORE} (ignore); expected some of a class"
        )
    if not np.isfinite(result.cross_entropy):
        raise KfcnError(
            f"{described(model)} produced NaN or infinite logits on {result.data}; nothing was "
            "measured"
        )
    return dataclasses.replace(result, protocol=f"{protocol}, CRF") if crf else result


def measure(
    net: Net | keras.Model,
    dataset: Dataset,
    protocol: Protocol = SINGLE_SCALE,
    progress: bool = False,
) -> Evaluation:
    """Segments every image of a split at its full size and counts.

    Args:
        net: returns logits `(B, H, W, C)` of the data set's C classes.
        dataset: the split.
        protocol: to average over scales and mirror images.
        progress: show a progress bar.

    Raises:
        DataError: a file that cannot be used.
    """
    from tqdm import tqdm

    net, names = as_net(net), dataset.classes.names
    matrix = np.zeros((len(names), len(names)), np.int64)
    boundary = np.zeros((2, len(names)), np.int64)
    loss = 0.0

    def count(
        index: int, sample: Sample, logits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        predictions = logits.argmax(-1)
        return (
            metrics.confusion_matrix(sample.labels, predictions, len(names)),
            metrics.boundary_counts(sample.labels, predictions, len(names)),
            _total_cross_entropy(sample.labels, logits),
        )

    counted = pipelined(
        range(len(dataset)),
        functools.partial(checked_sample, dataset),
        lambda sample: protocol.logits(net, sample.image),
        count,
        lambda sample: sample.labels.size * len(names) > _LARGE,
        net.at_once,
    )
    with contextlib.closing(counted):
        for _, outcome in tqdm(
            counted, dataset.split, len(dataset), unit="image", disable=None if progress else True
        ):
            if isinstance(outcome, KfcnError):
                raise outcome
            matrix += outcome[0]
            boundary += outcome[1]
            loss += outcome[2]
    return Evaluation(
        names,
        matrix,
        boundary,
        loss / max(matrix.sum(), 1),
        len(dataset),
        f"{dataset.name}/{dataset.split}",
        str(protocol),
    )


def _total_cross_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Sum of the negative log likelihoods of the labelled pixels."""
    valid = labels != IGNORE
    logits, labels = logits[valid], labels[valid].astype(np.int64)  # (n, C), (n,)
    logits -= logits.max(-1, keepdims=True)  # of a copy
    chosen = np.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    return float((np.log(np.exp(logits, out=logits).sum(-1)) - chosen).sum(dtype=np.float64))
