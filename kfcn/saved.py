"""What a trained net leaves: `model.keras` and its card `model.json`."""

import contextlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kfcn import pretrained
from kfcn.data.reading import Reading
from kfcn.errors import KfcnError, UsageError, first_line, received
from kfcn.files import aside, read_object
from kfcn.labels import IGNORE, Classes

if TYPE_CHECKING:
    import keras

    from kfcn.data.dataset import Dataset

MODEL, CARD, CRF = "model.keras", "model.json", "crf.json"
CONFIG = "config.json"
"""Of a run; until it is finished it holds what is known of the card."""
_PARTS = (
    ("architecture", str, "a text"),
    ("backbone", str, "a text"),
    ("grouping", str, "a text"),
    ("data", str, "a text"),
    ("split", str, "a text"),
    ("net", dict, "an object"),
)
"""Of a card, beside its classes and how its data were read."""


def model_path(path: Path | str) -> Path:
    """The model file of a run folder, of a pretrained net, or the file itself.

    Args:
        path: a file, a run folder, or one of `kfcn.pretrained.names()`; a file or a run goes
            before a name.

    Raises:
        UsageError: there is none of these.
        KfcnError: the installed file of a pretrained net is damaged.
    """
    if pretrained.is_name(path):
        return pretrained.path(str(path))
    path = Path(path)
    if path.is_dir():
        path = path / MODEL
    if not path.is_file():
        names = ", ".join(pretrained.names()) or "none in this copy"
        raise UsageError(
            f"{path}: no such file; expected a .keras model, a run folder, or the name of a "
            f"pretrained net ({names})"
        )
    return path


def files_of(path: Path | str) -> list[Path]:
    """The model file of a run folder or the file itself, with what is read beside it.

    Raises:
        UsageError: there is no model.
    """
    path = model_path(path)
    return [path, *(path.with_name(name) for name in (CARD, CRF, "config.json"))]


def load_model(path: Path | str) -> "keras.Model":
    """Loads a model file or the model of a run folder, in Keras' safe mode.

    Raises:
        UsageError: no such file.
        KfcnError: it is no Keras model.
    """
    import keras

    import kfcn.crf
    import kfcn.rewrite  # noqa: F401  (both register layers that a file may hold)

    path = model_path(path)
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):  # Keras: "File not found"
        raise KfcnError(
            f"{path} does not load as a Keras model: it is no zip archive, which such a file is"
        )
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged zip, JSON or HDF5 file makes Keras raise
        raise KfcnError(
            f"{path} does not load as a Keras model: {first_line(error)}{_other_keras(path)}"
        ) from error


def _other_keras(path: Path) -> str:
    """Which Keras wrote a file, in words; nothing where it was this one or cannot be told."""
    import keras

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        with zipfile.ZipFile(path) as archive:
            writer = json.loads(archive.read("metadata.json"))["keras_version"]
        if writer != keras.__version__:
            return f" (written by Keras {writer}; this is Keras {keras.__version__})"
    return ""


def check_input(net: "keras.Model", model: Path | str) -> None:
    """Makes sure that a model takes pictures.

    Raises:
        KfcnError: it does not.
    """
    given = [tuple(x.shape) for x in net.inputs]
    if len(given) != 1 or len(given[0]) != 4 or given[0][3] != 3:
        raise KfcnError(f"{model} takes {given}; expected RGB pictures alone, (B, H, W, 3)")


def _check_net(net: "keras.Model", model: Path | str) -> None:
    """Makes sure that a model takes pictures and gives maps.

    Raises:
        KfcnError: it does not.
    """
    check_input(net, model)
    maps = [tuple(x.shape) for x in net.outputs]
    if len(maps) != 1 or len(maps[0]) != 4:
        raise KfcnError(
            f"{model} gives {maps}; expected the scores of each pixel alone, (B, H, W, C); for "
            "classifiers there is kfcn-heatmap"
        )
    check_scores(maps[0][3], model)


def check_scores(classes: int, model: Path | str) -> None:
    """Makes sure that the largest of a pixel's scores is a label.

    Raises:
        KfcnError: there is one score, or there are more than a label map has values for.
    """
    if classes == 1:
        raise KfcnError(
            f"{model} gives one score for each pixel, as a sigmoid does, of which the largest is "
            "always the first; expected one for each class, of which background is one"
        )
    if classes > IGNORE:
        raise KfcnError(
            f"{model} gives {classes} classes; label maps of 8 bits hold {IGNORE}, beside "
            f"{IGNORE} for what is ignored"
        )


def _check_weights(net: "keras.Model", model: Path | str) -> None:
    """Makes sure that the weights are numbers: a NaN makes all that follows "class 0".

    Raises:
        KfcnError: some are not.
    """
    import keras

    for weight in net.weights:
        values = keras.ops.convert_to_numpy(weight)
        if values.dtype.kind in "fV" and not np.isfinite(values.astype(np.float32)).all():
            raise KfcnError(
                f"{model}: its weight {weight.path} holds values that are no numbers (NaN or "
                "infinite); expected those of a training that went well"
            )


