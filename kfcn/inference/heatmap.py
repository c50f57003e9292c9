"""Class heatmaps: what a classifier, made convolutional, says of each place of an image.

Figure 2 of the FCN paper (arXiv 1411.4038): a classifier turned into a fully convolutional net
puts out a map of class probabilities for an image of any size.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfcn.errors import DataError, KfcnError, UsageError


def class_heatmap(model, image, class_index: int | None = None, size=None, output_stride=None):
    """The map of a class's probability over an image of any size.

    Args:
        model: a Keras classifier, `(B, H, W, C)` to `(B, classes)`, of logits or probabilities;
            or a fully convolutional net of class maps, which is used as it is.
        image: `(H, W, C)` in the units that the model takes. An image smaller than the classifier's
            own size is enlarged (bilinear, aspect kept) until it covers that size.
        class_index: the class; None for the maps of all classes.
        size: `(height, width)` that the classifier was made for, where its input leaves it open.
        output_stride: pixels from cell to cell, by `to_atrous`; None for the model's own stride.

    Returns:
        float32 probabilities in 0..1: `(rows, columns)`, or `(rows, columns, classes)` without
        `class_index`. Cell i is centred at `stride * i + offset` pixels of
        `kfcn.receptive_field(kfcn.convolutionalize(model))`.

    Raises:
        UsageError: for an image of another rank or a class that the model does not have.
        KfcnError: if the model has no convolutional form (see `kfcn.convolutionalize`).
    """
    image = np.asarray(image, np.float32)
    if image.ndim != 3:
        raise UsageError(f"expected an image (H, W, C), received an array of {image.shape}")
    net, probabilities = dense_net(model, size, output_stride)
    image = _enlarge_to(image, classifier_size(model, size))
    maps = run_dense(net, image, probabilities)
    if class_index is None:
        return maps
    if not 0 <= class_index < maps.shape[-1]:
        raise UsageError(f"the model has classes 0..{maps.shape[-1] - 1}, received {class_index}")
    return maps[..., class_index]


def dense_net(model, size=None, output_stride=None):
    """The fully convolutional form of a model, and whether it puts out probabilities."""
    from kfcn.rewrite import convolutionalize, to_atrous
    from kfcn.rewrite.classifier import gives_probabilities

    probabilities = gives_probabilities(model)
    net = model if len(model.output_shape) == 4 else convolutionalize(model, size)
    if output_stride is not None:
        net = to_atrous(net, output_stride)
    return net, probabilities


def run_dense(net, image, probabilities: bool) -> np.ndarray:
    """Class probabilities `(rows, columns, classes)` of one image; logits get their softmax."""
    maps = np.asarray(net(image[None], training=False))[0]
    if not probabilities:
        maps = np.exp(maps - maps.max(axis=-1, keepdims=True))
        maps /= maps.sum(axis=-1, keepdims=True)
    return maps


def classifier_size(model, size=None) -> tuple[int, int]:
    """The size `(height, width)` in pixels that a classifier was made for; (1, 1) if any."""
    height, width = model.input_shape[1:3]
    if len(model.output_shape) == 4:  # a map's net has no size of its own
        return 1, 1
    return (height, width) if size is None else tuple(size)


def spread_map(heat, image_shape, stride, offset) -> np.ndarray:
    """A map of cells at the image's resolution: linear between the cells' centres.

    Args:
        heat: `(rows, columns)`.
        image_shape: `(H, W, ...)`.
        stride: pixels from cell to cell, a number or `(y, x)`.
        offset: the pixel at which cell 0 is centred, likewise.

    Returns:
        float32 `(H, W)`; NaN further than half a stride beyond the outer centres, where no cell
        speaks for the pixels.
    """
    strides, offsets = np.broadcast_to(stride, 2), np.broadcast_to(offset, 2)
    for axis in (0, 1):
        pixels = np.arange(image_shape[axis])
        place = (pixels - offsets[axis]) / strides[axis]  # in cells
        last = heat.shape[axis] - 1
        low = np.clip(np.floor(place), 0, max(last - 1, 0)).astype(int)
        part = np.clip(place - low, 0, 1)
        part[(place < -0.5) | (place > last + 0.5)] = np.nan
        part = part[:, None] if axis == 0 else part
        high = np.minimum(low + 1, last)
        heat = (1 - part) * heat.take(low, axis) + part * heat.take(high, axis)
    return heat.astype(np.float32)


def draw_heatmap(path, image, heat, title: str, top: Sequence[tuple[str, float]]) -> None:
    """Draws a heatmap over its image with a colour bar, and the leading classes beside it.

    Args:
        path: where the picture goes; the ending says which format.
        image: uint8 `(H, W, 3)`.
        heat: probabilities `(H, W)`, NaN where there are none.
        title: what the heat is of.
        top: `(label, mean probability over the map)`, the best first.
    """
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    figure = Figure(figsize=(4.5 * width / height + 4.5, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=(width / height, 0.6))
    # Grey, so that every colour in the picture is heat.
    axes[0].imshow(image @ np.array([0.299, 0.587, 0.114]), cmap="gray", vmin=0, vmax=255)
    # Thin where it is cold, so that the image stays visible there.
    alpha = np.nan_to_num(0.15 + 0.6 * heat / max(float(np.nanmax(heat)), 1e-12))
    overlay = axes[0].imshow(heat, cmap="inferno", alpha=alpha, vmin=0)
    axes[0].set_title(title)
    axes[0].set_axis_off()
    figure.colorbar(overlay, ax=axes[0], label="probability", shrink=0.9)
    labels = [label for label, _ in top]
    places = range(len(top))
    axes[1].barh(places, [share for _, share in top], color="tab:orange")
    axes[1].set_yticks(places, labels)
    axes[1].invert_yaxis()
    axes[1].set_xlabel("mean probability over the map")
    axes[1].set_title(f"top {len(top)} classes")
    for side in ("top", "right"):
        axes[1].spines[side].set_visible(False)

    path = Path(path)
    aside = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        figure.savefig(aside, dpi=150)
        aside.replace(path)
    except (OSError, ValueError) as error:
        raise KfcnError(f"cannot write {path}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


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

    model: object
    preprocess: Callable
    labels: tuple[str, ...] | None
    size: tuple[int, int] | None
    raw: bool


def load_classifier(name, weights=None, labels=None, preprocess=None, size=None) -> Classifier:
    """A classifier from a `.keras` file or by its name in keras.applications.

    Args:
        name: path of a `.keras` file, or a name such as "MobileNetV2" or "resnet50".
        weights: a file of weights for a keras.applications net; None downloads ImageNet's.
        labels: a text file, one class name a line.
        preprocess: "none", "tf" (-1..1), "torch" or "caffe" (both: ImageNet's mean removed), as
            in keras.applications; by default a net of keras.applications has its own, a file none.
        size: pixels of the square that the classifier was made for, where its input is open.

    Raises:
        UsageError: for an unknown name or option.
        KfcnError: if a file cannot be read or a download does not succeed.
    """
    import keras

    is_file = Path(name).is_file() or Path(name).suffix in (".keras", ".h5")
    if is_file:
        if weights:
            raise UsageError(f"{name} holds its own weights, received --weights {weights}")
        import kfcn.rewrite  # noqa: F401  (registers DilatedPooling2D for load_model)

        try:
            model = keras.models.load_model(name, compile=False)
        except (OSError, ValueError, TypeError) as error:
            raise KfcnError(f"cannot load {name}: {_first_line(error)}") from error
        own = None
    else:
        function, own = _application(name)
        model = _build_application(function, weights)
    square = (size, size) if size else None
    if square is None and None in model.input_shape[1:3] and not is_file:
        square = (224, 224)  # MobileNetV3 is built for any size and was trained at this one
    classes = model.output_shape[-1]
    if labels:
        names = _read_labels(labels, classes)
    else:
        names = _imagenet_labels() if own and classes == 1000 else None
    raw = own is None and preprocess in (None, "none")
    return Classifier(model, _preprocessing(preprocess, own), names, square, raw)


def holds_normalization(model) -> bool:
    """Whether a model seems to bring its pixels into its own range itself."""
    import keras

    def normalizes(layer):
        if isinstance(layer, keras.Model):
            return holds_normalization(layer)
        by_operation = type(layer).__name__ in ("Divide", "TrueDivide", "Subtract")
        return by_operation or isinstance(
            layer, keras.layers.Rescaling | keras.layers.Normalization
        )

    return any(normalizes(layer) for layer in getattr(model, "operations", model.layers))


def choose_class(labels, text: str, classes: int) -> int:
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


def read_image(path, least: tuple[int, int] = (1, 1), scale: float = 1.0) -> np.ndarray:
    """An image file as uint8 RGB `(H, W, 3)`, upright, enlarged to cover `least`.

    Args:
        path: the file.
        least: height and width in pixels that the image must cover at least.
        scale: enlargement asked for.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not scale > 0:
        raise UsageError(f"expected a scale above 0, received {scale}")
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"cannot read image {path}: {_first_line(error)}") from error
    factor = max(scale, least[0] / image.height, least[1] / image.width)
    if factor != 1:
        size = (max(round(image.width * factor), least[1]), round(image.height * factor))
        image = image.resize((size[0], max(size[1], least[0])), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _enlarge_to(image, least):
    height, width = image.shape[:2]
    factor = max(1.0, least[0] / height, least[1] / width)
    if factor == 1:
        return image
    from keras import ops

    size = (max(round(height * factor), least[0]), max(round(width * factor), least[1]))
    return np.asarray(ops.image.resize(image, size, interpolation="bilinear"))


def _application(name):
    """The function and the preprocessing of a net of keras.applications, whatever its case."""
    import keras

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
        f"{name} is neither a file nor a net of keras.applications; known: {', '.join(shown)}"
    )


