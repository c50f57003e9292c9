"""What is kept beside a model file: its card, the widths of its CRF, and the run it comes from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

from kfcn.data.reading import Reading
from kfcn.errors import KfcnError, UsageError, first_line, received
from kfcn.files import read_object
from kfcn.labels import Classes
from kfcn.saved import (
    CARD,
    CONFIG,
    CRF,
    check_finite,
    check_net,
    described,
    load_model,
    model_path,
    run_folder,
)

if TYPE_CHECKING:
    import keras

    from kfcn.data.dataset import Dataset

_PARTS = (
    ("architecture", str, "a string"),
    ("backbone", str, "a string"),
    ("grouping", str, "a string"),
    ("data", str, "a string"),
    ("split", str, "a string"),
    ("net", dict, "an object"),
)
"""Of a card, beside its classes and how its data were read."""


def read_card(path: Path | str) -> dict | None:
    """The card of a model file or run folder; None where there is none.

    A run that is not finished has none: what is known from its start is in its `config.json`.

    Raises:
        KfcnError: the card is not valid JSON, or its classes or their palette are
            missing or invalid.
    """
    card = model_path(path).with_name(CARD)
    begun = card.with_name(CONFIG)
    if not card.is_file() and not begun.is_file():
        return None
    card = card if card.is_file() else begun
    try:
        values = read_object(card)
        if card is begun and not (values := values.get("card")):  # another program's, or older
            return None
        if not isinstance(values, dict):
            raise ValueError(f"card {received(values)}: expected an object")
        if lacking := {"classes", "palette"} - set(values):
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        Classes.from_json(values["classes"], values["palette"])
        for name, kind, word in _PARTS:
            if not isinstance(values.get(name), (kind, NoneType)):
                raise ValueError(f"{name} {received(values[name])}: expected {word}")
        Reading.of_card(values)
    except (ValueError, UsageError) as error:
        raise KfcnError(f"{card} is not a valid model card: {first_line(error)}") from error
    return values


def check_card(card: dict | None, outputs: int, path: Path | str) -> None:
    """Makes sure that a card is that of the net beside it.

    Args:
        card: None where there is none.
        outputs: number of classes that the net returns.
        path: of the net.

    Raises:
        KfcnError: it names another number of classes.
    """
    if card is not None and outputs != len(card["classes"]):
        raise KfcnError(
            f"{model_path(path).with_name(CARD)} names {_several(card['classes'])}; the net beside "
            f"it has {outputs}: it is the card of another net"
        )


def check_classes(card: dict | None, dataset: "Dataset", outputs: int | None = None) -> None:
    """Makes sure that a net and a data set have the same classes.

    Args:
        card: of the net; None where there is none.
        dataset: whose classes are expected.
        outputs: number of classes that the net returns; None where that is not known.

    Raises:
        UsageError: other names on the card, or another number of outputs.
    """
    names = dataset.classes.names
    if card and tuple(card["classes"]) != names:
        raise UsageError(
            f"the model was trained for {_several(card['classes'])}; "
            f"{dataset.name} has {_several(names)}{_first_difference(card['classes'], names)}"
        )
    if outputs not in (None, len(names)):
        raise UsageError(f"the model has {outputs} classes; {dataset.name} has {len(names)}")


def _first_difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Which class differs first, where that is not to be seen in `_several`."""
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return f": class {number} is {one!r} there and {other!r} here" if number > 2 else ""
    return ""


