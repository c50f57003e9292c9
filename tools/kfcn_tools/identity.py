"""Whose net a file is: its classes, and what tells it from others."""

import hashlib
from pathlib import Path
from typing import Any

import keras

from kfcn.cards import check_classes, read_card
from kfcn.data.dataset import Dataset
from kfcn.errors import KfcnError
from kfcn.files import sha256
from kfcn.labels import Classes, voc_coloured
from kfcn.saved import model_path


def identity(
    model: keras.Model | Path | str, dataset: Dataset | None = None
) -> tuple[Classes, dict[str, Any]]:
    """The classes of a net, and the name and SHA-256 of where it comes from.

    Args:
        model: a run folder, a `.keras` file with `model.json` beside it, or a net. A net's classes
            are those of the data set; without one they have numbers for names.
        dataset: must have the same classes.

    Raises:
        UsageError: it has others.
        KfcnError: a file without `model.json`.
    """
    if not isinstance(model, (str, Path)):
        if dataset is not None:
            check_classes(None, dataset, model.outputs[0].shape[-1])
        digest = hashlib.sha256()
        for weight in model.get_weights():
            digest.update(weight.tobytes())
        numbers = [f"class {index}" for index in range(model.outputs[0].shape[-1])]
        classes = voc_coloured(numbers) if dataset is None else dataset.classes
        return classes, {"name": model.name, "sha256": digest.hexdigest()}
    card = read_card(model)
    if card is None:
        raise KfcnError(
            f"{model}: no model.json beside the model; it names the classes and their colours"
        )
    if dataset is not None:
        check_classes(card, dataset)
    path = model_path(model)
    palette = tuple(tuple(colour) for colour in card["palette"])
    source = {"name": f"{path.parent.name}/{path.name}", "sha256": sha256(path)}
    return Classes(tuple(card["classes"]), palette), source
