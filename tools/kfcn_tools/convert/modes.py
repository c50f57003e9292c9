"""How the `.tflite` file of each conversion mode is made from a trained model."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np

from kfcn.errors import counted
from kfcn_tools.convert.fix_size import fix_size
from kfcn_tools.convert.int8.equalize import equalize
from kfcn_tools.convert.int8.graph import unshared
from kfcn_tools.convert.int8.observe import observe
from kfcn_tools.convert.int8.qat import fine_tune
from kfcn_tools.convert.int8.quantize import Quantizable, quantize_int8
from kfcn_tools.convert.int8.ranges import TensorRanges
from kfcn_tools.convert.int8.rounding import ConvolutionInputs, round_weights
from kfcn_tools.convert.int8.scores import CompetingScores, with_competing_scores
from kfcn_tools.convert.int8.sensitivity import search_layers
from kfcn_tools.convert.int8.weights import revive_dead_channels
from kfcn_tools.convert.options import Int8Options
from kfcn_tools.convert.pictures import HELD_BACK
from kfcn_tools.convert.structure import check_structure
from kfcn_tools.convert.tflite import FloatMode, export_tflite
from kfcn_tools.convert.write_bundle import keras_labels


class Conversion:
    """What the files of one model are made from; each part is made when it is first asked for.

    Args:
        model: as trained, for any size.
        size: (H, W).
        images: uint8 (H, W, 3), from the training split; every fourth is held back from
            calibration and judges the layer search.
        options: of int8 and mixed.
        training: uint8 (H, W, 3), for `options.qat_epochs`.
        progress: gets a line before each step.
    """

    def __init__(
        self,
        model: keras.Model,
        size: tuple[int, int],
        images: Sequence[np.ndarray],
        options: Int8Options,
        training: Sequence[np.ndarray] = (),
        progress: Callable[[str], None] = lambda line: None,
    ):
        self.model, self.size = model, size
        self.options, self.training, self.progress = options, training, progress
        self.held = [x for i, x in enumerate(images) if i % HELD_BACK == HELD_BACK - 1]
        self.calibration = [x for i, x in enumerate(images) if i % HELD_BACK != HELD_BACK - 1]

    @functools.cached_property
    def fixed(self) -> keras.Model:
        """The model at the one size, for labels."""
        return fix_size(self.model, *self.size)

    @functools.cached_property
    def exact(self) -> keras.Model:
        """The model at the one size, for scores: they are right up to the border."""
        return fix_size(self.model, *self.size, exact_logits=True)

    @functools.cached_property
    def prepared(self) -> keras.Model:
        """`fixed` with the weights that int8 is made from."""
        fixed = fix_size(self.model, *self.size)
        prepare(fixed, self.calibration, self.options, self.training, self.progress)
        return fixed

    @functools.cached_property
    def quantizable(self) -> Quantizable:
        """What int8 and mixed files of labels are made from."""
        return calibrate(self.prepared, "labels", self.calibration, self.options, self.progress)

    @functools.cached_property
    def quantizable_scores(self) -> Quantizable:
        """What int8 files of scores are made from."""
        exact = fix_size(self.model, *self.size, exact_logits=True)
        # Both rebuilt models have the same layers with weights.
        exact.set_weights(self.prepared.get_weights())
        return calibrate(exact, "logits", self.calibration, self.options, self.progress)

    def how(self) -> dict:
        """How `quantizable` came about, for `bundle.json`."""
        return {
            "equalized": self.options.equalize,
            "rounding_corrected": bool(self.quantizable.rounded),
            "qat_epochs": self.options.qat_epochs,
            "calibration": self.options.ranges,
            "calibration_images": len(self.calibration),
        }


def _float(mode: FloatMode, conversion: Conversion) -> tuple[bytes, dict]:
    conversion.progress(f"{mode}: converting")
    return export_tflite(conversion.fixed, mode), {}


def _float_scores(mode: FloatMode, conversion: Conversion) -> bytes:
    conversion.progress(f"{mode}: converting scores")
    return export_tflite(conversion.exact, mode, "logits")


def _int8_scores(conversion: Conversion) -> bytes:
    quantizable = conversion.quantizable_scores
    conversion.progress("int8: quantising scores")
    return quantize_int8(quantizable)


def _int8(conversion: Conversion) -> tuple[bytes, dict]:
    quantizable = conversion.quantizable
    conversion.progress("int8: quantising")
    return quantize_int8(quantizable), conversion.how()


def _mixed(conversion: Conversion) -> tuple[bytes, dict]:
    quantizable, held = conversion.quantizable, conversion.held
    conversion.progress(f"mixed: measuring each layer on {len(held)} held-back images")
    expected = [keras_labels(conversion.model, image)[0] for image in held]
    target = conversion.options.min_agreement
    found = search_layers(quantizable, held, expected, target, conversion.progress)
    return found.content, conversion.how() | {"search": found.as_dict()}


@dataclass(frozen=True)
class Way:
    """How the file of a mode is made.

    Attributes:
        make: gives its content, and what is to be known about it beside `check_structure`'s.
        make_scores: gives the content of its file of scores; None where it has none.
        eight_bit: its activations are calibrated on images; a CRF cannot be computed so.
        one_partition: XNNPACK must run it in one piece (`check_structure`).
    """

    make: Callable[[Conversion], tuple[bytes, dict]]
    make_scores: Callable[[Conversion], bytes] | None = None
    eight_bit: bool = False
    one_partition: bool = False


# A row for each of `kfcn_mobile.gates.MODES`, which names them for people and holds their gates.
WAYS = {
    "float32": Way(
        functools.partial(_float, "float32"),
        functools.partial(_float_scores, "float32"),
        one_partition=True,
    ),
    "float16": Way(
        functools.partial(_float, "float16"), functools.partial(_float_scores, "float16")
    ),
    "dynamic": Way(functools.partial(_float, "dynamic")),
    "int8": Way(_int8, _int8_scores, eight_bit=True, one_partition=True),
    "mixed": Way(_mixed, eight_bit=True),
}


def convert_modes(conversion: Conversion, modes: Iterable[str]) -> dict[str, tuple[bytes, dict]]:
    """Converts a model to each of the modes and checks the structure of what comes out.

    Args:
        conversion: from which model, and what int8 needs.
        modes: names of `WAYS`.

    Returns:
        For each mode the file's content and what is to be known about it.
    """
    done = {}
    for mode in modes:
        content, details = WAYS[mode].make(conversion)
        image = conversion.calibration[0]
        checked = check_structure(content, mode, image, WAYS[mode].one_partition)
        done[mode] = (content, details | checked)
    return done


def scores_of(conversion: Conversion, modes: Iterable[str]) -> dict[str, tuple[bytes, dict]]:
    """Files that give scores in place of labels, for those of the modes that have one.

    Args:
        conversion: as for `convert_modes`.
        modes: names of `WAYS`.

    Returns:
        For each of these modes the file's content and what is to be known about it.
    """
    done = {}
    for mode in modes:
        if (make := WAYS[mode].make_scores) is not None:
            content = make(conversion)
            image = conversion.calibration[0]
            done[mode] = (
                content,
                check_structure(content, f"{mode} scores", image, output="logits"),
            )
    return done


def prepare(
    fixed: keras.Model,
    images: Sequence[np.ndarray],
    options: Int8Options,
    training: Sequence[np.ndarray] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> None:
    """Readies the weights of a model of fixed size for int8, in place.

    Args:
        fixed: what `fix_size` gave.
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


def calibrate(
    prepared: keras.Model,
    output: Literal["labels", "logits"],
    images: Sequence[np.ndarray],
    options: Int8Options,
    progress: Callable[[str], None] = lambda line: None,
) -> Quantizable:
    """The float32 file that is to be quantised and what int8 needs to know about it.

    Args:
        prepared: what `prepare` readied.
        output: of the file.
        images: uint8 (H, W, 3), for calibration.
        options: which steps to do.
        progress: gets a line before each step.
    """
    content = unshared(export_tflite(prepared, output=output))
    progress(f"int8: calibrating on {counted(len(images), 'image')}")
    ranges, competing = TensorRanges(content, options.ranges), CompetingScores(content)
    observers, rounded = [ranges, competing], {}
    # The fine-tune has learnt to live with weights rounded to the nearest.
    if options.correct_rounding and not options.qat_epochs:
        inputs = ConvolutionInputs(content, len(images))
        observe(content, images, *observers, inputs)
        progress("int8: rounding weights")
        rounded = round_weights(inputs)
    else:
        observe(content, images, *observers)
    return with_competing_scores(Quantizable(content, ranges.ranges(), rounded), competing, images)