def _several(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def read_crf(path: Path | str) -> dict[str, float]:
    """Arguments of `DenseCRF` tuned for a model file or run folder; empty where none were.

    Raises:
        KfcnError: the file is not a valid CRF configuration.
    """
    file = model_path(path).with_name(CRF)
    if not file.is_file():
        return {}
    from kfcn.crf.tuning import PUBLISHED

    try:
        values = read_object(file).get("crf")
        if not isinstance(values, dict) or not values.keys() <= set(PUBLISHED):
            raise ValueError(
                f"crf {received(values)}: expected some of {', '.join(PUBLISHED)} with a number"
            )
        for name, value in values.items():
            if type(value) not in (int, float) or not 0 <= value < 1e9:
                raise ValueError(f"{name} {received(value)}: expected a number of at least 0")
        return {name: float(value) for name, value in values.items()}
    except ValueError as error:
        raise KfcnError(f"{file} is not a valid CRF configuration: {first_line(error)}") from error


def load_with_card(
    model: "keras.Model | Path | str",
    check: "Callable[[keras.Model, str], None]" = check_net,
) -> "tuple[keras.Model, dict | None]":
    """The net that a caller named or passed, as it is, and its card (None where there is none).

    Args:
        model: a net, its file, or a run folder.
        check: what the net must be; by itself one that returns logits whose argmax is a label.

    Raises:
        UsageError: there is no such file.
        KfcnError: the model does not load, is not what `check` wants, its weights are not finite,
            or its card is not valid or not its own.
    """
    name = described(model)
    if isinstance(model, (str, Path)):
        card, net = read_card(model), load_model(model)
    else:
        card, net = None, model
    check(net, name)
    check_card(card, net.outputs[0].shape[-1], name)
    check_finite(net, name)
    return net, card


def open_model(
    model: "keras.Model | Path | str", crf: bool = False
) -> "tuple[keras.Model, dict | None]":
    """As `load_with_card`, ready to be run: a graph that returns logits.

    A softmax in which it ends is left out.

    Args:
        model: a net, its file, or a run folder.
        crf: put a dense CRF on top, with the widths and weights of `crf.json` beside the model
            (`kfcn-tune-crf`), or the published ones.

    Raises:
        UsageError: there is no such file, or the net has a CRF already.
        KfcnError: as `load_with_card`.
    """
    widths = read_crf(model) if isinstance(model, (str, Path)) else {}
    net, card = load_with_card(model)
    if not hasattr(net, "operations"):  # a Sequential: the same as a graph, which is what is read
        import keras

        net = keras.Model(net.inputs, net.outputs, name=net.name)
    from kfcn.rewrite.logits import as_logits

    net = as_logits(net)
    if crf:
        from kfcn.crf import DenseCRF, add_crf

        if any(isinstance(layer, DenseCRF) for layer in net.layers):
            raise UsageError(f"{described(model)} has a CRF already; leave the other one out")

        net = add_crf(net, **widths)
    return net, card


class RunData(NamedTuple):
    """What a run was trained and validated on.

    Attributes:
        data, data_dir, seed, classes: the arguments of `kfcn.data.Source`.
        split: the name of the split that it was validated on.
        fingerprint: of that split's files at that time; None where that is not known.
        train_split: the name of the split that it was trained on.
    """

    data: str
    data_dir: str | None
    seed: int
    classes: str | None
    split: str
    fingerprint: str | None
    train_split: str = "train"

    def other_files(self, dataset: "Dataset") -> str | None:
        """The warning for an open split that has other files than the run had; else None."""
        if self.fingerprint is None or dataset.fingerprint() == self.fingerprint:
            return None
        place = self.data if self.data_dir is None else self.data_dir
        return f"{self.split} of {place} holds other files than the run was validated on"


def data_of_run(path: Path | str) -> RunData | None:
    """What a net was trained and validated on: what its run says, or the less that its card does.

    Args:
        path: a run folder, a model file or the name of a pretrained net.

    Returns:
        None where neither knows. Of a card alone the folder, the seed and the split trained on are
        missing, and its classes, which `kfcn.data.Source.open_for` takes from it.

    Raises:
        UsageError: there is no model.
        KfcnError: the run's `config.json` or the card is damaged.
    """
    config = run_folder(path) / CONFIG
    if not config.is_file():
        card = read_card(path) or {}
        if not card.get("data"):
            return None
        return RunData(card["data"], None, 0, None, card.get("split") or "val", None)
    try:
        values = read_object(config)
        settings, files = values["settings"], values.get("data") or {}
        split = settings["val_split"]
        found = RunData(
            settings["data"],
            settings["data_dir"],
            settings["seed"],
            settings["classes"],
            split,
            files.get(split),
            settings.get("train_split", "train"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KfcnError(f"{config} is not a kfcn run configuration: {first_line(error)}") from error
    texts = (found.data_dir, found.classes, found.fingerprint)
    if not (
        isinstance(found.data, str)
        and isinstance(found.split, str)
        and isinstance(found.train_split, str)
        and type(found.seed) is int
        and all(isinstance(text, (str, NoneType)) for text in texts)
    ):
        raise KfcnError(f"{config} is not a kfcn run configuration: data {received(tuple(found))}")
    return found


def data_to_measure(model: "keras.Model | Path | str", data: str | None, **given: Any) -> RunData:
    """What a net is measured on: what was asked for, and the rest as its run or its card says.

    Args:
        model: a net, its file or its run folder.
        data: a data set by name, of which the run then says nothing; None for the net's own, or
            "scenes" where it knows of none.
        given: data_dir, seed, classes and split; None for what was not given.

    Returns:
        All of it; the fingerprint where the split is that of the run.

    Raises:
        UsageError, KfcnError: as `data_of_run`.
    """
    known = data_of_run(model) if data is None and isinstance(model, (str, Path)) else None
    own = known or RunData(data or "scenes", None, 0, None, "val", None)
    chosen = own._replace(**{name: value for name, value in given.items() if value is not None})
    return chosen if chosen.split == own.split else chosen._replace(fingerprint=None)
