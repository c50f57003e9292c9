"""What is exported, and what it gives in Keras: the reference of every format."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kfcn.labels import Classes

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""From batches of uint8 images (N, H, W, 3), each of a size of its own, to uint8 labels (N, H, W)
or float32 probabilities of classes (N, H, W, C)."""


@dataclass(frozen=True)
class Net:
    """A net with what its exported files say of themselves.

    Attributes:
        model: RGB 0..255 (B, H, W, 3) of any size in, logits (B, H, W, C) out.
        classes: their names and colours, in order.
        scores: whether the files give probabilities, or labels.
        info: what `export.json` and the files hold besides.
        size: (H, W), for formats of one size.
    """

    model: keras.Model
    classes: Classes
    scores: bool
    info: dict[str, Any]
    size: tuple[int, int] | None = None

    @property
    def output(self) -> str:
        """The name of the output."""
        return "scores" if self.scores else "labels"

    @property
    def card(self) -> str:
        """Classes, palette and origin as one line of JSON, for the inside of a file."""
        about = {
            **self.info,
            "classes": list(self.classes.names),
            "palette": [list(colour) for colour in self.classes.palette],
        }
        return json.dumps(about, ensure_ascii=False, sort_keys=True)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Keras' float32 logits (N, H, W, C) of uint8 images (N, H, W, 3)."""
        return np.asarray(self.model(images.astype(np.float32), training=False))
