"""The file of a trained net, `model.keras`: where it is, how it is loaded, checked and saved."""

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfcn import pretrained
from kfcn.errors import KfcnError, UsageError, first_line
from kfcn.files import aside, broken_link
from kfcn.labels import IGNORE

if TYPE_CHECKING:
    import keras


MODEL, CARD, CRF = "model.keras", "model.json", "crf.json"
CONFIG = "config.json"
"""Of a run; until it is finished it holds what is known of the card."""
_SUFFIXES = (".keras", ".h5", ".hdf5")  # by which Keras tells what a file is
_KINDS = " or ".join(_SUFFIXES[:2])


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
            f"{path}: {broken_link(path) or 'no such file'}; expected a .keras model, a run "
            f"folder, or the name of a pretrained net ({names})"
        )
    return path


def run_folder(path: Path | str) -> Path:
    """The folder of the run that a path names: the folder itself, or that of its `model.keras`."""
    path = Path(path)
    return path.parent if path.name == MODEL and not path.is_dir() else path


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
        KfcnError: it is not a Keras model.
    """
    import keras

    import kfcn.crf
    import kfcn.rewrite  # noqa: F401  (both register layers that a file may hold)

    path = model_path(path)
    _check_kind(path)
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged zip, JSON or HDF5 file makes Keras raise
        raise KfcnError(
            f"{path} does not load as a Keras model: {first_line(error)}{_other_keras(path)}"
        ) from error


def _check_kind(path: Path) -> None:
    """Raises a KfcnError for a file that Keras takes for none of its own, in other words."""
    from kfcn.data.formats.images import IMAGE_SUFFIXES

    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise KfcnError(
            f"{path} is a picture; expected a Keras model file ({_KINDS}): MODEL comes before "
            "the pictures"
        )
    if path.suffix not in _SUFFIXES:
        raise KfcnError(f"{path} is not a Keras model file; expected one that ends in {_KINDS}")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):  # Keras: "File not found"
        raise KfcnError(f"{path} does not load as a Keras model: expected a zip archive")


def _other_keras(path: Path) -> str:
    """Which Keras wrote a file, in words; nothing where it was this one or cannot be told."""
    import keras

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        with zipfile.ZipFile(path) as archive:
            writer = json.loads(archive.read("metadata.json"))["keras_version"]
        if writer != keras.__version__:
            return f" (written by Keras {writer}; this is Keras {keras.__version__})"
    return ""


def described(model: "keras.Model | Path | str") -> str:
    """What errors call a model: its file, or its name."""
    return str(model) if isinstance(model, (str, Path)) else f"the model {model.name!r}"


def check_input(net: "keras.Model", model: Path | str) -> None:
    """Makes sure that a model takes RGB images.

    Args:
        net: the loaded model.
        model: what errors call it, as in all the checks here.

    Raises:
        KfcnError: it has several inputs, another one, or none that is known before it is called.
    """
    inputs = getattr(net, "inputs", None)  # a subclass of keras.Model has none
    if not inputs:
        raise KfcnError(
            f"{model} is a {type(net).__name__} without symbolic inputs; expected a functional or "
            "Sequential model with a keras.Input"
        )
    given = [tuple(x.shape) for x in inputs]
    if len(given) != 1 or len(given[0]) != 4 or given[0][3] != 3:
        raise KfcnError(f"{model} takes {given}; expected a single RGB input, (B, H, W, 3)")


def check_maps(net: "keras.Model", model: Path | str) -> None:
    """Makes sure that a model takes RGB images and returns one map.

    Raises:
        KfcnError: it does not.
    """
    check_input(net, model)
    maps = [tuple(x.shape) for x in net.outputs]
    if len(maps) != 1 or len(maps[0]) != 4:
        raise KfcnError(
            f"{model} returns {maps}; expected a single map of logits, (B, H, W, C); for "
            "classifiers there is kfcn-heatmap"
        )


def check_net(net: "keras.Model", model: Path | str) -> None:
    """Makes sure that a model takes RGB images and returns logits whose argmax is a label.

    Raises:
        KfcnError: it does not.
    """
    check_maps(net, model)
    check_scores(net.outputs[0].shape[3], model)


def check_scores(classes: int, model: Path | str) -> None:
    """Makes sure that the argmax of a pixel's logits is a label.

    Raises:
        KfcnError: there is one class, or there are more than a label map has values for.
    """
    if classes == 1:
        raise KfcnError(
            f"{model} has one output channel (a sigmoid); expected one channel per class, "
            "background included"
        )
    if classes > IGNORE:
        raise KfcnError(
            f"{model} has {classes} classes; 8-bit label maps hold at most {IGNORE} classes; "
            f"{IGNORE} is reserved for ignored pixels"
        )


def takes(net: "keras.Model", size: tuple[int, int]) -> bool:
    """Whether a net can compute images of a height and width: a U-Net or a net of one size may not.

    It is tried: what layers make of sizes they do not say.
    """
    import tensorflow as tf

    try:
        net(tf.zeros((1, *size, 3)), training=False)
    except (ValueError, tf.errors.InvalidArgumentError):  # as Keras finds out, or TensorFlow
        return False
    return True


def check_takes(net: "keras.Model", size: tuple[int, int], model: Path | str) -> None:
    """Makes sure that a net can compute images of a height and width.

    Raises:
        KfcnError: it cannot.
    """
    if not takes(net, size):
        own = net.inputs[0].shape[1:3]
        expected = "a size that all its strides divide, such as a multiple of 32"
        if None not in own:
            expected = f"the size that it was made for, {own[0]}x{own[1]}"
        raise KfcnError(
            f"{model} cannot compute images of {size[0]}x{size[1]}; expected {expected}"
        )


def check_finite(net: "keras.Model", model: Path | str) -> None:
    """Makes sure that the weights are finite: with a NaN all pixels become class 0.

    Raises:
        KfcnError: some are not.
    """
    import keras

    for weight in net.weights:
        values = keras.ops.convert_to_numpy(weight)
        if values.dtype.kind in "fV" and not np.isfinite(values.astype(np.float32)).all():
            raise KfcnError(
                f"{model}: its weight {weight.path} contains NaN or infinite values; the training "
                "probably diverged"
            )


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
    """Saves the plain functional net: no optimizer, no loss, nothing that needs kfcn to load it.

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