def open_model(
    model: "keras.Model | Path | str", crf: bool = False
) -> "tuple[keras.Model, dict | None]":
    """The net behind what a caller may give, and its card (None where there is none).

    Args:
        model: a net, its file, or a run folder.
        crf: put a dense CRF on top, with the widths and weights of `crf.json` beside the model
            (`kfcn-tune-crf`), or the published ones.
    """
    card, widths = None, {}
    if isinstance(model, (str, Path)):
        card, widths = read_card(model), read_crf(model)
        net = load_model(model)
        _check_net(net, model)
        check_card(card, net.outputs[0].shape[-1], model)
        _check_weights(net, model)
    else:
        net = model
        check_scores(net.outputs[0].shape[-1], f"the model {net.name!r}")
        _check_weights(net, f"the model {net.name!r}")
    if not hasattr(net, "operations"):  # a Sequential: the same as a graph, which is what is read
        import keras

        net = keras.Model(net.inputs, net.outputs, name=net.name)
    if crf:
        from kfcn.crf import DenseCRF, add_crf

        if any(isinstance(layer, DenseCRF) for layer in net.layers):
            raise UsageError(f"{model} has a CRF already; leave the other one out")

        net = add_crf(net, **widths)
    return net, card


def check_classes(card: dict | None, dataset: "Dataset", outputs: int | None = None) -> None:
    """Makes sure that a net and a data set speak of the same classes.

    Args:
        card: of the net; None where there is none.
        dataset: whose classes are expected.
        outputs: number of classes that the net gives; None where that is not known.

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
        raise UsageError(f"the model gives {outputs} classes; {dataset.name} has {len(names)}")


def _first_difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Which class differs first, where that is not to be seen in `_several`."""
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return f": class {number} is {one!r} there and {other!r} here" if number > 2 else ""
    return ""


def _several(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


# Arguments that Keras has added since 3.11, the oldest release of setup.cfg, and their defaults.
# A file that holds them is refused by the releases before, even where they say nothing.
_NEWER = {
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
    "input_axes": None,
    "output_axes": None,
}


def _without_newer(config: Any) -> Any:
    if isinstance(config, list):
        return [_without_newer(item) for item in config]
    if isinstance(config, dict):
        return {
            key: _without_newer(value)
            for key, value in config.items()
            if key not in _NEWER or value != _NEWER[key]
        }
    return config


class _Stream(io.BufferedWriter):
    """A file that Keras writes a model to, and to nowhere else.

    A model that takes more than half of the free memory Keras first writes as an HDF5 file of its
    own, in the folder of the file's name. HDF5 that meets a full disk there prints tracebacks, and
    then takes the process down. Without a name the HDF5 part is put together in the memory.
    """

    @property
    def name(self) -> str:
        raise AttributeError("a stream has no name")

    def __str__(self):
        return ".keras"  # the ending by which Keras knows the format


def save_model(model: "keras.Model", path: Path | str) -> None:
    """Saves the plain functional net: no optimizer, no loss, nothing that needs kfcn to load.

    Whichever Keras that kfcn works with wrote the file, the others read it.

    Raises:
        WriteError: it could not be written; a model that was there before still is.
    """
    # One tensor, not a list of one: that is how it is then called, and how an export is served.
    import keras

    plain = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    config = _without_newer(plain.get_config())
    plain.get_config = lambda: config  # asked by `save`
    with aside(path) as temporary, _Stream(io.FileIO(temporary, "w")) as file:
        plain.save(file)


def read_card(path: Path | str) -> dict | None:
    """The card of a model file or run folder; None where there is none.

    A run that is not finished has none: what is known of it from the start stands in its
    `config.json`.

    Raises:
        KfcnError: the card is no JSON, or its classes or their palette are missing or are none.
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
        raise KfcnError(f"{card} is no card of a model: {first_line(error)}") from error
    return values


class RunData(NamedTuple):
    """What a run was validated on.

    Attributes:
        data, data_dir, seed, classes: the arguments of `kfcn.data.Source`.
        split: the name of the split.
        fingerprint: of its files at that time; None where that is not known.
    """

    data: str
    data_dir: str | None
    seed: int
    classes: str | None
    split: str
    fingerprint: str | None

    def other_files(self, dataset: "Dataset") -> str | None:
        """What is to be told where an open split has other files than the run had; else None."""
        if self.fingerprint is None or dataset.fingerprint() == self.fingerprint:
            return None
        place = self.data if self.data_dir is None else self.data_dir
        return f"{self.split} of {place} holds other files than the run was validated on"


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


def data_of_run(path: Path | str) -> RunData | None:
    """What a net was validated on: what its run says, or the less that its card does.

    Args:
        path: a run folder, a model file or the name of a pretrained net.

    Returns:
        None where neither knows. Of a card alone the folder and the seed are missing, and its
        classes, which `kfcn.data.Source.open_for` takes from it.

    Raises:
        UsageError: there is no model.
        KfcnError: the run's `config.json` or the card is damaged.
    """
    config = Path(path) / CONFIG
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
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KfcnError(f"{config} is no run's: {first_line(error)}") from error
    texts = (found.data_dir, found.classes, found.fingerprint)
    if not (
        isinstance(found.data, str)
        and isinstance(found.split, str)
        and type(found.seed) is int
        and all(isinstance(text, (str, NoneType)) for text in texts)
    ):
        raise KfcnError(f"{config} is no run's: data {received(tuple(found))}")
    return found


def check_card(card: dict | None, outputs: int, path: Path | str) -> None:
    """Makes sure that a card is that of the net beside it.

    Args:
        card: None where there is none.
        outputs: number of classes that the net gives.
        path: of the net.

    Raises:
        KfcnError: it names another number of classes.
    """
    if card is not None and outputs != len(card["classes"]):
        raise KfcnError(
            f"{model_path(path).with_name(CARD)} names {_several(card['classes'])}; the net beside "
            f"it gives {outputs}: it is the card of another net"
        )


def read_crf(path: Path | str) -> dict[str, float]:
    """Arguments of `DenseCRF` tuned for a model file or run folder; empty where none were.

    Raises:
        KfcnError: the file holds anything else.
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
        raise KfcnError(f"{file} holds no settings of a CRF: {first_line(error)}") from error
