"""One trained model, five kinds of `.tflite` file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from kfcn_tools.convert.fix_size import export_tflite, fix_size
from kfcn_tools.convert.int8.correct import bias_shifts, revive_dead_channels
from kfcn_tools.convert.int8.equalize import equalize
from kfcn_tools.convert.int8.qat import fine_tune
from kfcn_tools.convert.int8.quantize import Quantizable, quantize_int8
from kfcn_tools.convert.int8.ranges import tensor_statistics
from kfcn_tools.convert.int8.sensitivity import search_layers
from kfcn_tools.convert.structure import check_structure
from kfcn_tools.convert.write_bundle import keras_labels

FLOAT_MODES = ("float32", "float16", "dynamic")
# One calibration image in this many is held back for the layer search.
HELD_BACK = 4


@dataclass(frozen=True)
class Int8Options:
    """How int8 files are made; the defaults are what measured best.

    Attributes:
        equalize: equal channel ranges across layers.
        correct_bias: take the mean error of the rounded weights out of the biases.
        calibration: a method of `kfcn_tools.convert.int8.ranges`.
        min_agreement: where the layer search of `mixed` stops.
        qat_epochs: passes of quantisation-aware fine-tuning over the training images. It corrects
            the biases before it starts; they are not corrected once more after it.
    """

    equalize: bool = False
    correct_bias: bool = True
    calibration: str = "percentile"
    min_agreement: float = 0.993
    qat_epochs: int = 0


def convert_modes(
    model: keras.Model,
    size: tuple[int, int],
    modes: Sequence[str],
    images: Sequence[np.ndarray],
    options: Int8Options | None = None,
    training: Sequence[np.ndarray] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, tuple[bytes, dict]]:
    """Converts a model to each of the modes and checks the structure of what comes out.

    Args:
        model: as trained, for any size.
        size: (H, W).
        modes: of `kfcn_mobile.bundle.MODES`.
        images: uint8 (H, W, 3), from the training split; every fourth is held back from
            calibration and judges the layer search.
        options: of int8 and mixed.
        training: uint8 (H, W, 3), for `options.qat_epochs`.
        progress: gets a line before each step.

    Returns:
        For each mode the file's content and what is to be known about it.
    """
    options = options or Int8Options()
    done = {}
    fixed = fix_size(model, *size)
    for mode in FLOAT_MODES:
        if mode in modes:
            progress(f"{mode}: converting")
            done[mode] = (export_tflite(fixed, mode), {})
    if {"int8", "mixed"} & set(modes):
        used = [x for i, x in enumerate(images) if i % HELD_BACK != HELD_BACK - 1]
        held = [x for i, x in enumerate(images) if i % HELD_BACK == HELD_BACK - 1]
        source = prepare_int8(fixed, used, options, training, progress)
        how = {
            "equalized": options.equalize,
            "bias_corrected": bool(source.shifts),
            "qat_epochs": options.qat_epochs,
            "calibration": options.calibration,
            "calibration_images": len(used),
        }
        if "int8" in modes:
            progress("int8: quantising")
            done["int8"] = (quantize_int8(source), how)
        if "mixed" in modes:
            progress(f"mixed: measuring each layer on {len(held)} held-back images")
            expected = [keras_labels(model, image)[0] for image in held]
            found = search_layers(source, held, expected, options.min_agreement, progress)
            done["mixed"] = (found.content, how | {"search": found.as_dict()})
    return {
        mode: (done[mode][0], done[mode][1] | check_structure(done[mode][0], mode, images[0]))
        for mode in modes
    }


def prepare_int8(
    fixed: keras.Model,
    images: Sequence[np.ndarray],
    options: Int8Options,
    training: Sequence[np.ndarray] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> Quantizable:
    """The float32 file that is to be quantised and what int8 needs to know about it.

    Args:
        fixed: what `fix_size` gave; its weights change.
        images: uint8 (H, W, 3), for calibration.
        options: which steps to do.
        training: uint8 (H, W, 3), for `options.qat_epochs`.
        progress: gets a line before each step.
    """
    if options.equalize:
        progress("int8: equalising channel ranges")
        equalize(fixed, images)
    revive_dead_channels(fixed)
    if options.qat_epochs:
        fine_tune(fixed, training, options.qat_epochs, images, progress=progress)
    content = export_tflite(fixed)
    progress(f"int8: calibrating on {len(images)} images")
    statistics = tensor_statistics(content, images, options.calibration)
    shifts = (
        bias_shifts(content, statistics.means)
        if options.correct_bias and not options.qat_epochs
        else {}
    )
    return Quantizable(content, statistics.ranges, shifts)