def _build_application(function, weights):
    if weights and not Path(weights).is_file():
        raise UsageError(f"--weights {weights}: no such file")
    try:
        return function(weights=weights or "imagenet")
    except Exception as error:  # keras wraps what goes wrong on the network in a bare Exception
        if weights:
            message = f"cannot load {weights} into {function.__name__}: {_first_line(error)}"
        else:
            message = (
                f"cannot download the ImageNet weights of {function.__name__} "
                f"({_first_line(error)}): pass a file with --weights PATH"
            )
        raise KfcnError(message) from error


def _imagenet_labels():
    """ImageNet's class names in order, or None where they cannot be downloaded."""
    import keras

    # Falling scores make the ranking the order of the classes.
    ranking = np.linspace(1.0, 0.0, 1000, dtype=np.float32)[None]
    try:
        decoded = keras.applications.imagenet_utils.decode_predictions(ranking, top=1000)
    except Exception:  # a bare Exception, as above; an index still works without names
        return None
    return tuple(label.replace("_", " ") for _, label, _ in decoded[0])


def _read_labels(path, classes: int) -> tuple[str, ...]:
    try:
        labels = tuple(Path(path).read_text(encoding="utf-8").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise KfcnError(f"cannot read the labels in {path}: {_first_line(error)}") from error
    labels = tuple(label.strip() for label in labels)
    while labels and not labels[-1]:
        labels = labels[:-1]
    if len(labels) != classes:
        raise UsageError(f"{path} holds {len(labels)} labels, the model has {classes} classes")
    return labels


def _preprocessing(mode, own) -> Callable:
    if mode is None and own:
        return lambda image: own(np.array(image, np.float32))
    if mode in (None, "none"):
        return lambda image: np.asarray(image, np.float32)
    if mode not in ("tf", "torch", "caffe"):
        raise UsageError(f"--preprocess must be none, tf, torch or caffe, received {mode}")
    from keras.applications import imagenet_utils

    return lambda image: imagenet_utils.preprocess_input(np.array(image, np.float32), mode=mode)


def _plain(name) -> str:
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


def _first_line(error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
