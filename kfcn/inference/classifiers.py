"""Opening a classifier by its file or its name, with what belongs to it."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kfcn import pretrained
from kfcn.cards import check_card, read_card
from kfcn.data.formats.text import read_text
from kfcn.errors import KfcnError, UsageError, counted, first_line
from kfcn.graph import operations
from kfcn.nets.efficientnet_lite import imagenet_classifier, imagenet_names
from kfcn.saved import MODEL, check_finite, check_input, load_model

SHIPPED = "EfficientNetLite0"


@dataclass(frozen=True)
class Classifier:
    """A classifier with what belongs to it.

    Attributes:
        model: the Keras model.
        preprocess: from RGB 0..255 float32 `(H, W, 3)` to what the model takes.
        labels: one name a class, or None where they are not known.
        size: `(height, width)` that it was made for, None where its input says it.
        raw: whether `preprocess` leaves RGB 0..255 as it is.
    """

    model: keras.Model
    preprocess: Callable[[np.ndarray], np.ndarray]
    labels: tuple[str, ...] | None
    size: tuple[int, int] | None
    raw: bool


def open_classifier(
    name: Path | str,
    weights: Path | str | None = None,
    labels: Path | str | None = None,
    preprocess: str | None = None,
    size: int | None = None,
) -> Classifier:
    """A classifier from a `.keras` file, a run folder, or by its name.

    Args:
        name: path of a `.keras` file or a run folder; one of `kfcn.pretrained.names()`;
            "EfficientNetLite0", whose weights come with kfcn, too; or a net of keras.applications
            such as "MobileNetV2" or "resnet50".
        weights: a file of weights for a keras.applications net; None downloads ImageNet's.
        labels: a text file, one class name a line; by default the names of the card beside the
            file (`model.json`), or ImageNet's where the net is one of theirs.
        preprocess: "none", "tf" (-1..1), "torch" or "caffe" (both: ImageNet's mean removed), as
            in keras.applications; by default a net of keras.applications has its own, a file none.
        size: pixels of the square that the classifier was made for, where its input is open.

    Raises:
        UsageError: an unknown name or option, or a missing file.
        KfcnError: a file that cannot be read, a card of another net, weights that are not
            finite, or a download that does not succeed.
    """
    path, ships = Path(name), False
    is_file = path.is_file() or (path / MODEL).is_file() or path.suffix in (".keras", ".h5")
    is_file = is_file or pretrained.is_name(name)
    if is_file:
        if weights:
            raise UsageError(f"{name} holds its own weights, received --weights {weights}")
        model, own = load_model(name), None
    elif ships := _plain(str(name)) == _plain(SHIPPED):
        if weights:
            raise UsageError(f"{name} comes with its weights, received --weights {weights}")
        model, own = imagenet_classifier(), None
    else:
        function, own = _application(str(name))
        model = _build_application(function, weights)
    check_input(model, name)
    check_finite(model, name)
    if len(model.outputs) != 1:
        outputs = [tuple(output.shape) for output in model.outputs]
        raise KfcnError(f"{name} returns {outputs}; expected one output")
    square = (size, size) if size else None
    if square is None and None in model.input_shape[1:3] and not is_file:
        square = (224, 224)  # MobileNetV3 is built for any size and was trained at this one
    classes = model.output_shape[-1]
    if labels:
        names = _read_labels(labels, classes)
    elif is_file:
        card = read_card(name)
        check_card(card, classes, name)
        names = tuple(card["classes"]) if card else None
    else:
        names = imagenet_names() if classes == 1000 and (own or ships) else None
    raw = own is None and preprocess in (None, "none")
    return Classifier(model, _preprocessing(preprocess, own), names, square, raw)


def holds_normalization(model: keras.Model) -> bool:
    """Whether a model seems to bring its pixels into its own range itself."""

    def normalizes(layer):
        if isinstance(layer, keras.Model):
            return holds_normalization(layer)
        by_operation = type(layer).__name__ in ("Divide", "TrueDivide", "Subtract")
        return by_operation or isinstance(
            layer, keras.layers.Rescaling | keras.layers.Normalization
        )

    return any(map(normalizes, operations(model)))


def choose_class(labels: Sequence[str] | None, text: str, classes: int) -> int:
    """The class that a text means: an index, a label, or a part of just one label.

    Raises:
        UsageError: if it means none or several, or labels are needed and not known.
    """
    if text.isdecimal():
        if int(text) >= classes:
            raise UsageError(f"the model has classes 0..{classes - 1}, received {text}")
        return int(text)
    if labels is None:
        raise UsageError(
            f"the names of this model's classes are not known, received --class {text!r}: "
            "pass --labels FILE (one name a line) or the class's index"
        )
    wanted, plain = _plain(text), [_plain(label) for label in labels]
    found = [i for i, label in enumerate(plain) if label == wanted]
    found = found or [i for i, label in enumerate(plain) if wanted in label]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(f"{labels[i]} ({i})" for i in found[:8])
        raise UsageError(f"--class {text!r} fits {len(found)} classes: {shown}; pass an index")
    near = difflib.get_close_matches(wanted, plain, 3)
    hint = f"; close: {', '.join(labels[plain.index(label)] for label in near)}" if near else ""
    raise UsageError(f"no class is named {text!r}{hint}")


def _application(name: str) -> tuple[Callable, Callable]:
    """The function and the preprocessing of a net of keras.applications, whatever its case."""
    wanted, functions = _plain(name), {}
    for module in vars(keras.applications).values():
        if hasattr(module, "preprocess_input") and hasattr(module, "decode_predictions"):
            for entry, function in vars(module).items():
                if entry[0].isupper() and callable(function):
                    functions[entry] = (function, module.preprocess_input)
    # MobileNetV3Small and -Large stand beside the modules, their preprocessing in one of them.
    for entry, function in vars(keras.applications).items():
        if entry[0].isupper() and callable(function) and entry not in functions:
            functions[entry] = (function, keras.applications.mobilenet_v3.preprocess_input)
    for entry, found in functions.items():
        if _plain(entry) == wanted:
            return found
    near = difflib.get_close_matches(wanted, {_plain(entry): entry for entry in functions}, 3)
    shown = [entry for entry in functions if _plain(entry) in near] or sorted(functions)
    raise UsageError(
        f"{name} is neither a file nor a pretrained net "
        f"({', '.join(pretrained.names()) or 'none in this copy'}), {SHIPPED}, or a net of "
        f"keras.applications; known there: {', '.join(shown)}"
    )


def _build_application(function: Callable, weights: Path | str | None) -> keras.Model:
    if weights and not Path(weights).is_file():
        raise UsageError(f"--weights {weights}: no such file")
    try:
        return function(weights=weights or "imagenet")
    except Exception as error:  # keras wraps what goes wrong on the network in a bare Exception
        if weights:
            message = f"cannot load {weights} into {function.__name__}: {first_line(error)}"
        else:
            message = (
                f"cannot download the ImageNet weights of {function.__name__} "
                f"({first_line(error)}): pass a file with --weights PATH, or take {SHIPPED}, "
                "which comes with kfcn"
            )
        raise KfcnError(message) from error


def _read_labels(path: Path | str, classes: int) -> tuple[str, ...]:
    labels = tuple(label.strip() for label in read_text(path).split("\n"))
    while labels and not labels[-1]:
        labels = labels[:-1]
    if len(labels) != classes:
        raise UsageError(
            f"{path} holds {counted(len(labels), 'label')}, the model has {classes} classes"
        )
    return labels


def _preprocessing(mode: str | None, own: Callable | None) -> Callable:
    if mode is None and own:
        return lambda image: own(np.array(image, np.float32))
    if mode in (None, "none"):
        return lambda image: np.asarray(image, np.float32)
    if mode not in ("tf", "torch", "caffe"):
        raise UsageError(f"--preprocess must be none, tf, torch or caffe, received {mode}")
    from keras.applications import imagenet_utils

    return lambda image: imagenet_utils.preprocess_input(np.array(image, np.float32), mode=mode)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
