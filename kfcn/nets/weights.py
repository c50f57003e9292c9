"""Weights that a net starts from: those of a classifier, of a file, of another trained net."""

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Unpack

import keras
import numpy as np

from kfcn.errors import KfcnError, UsageError, first_line
from kfcn.files import read_bytes
from kfcn.nets.backbones import Backbone, BodyOptions, row

Tensors = dict[str, list[np.ndarray]]
"""Layer name -> its tensors, in the order of `layer.weights`."""

KNOWS_CLASSES = ("score", "upscore")
HEAD = (*KNOWS_CLASSES, "lateral", "narrow", "enlarge", "smooth")
"""How the names of the layers behind the backbone begin (`fcn.py`, `fcn_fpn.py`)."""


def load_weights(
    model: keras.Model, backbone: str, weights: str, **options: Unpack[BodyOptions]
) -> int:
    """Fills the backbone inside `model` with a classifier's weights.

    Args:
        model: a net built on `taps(..., backbone, **options)`.
        backbone: a key of `kfcn.nets.backbones.BACKBONES`.
        weights: "imagenet" (of `efficientnet_lite0` they come with the package, those of nets of
            `keras.applications` are downloaded by Keras into its cache) or the path of a weights
            file of the same `keras.applications` net (`.h5` or `.weights.h5`, with or without its
            top), of any `.keras` model with layers of the same names, or of a `.npz` as
            `save_tensors` writes.

    Returns:
        How many tensors of `model` were filled.

    Raises:
        UsageError: no such file.
        KfcnError: the file cannot be downloaded or read, or it fits fewer than half of the tensors
            of the net or of its own: it belongs to another backbone; or some are not finite.
    """
    from kfcn.saved import check_finite

    entry = row(backbone)
    source = _source(entry, backbone, weights, options)
    filled = _fill(model, source, entry.caffe)
    count = min(sum(map(len, source.values())), len(model.weights))
    if 2 * filled < count:
        what = f"keras.applications.{entry.application}" if entry.application else backbone
        fills = f"only {filled} of {count} tensors" if filled else "no tensor"
        raise KfcnError(f"{weights} fills {fills} of {backbone}; expected weights of {what}")
    check_finite(model, weights)
    return filled


def fill_backbone(
    model: keras.Model, backbone: str, weights: Path | str | None, **options: Unpack[BodyOptions]
) -> keras.Model:
    """The net itself, with weights in its backbone if any are named (`load_weights`)."""
    if weights is not None:
        load_weights(model, backbone, str(weights), **options)
    return model


def check_weights(backbone: str, weights: str) -> None:
    """Makes sure that there are such weights, without reading them; arguments as `load_weights`.

    Raises:
        UsageError: there is no such file, or none of ImageNet's for this backbone.
        KfcnError: the file is of another kind than its weights are stored as.
    """
    has_application, path = row(backbone).application is not None, Path(weights)
    if weights == "imagenet":
        if not has_application:
            shipped_weights(backbone)
    elif not path.is_file():
        raise UsageError(f"--weights {weights}: no such file; expected imagenet, none or a path")
    elif not has_application and path.suffix not in (".keras", ".npz"):
        raise KfcnError(
            f"--weights {weights}: expected imagenet, or a .keras or .npz file of {backbone}"
        )


