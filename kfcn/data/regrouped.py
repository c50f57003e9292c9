"""A data set in other classes than its own."""

import numpy as np

from kfcn.data.dataset import Dataset, Sample
from kfcn.data.feed.views import Wrapped
from kfcn.data.grouping import Grouping
from kfcn.data.reading import Reading
from kfcn.labels import IGNORE


class Regrouped(Wrapped):
    """Another data set whose classes are grouped, left out or ignored.

    A label that is none of its classes and not 255 stays as it is, for the check to name it.

    Args:
        dataset: any data set.
        grouping: which of its classes become which.

    Raises:
        UsageError: the grouping names a class that the data set has not.
    """

    def __init__(self, dataset: Dataset, grouping: Grouping):
        super().__init__(dataset)
        self.classes, relabel = grouping.apply(dataset.classes, dataset.name)
        self.counts = None  # of the data set's own classes
        self._grouping = grouping
        self._table = np.arange(256, dtype=np.uint8)
        self._table[list(relabel)] = list(relabel.values())
        parts = {name: [] for name in (*self.classes.names, "ignored")}
        for label, name in enumerate(dataset.classes.names):
            new = relabel[label]
            parts["ignored" if new == IGNORE else self.classes.names[new]].append(name)
        self.grouping = {name: members for name, members in parts.items() if members}
        self.notes = (*dataset.notes, f"{self.name}/{self.split}: {self._words()}")

    def __getitem__(self, index: int) -> Sample:
        sample = self._dataset[index]
        return sample._replace(labels=self._table[sample.labels])

    def read_as(self, reading: Reading) -> "Regrouped":
        return Regrouped(self._dataset.read_as(reading), self._grouping)

    def _words(self) -> str:
        """Which classes became which, such as "animal is cat, dog; ignored are chair, sofa"."""
        parts = [
            f"{name} {'are' if name == 'ignored' else 'is'} {', '.join(members)}"
            for name, members in self.grouping.items()
            if members != [name]
        ]
        return "; ".join([f"classes {', '.join(self.classes.names)}", *parts])
