"""What all measurements of few labels share: their trainings, and where the figures are kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from kfcn.data.catalog import Source
from kfcn.data.dataset import Dataset, Sample
from kfcn.data.feed.views import Subset, Wrapped, cached
from kfcn.errors import UsageError
from kfcn.files import make_folder, read_object, write_json
from kfcn_tools.benchmarks.timing import machine
from kfcn_tools.benchmarks.train import bare_loop
from kfcn_tools.figures import spread

RESULTS = "results.json"
EMA = 0.99
CLASS_WEIGHTS = "sqrt"


class Training(NamedTuple):
    """What every training of a measurement has alike.

    Attributes:
        source: the data set.
        shrink: how many times smaller its pictures are made first.
        arch, backbone, weights, init_from, crop, scale, batch_size: as of `kfcn-train`.
        steps: of each training, however many pictures it has.
    """

    source: Source
    shrink: int
    arch: str
    backbone: str
    weights: str
    init_from: str | None
    crop: tuple[int, int]
    scale: tuple[float, float]
    batch_size: int
    steps: int

    def open(self, split: str) -> Dataset:
        """A split of the data set, its pictures made smaller and kept in memory."""
        return cached(Shrunk(self.source.open(split), self.shrink))

    def run(
        self, dataset: Dataset, seed: int, unlabelled: Dataset | None = None, gated_crf: float = 0
    ) -> Any:
        """The averaged net after `steps` steps on a data set.

        Args:
            dataset: to be learned from.
            seed: of weights, order and augmentation.
            unlabelled: pictures to learn from as well, without their labels.
            gated_crf: weight of the gated CRF loss.
        """
        import keras

        from kfcn.data.audit.check import check, class_weights
        from kfcn.training import replicas
        from kfcn.training.resolution import resolve

        keras.backend.clear_session()
        config = resolve(
            data=self.source.name, data_dir=self.source.data_dir, arch=self.arch, seed=seed,
            backbone=self.backbone, weights=self.weights, init_from=self.init_from,
            crop=self.crop, scale=self.scale, epochs=1, batch_size=self.batch_size, ema=EMA,
            gated_crf=gated_crf, unlabelled_dir=None if unlabelled is None else ".",
        )  # fmt: skip
        # One epoch of all steps: each picture comes as often as another, or once more.
        count = self.batch_size * self.steps
        often = Subset(dataset, [index % len(dataset) for index in range(count)])
        weights = class_weights(check(dataset), CLASS_WEIGHTS)
        others = None if unlabelled is None else Unseen(unlabelled)
        with bare_loop(config, often, replicas.start("one"), weights, others) as loop:
            for _ in range(self.steps):
                loop.one_step()
            return loop.trained_net()

    def mean_iou(self, model: Any, dataset: Dataset) -> float:
        """Of a net on a split, at the split's own size."""
        from kfcn.inference.evaluate import measure
        from kfcn.inference.runtime.net import quickest

        return measure(quickest(model), dataset).scores["mean_iou"]

    def settings(self, what: str, **more: Any) -> dict[str, Any]:
        """What a folder of results has to have been measured with."""
        values = self._asdict()
        source = values.pop("source")
        for name in ("weights", "init_from"):
            values[name] = values[name] and Path(values[name]).name
        chosen = {"classes": source.chosen_classes()} if source.classes else {}
        return {"what": what, "data": source.name, **chosen, **values, **more}


class Shrunk(Wrapped):
    """A data set whose pictures are made smaller by a whole factor, labels by their nearest."""

    def __init__(self, dataset: Dataset, factor: int):
        super().__init__(dataset)
        self._factor = factor

    def __getitem__(self, index: int) -> Sample:
        image, labels, name = self._dataset[index]
        size = image.shape[1] // self._factor, image.shape[0] // self._factor
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return Sample(image, cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), name)


class Relabelled(Wrapped):
    """A data set with other labels.

    Args:
        dataset: the pictures, and the labels that `change` is given.
        change: of uint8 `(H, W)`.
    """

    def __init__(self, dataset: Dataset, change: Callable[[np.ndarray], np.ndarray]):
        super().__init__(dataset)
        self.counts = None
        self._change = change

    def __getitem__(self, index: int) -> Sample:
        sample = self._dataset[index]
        return sample._replace(labels=self._change(sample.labels))


class Unseen(Relabelled):
    """Pictures whose labels nobody looks at: 0 everywhere, as `kfcn.data.pictures` has it."""

    def __init__(self, dataset: Dataset):
        super().__init__(dataset, np.zeros_like)


class Results:
    """What was measured so far: results.json of a folder.

    Args:
        folder: is made where it is not there.
        settings: of the measurement; a folder of others is refused.

    Attributes:
        units: name -> figures.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.file = make_folder(folder) / RESULTS
        self.settings = json.loads(json.dumps(settings))
        self.units: dict[str, Any] = {}
        if self.file.is_file():
            stored = read_object(self.file)
            if stored.get("settings") != self.settings:
                raise UsageError(
                    f"{self.file} was measured with {stored.get('settings')}, now asked for is "
                    f"{self.settings}; name another --out"
                )
            self.units = stored["units"]

    def add(self, name: str, figures: dict[str, Any]) -> None:
        """Stores the figures of a unit and prints them in a line."""
        self.units[name] = figures
        write_json(
            self.file, {"settings": self.settings, "machine": machine(), "units": self.units}
        )
        print(f"{name}: {json.dumps(figures)[:300]}", flush=True)


def by_seed(units: dict[str, Any], figure: str = "mean_iou") -> dict[str, dict[str, float]]:
    """Of units named "seed 0, REST": REST -> seed -> figure."""
    found: dict[str, dict[str, float]] = {}
    for name, figures in units.items():
        seed, rest = name.split(", ", 1)
        found.setdefault(rest, {})[seed] = figures[figure]
    return found


def gain(ours: dict[str, float], others: dict[str, float]) -> str:
    """The differences within a seed, in points."""
    return spread([ours[seed] - others[seed] for seed in ours if seed in others], "+")
