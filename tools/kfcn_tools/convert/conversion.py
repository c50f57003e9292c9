"""`convert`: a trained model becomes a bundle, a folder that a device needs and can prove."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
from kfcn_mobile.bundle import BundleError, checked_labels

from kfcn import __version__
from kfcn import data as data_sets
from kfcn.cards import load_with_card
from kfcn.crf import DenseCRF
from kfcn.errors import UsageError, counted
from kfcn.outputs import new_folder
from kfcn.rewrite.logits import as_logits
from kfcn.rewrite.walker import in_float32
from kfcn.saved import check_takes, described
from kfcn_tools.convert import metadata, write_bundle
from kfcn_tools.convert.modes import WAYS, Conversion, convert_modes, scores_of
from kfcn_tools.convert.options import Int8Options
from kfcn_tools.convert.pictures import (
    check_any,
    check_calibration,
    check_enough,
    check_size,
    pictures,
)
from kfcn_tools.identity import identity


def convert(
    model: keras.Model | Path | str,
    out: Path | str,
    size: tuple[int, int],
    *,
    data: str | data_sets.Source,
    splits: tuple[str, str] = ("train", "val"),
    modes: Sequence[str] | None = None,
    calibration: int = 100,
    golden: int = 16,
    int8: Int8Options | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Path:
    """Converts a trained model to TFLite, with the images that prove that it labels alike.

    The folder appears when all of it is written; `kfcn_mobile.bundle` says what it holds.

    Args:
        model: a run folder, a `.keras` file with `model.json` beside it, or a net, whose classes
            are then those of the data set.
        out: the folder to make.
        size: (H, W) of the images that the files will take, at least 32 each way.
        data: the data set, by its name alone where that suffices.
        splits: the names of its split that was trained on, which calibrates, and of the one for
            validation, from which golden images come.
        modes: of `kfcn_mobile.gates.MODES`; None for all that the model can have.
        calibration: training images for int8, at least 4 (`LEAST_CALIBRATION`).
        golden: validation images in the bundle, at least 1; all where there are fewer.
        int8: how int8 and mixed files are made.
        progress: gets a line before each step.

    Returns:
        `out`.

    Raises:
        UsageError: an argument that makes no sense, a data set of other classes, or `out` exists.
        KfcnError: the model does not return one map of logits for an RGB image, does not take
            images of that size or cannot be converted, or a converted file is not as it should be.
    """
    int8 = int8 or Int8Options()
    _check(size, modes, calibration, golden, int8)
    loaded, card = load_with_card(model)
    origin = data_sets.Source(data) if isinstance(data, str) else data
    train, val = (origin.open_for(card, split) for split in splits)
    check_any(train)  # what is converted is run on one of its pictures, in every mode
    check_any(val)
    names, source = identity(model, val)
    info = {
        "kfcn_version": __version__,
        "size": list(size),
        "classes": list(names.names),
        "palette": [list(colour) for colour in names.palette],
        "source": source,
    }
    out = Path(out)
    try:
        checked_labels(info, info["size"], out / "bundle.json")
    except BundleError as error:
        raise UsageError(f"a bundle of this net could not be read: {error}") from error
    check_takes(loaded, size, described(model))
    with new_folder(out) as folder:
        # A saved model's input may stand in a list; from here on it is one tensor.
        net = keras.Model(loaded.inputs[0], loaded.outputs[0], name=loaded.name)
        net = as_logits(in_float32(net))
        chosen = _chosen(net, modes, int8)
        if _in_eight_bits(chosen):
            check_enough(train)
        images = [picture.image for picture in pictures(train, calibration, size)]
        wanted = len(train) if int8.qat_epochs else 0
        training = [picture.image for picture in pictures(train, wanted, size)]
        made = Conversion(net, size, images, int8, training, progress)
        entries, scores = _write_models(folder, made, chosen, info)
        proofs = pictures(val, golden, size)
        all_of_it = f", all that val has ({golden} wanted)" if len(proofs) < golden else ""
        progress(f"golden: {counted(len(proofs), 'image')}{all_of_it}")
        shown = write_bundle.write_golden(folder, net, proofs)
        about = {"name": origin.name, "calibration_split": splits[0], "golden_split": splits[1]}
        write_bundle.write_description(folder, info | {"data": about}, entries, shown, scores)
    return out


def _write_models(
    folder: Path, made: Conversion, modes: Sequence[str], info: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Writes the files of each mode, of labels and of scores, and gives what is said of them."""

    def write(file, mode, content, details, scores=False):
        about = info | {"mode": mode, "output": "scores" if scores else "labels"}
        (folder / file).write_bytes(metadata.embed(content, about, scores))
        return {"file": file, "mode": mode, **details}

    entries = [
        write(f"{mode}.tflite", mode, *file) for mode, file in convert_modes(made, modes).items()
    ]
    # Files of their own: as a second signature beside `segment` scores add a second graph that
    # the quantiser's calibration does not reach and MediaPipe refuses, and labels need no exact
    # borders.
    scores = [
        write(f"scores_{mode}.tflite", mode, *file, scores=True)
        for mode, file in scores_of(made, modes).items()
    ]
    return entries, scores


def _check(
    size: tuple[int, int],
    modes: Sequence[str] | None,
    calibration: int,
    golden: int,
    int8: Int8Options,
) -> None:
    check_size(size)
    check_calibration(calibration)
    for name, given, least in (
        ("golden", golden, 1),
        ("qat_epochs", int8.qat_epochs, 0),
    ):
        if given < least:
            raise UsageError(f"{name} {given}: expected at least {least}")
    if not 0 < int8.min_agreement <= 1:
        raise UsageError(f"min_agreement {int8.min_agreement}: expected a share, such as 0.99")
    if modes is not None and not modes:
        raise UsageError(f"no modes: expected one or more of {', '.join(WAYS)}, or None for all")
    for mode in modes or ():
        if mode not in WAYS:
            raise UsageError(f"mode {mode!r}: expected {', '.join(WAYS)}")


def _chosen(model: keras.Model, modes: Sequence[str] | None, int8: Int8Options) -> list[str]:
    """The modes that are asked for and that the model has; no option may be of another one."""
    chosen = _without_eight_bit(model, modes)
    changed = _changed(int8)
    if changed and not _in_eight_bits(chosen):
        raise UsageError(
            f"{', '.join(changed)}: for int8 and mixed; received the modes {', '.join(chosen)}"
        )
    if "min_agreement" in changed and "mixed" not in chosen:
        raise UsageError(
            f"min_agreement: for mixed, whose search it ends; received the modes "
            f"{', '.join(chosen)}"
        )
    return chosen


def _in_eight_bits(modes: Iterable[str]) -> bool:
    return any(WAYS[mode].eight_bit for mode in modes)


def _changed(options: Int8Options) -> list[str]:
    """The options that are not as they are by themselves."""
    usual = vars(Int8Options())
    return [name for name, value in vars(options).items() if value != usual[name]]


def _without_eight_bit(model: keras.Model, modes: Sequence[str] | None) -> list[str]:
    """The modes that the model has: the lattice of a CRF cannot be computed in 8 bits."""
    chosen = [mode for mode in WAYS if modes is None or mode in modes]
    if not any(isinstance(layer, DenseCRF) for layer in model.layers):
        return chosen
    possible = [mode for mode in chosen if not WAYS[mode].eight_bit]
    if modes is not None and possible != chosen:
        others = ", ".join(mode for mode, way in WAYS.items() if not way.eight_bit)
        raise UsageError(
            "the model ends in a CRF, which cannot be computed in 8 bits; "
            f"choose from {others}, or convert the net without it"
        )
    return possible