def shipped_weights(backbone: str) -> Path:
    """The ImageNet weights that come with the package, body and classifier.

    Raises:
        UsageError: none come with the package for this backbone.
    """
    path = Path(__file__).with_name(f"{backbone}.npz")
    if not path.is_file():
        raise UsageError(
            f"the ImageNet weights of {backbone} do not come with kfcn; make a file of them with "
            "python -m kfcn_tools.port_weights and pass it with --weights PATH, take --backbone "
            "efficientnet_lite0, whose weights come along, or start untrained with --weights none"
        )
    return path


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by their names.

    Raises:
        UsageError: it is no such file.
    """
    try:
        content = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise ValueError("one array without a name")
        return dict(content)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or first_line(error)}") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path} is not an .npz file: {first_line(error)}") from error


def read_tensors(path: Path) -> Tensors:
    """Reads what `save_tensors` wrote; everything as float32.

    Raises:
        UsageError: `save_tensors` did not write this file.
    """
    tensors: Tensors = {}
    for key, array in read_arrays(path).items():
        layer, _, _ = key.rpartition("/")
        tensors.setdefault(layer, []).append(array.astype(np.float32))
    return tensors


def save_tensors(path: Path, model: keras.Model) -> None:
    """Writes the weights of a net as `.npz`: LAYER/0, LAYER/1 and so on, kernels as float16.

    The vectors of batch normalisation and biases stay float32: they are few, and small variances
    have no half-precision number.

    Raises:
        OSError: the file could not be written.
    """
    arrays = {}
    for layer in model.layers:
        for index, tensor in enumerate(layer.get_weights()):
            kernel = tensor.ndim > 1
            arrays[f"{layer.name}/{index}"] = tensor.astype(np.float16) if kernel else tensor
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _source(entry: Backbone, backbone: str, weights: str, options: BodyOptions) -> Tensors:
    """The tensors that the weights hold, by the layer names of the backbone."""
    check_weights(backbone, weights)
    path = Path(weights)
    if weights == "imagenet" and entry.application is None:
        return read_tensors(shipped_weights(backbone))
    if path.suffix == ".npz":
        return read_tensors(path)
    if path.suffix == ".keras":
        from kfcn.saved import load_model

        return _tensors(load_model(path))
    return _tensors(_application(entry, backbone, weights, options))


def _tensors(model: keras.Model) -> Tensors:
    # `normalize` has constants and no weights, and says that the net takes RGB (`_fill`).
    kept = [layer for layer in model.layers if layer.weights or layer.name == "normalize"]
    return {layer.name: layer.get_weights() for layer in kept}


def _application(entry: Backbone, backbone: str, weights: str, options: BodyOptions) -> keras.Model:
    """The net that holds the weights, as `keras.applications` builds it."""
    path, name = Path(weights), entry.application
    assert name is not None  # else the weights are a file of kfcn's own (`check_weights`)
    application = getattr(keras.applications, name)
    alpha = {"alpha": options["alpha"]} if "alpha" in options else {}
    if weights == "imagenet":
        try:
            return application(
                include_top=entry.include_top,
                weights="imagenet",
                **({} if entry.include_top else {"input_shape": (None, None, 3)}),
                **alpha,
            )
        except Exception as error:
            raise KfcnError(
                f"the ImageNet weights of {backbone} could not be downloaded "
                f"({first_line(error)}); fetch the file of keras.applications.{entry.application} "
                "on a machine with a network and pass its path with --weights PATH, take "
                "--backbone efficientnet_lite0, whose weights come with kfcn, or start untrained "
                "with --weights none"
            ) from error
    problems = []
    for include_top in dict.fromkeys((entry.include_top, False, True)):
        size = {} if include_top else {"input_shape": (None, None, 3)}
        source = application(include_top=include_top, weights=None, **size, **alpha)
        try:
            source.load_weights(path)
            return source
        except Exception as error:  # h5py and Keras raise whatever the file makes them raise
            problems.append(error)
    raise KfcnError(
        f"--weights {weights} does not hold weights of keras.applications.{entry.application}"
        f"{' with these options' if options else ''}: {first_line(problems[0])}"
    ) from problems[0]


def _fill(model: keras.Model, source: Tensors, caffe: bool) -> int:
    """Copies tensors by layer name where they fit (`_fits`); returns how many."""
    filled = 0
    # The classifier's Dense layers become the paper's convolutions fc6 and fc7.
    source |= {new: source[old] for old, new in (("fc1", "fc6"), ("fc2", "fc7")) if old in source}
    first = True
    for layer in model.layers:
        if not layer.weights or layer.name == "normalize" or layer.name not in source:
            continue
        values = list(source[layer.name])
        if caffe and first and "normalize" not in source:
            values[0] = values[0][:, :, ::-1, :]  # the source expects BGR
        first = False
        for variable, value in zip(layer.weights, values, strict=False):
            if _fits(value.shape, variable.shape):
                variable.assign(value.reshape(variable.shape))
                filled += 1
    return filled


def _fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a tensor is one of this shape, or the kernel of a Dense layer for a convolution.

    Keras flattens row by row, channels last: (7*7*512, 4096) is (7, 7, 512, 4096). Nothing else
    is reshaped: as many numbers in another order are other weights.
    """
    if len(given) == 2 and len(wanted) == 4:
        return given == (math.prod(wanted[:3]), wanted[3])
    return given == tuple(wanted)


def carry_weights(
    source: keras.Model, target: keras.Model, same_classes: bool | None = None
) -> list[str]:
    """Starts `target` from the trained `source`, layer by layer by name.

    This is how 16s grows from 32s, 8s from 16s and so on: all layers of the coarser net are in
    the finer one, but for upsampling. New score layers stay at zero, so the grown net starts as
    the coarser one. Between nets of different classes the backbone is carried over, and of the
    head what fits and does not know the classes.

    Args:
        source: the trained net.
        target: the net to fill.
        same_classes: whether both mean the same by their outputs; None for "if they have as many".

    Returns:
        Names of the layers that were filled.

    Raises:
        KfcnError: a layer of `source` that has to be carried and that `target` has not, or has in
            another shape; or nothing to carry.
    """
    layers = {layer.name: layer for layer in target.layers}
    trained = [layer for layer in source.layers if layer.weights]
    if same_classes is None:
        same_classes = source.outputs[0].shape[-1] == target.outputs[0].shape[-1]
    filled, misfits = [], []
    for layer in trained:
        if not same_classes and layer.name.startswith(KNOWS_CLASSES):
            continue
        twin = layers.get(layer.name)
        shapes = [tuple(w.shape) for w in layer.weights]
        if twin is not None and shapes == [tuple(w.shape) for w in twin.weights]:
            twin.set_weights(layer.get_weights())
            filled.append(layer.name)
        elif twin is None and isinstance(layer, keras.layers.Conv2DTranspose):
            continue  # the last upsampling, or one that a dilated backbone has no use for
        elif same_classes or not layer.name.startswith(HEAD):
            misfits.append(
                (layer.name, "fits nothing" if twin is None else f"is {shapes}, which does not fit")
            )
    if misfits:
        (name, what), more = misfits[0], len(misfits) - 1
        raise KfcnError(
            f"{len(filled)} of {len(trained)} layers of {source.name} fit {target.name}: {name} "
            f"{what} there{f', nor do {more} more' if more else ''}; expected a coarser net with "
            "the same backbone and options"
        )
    if not filled:
        raise KfcnError(f"{source.name} has no layer with weights to start {target.name} from")
    return filled
