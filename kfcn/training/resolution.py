"""The settings of a run from what was given: of a new one, of one that goes on, of a stored one."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfcn import recipes
from kfcn.data import catalog
from kfcn.errors import KfcnError, UsageError
from kfcn.nets import architectures
from kfcn.nets.backbones import BACKBONES
from kfcn.options import checked, in_words, kinds
from kfcn.training.settings import BODY_OPTIONS, DATA_DEFAULTS, Settings

FORMAT = 2
"""Of `config.json`. Files without a number are the first; see `from_stored`."""


class OtherStartError(UsageError):
    """A run that cannot go on as it is asked to: it was started with other settings or data.

    Args:
        difference: what it was started with, and what was received.
        how: it can go on.
        run: its folder.

    Attributes:
        difference: for those who have other advice.
    """

    def __init__(self, difference: str, how: str, run: Path | str):
        from kfcn.saved import MODEL

        self.difference = difference
        if (Path(run) / MODEL).is_file():
            others = f"or {from_its_net(run)}"
        else:
            others = f"choose another --run-dir, or remove {run}, which holds no net yet"
        super().__init__(f"{difference}; {how}, {others}")


def from_its_net(run: Path | str) -> str:
    """What to do with a run that has a net and is to be trained further, as a command has it."""
    return f"start another run from its net: --init-from {shlex.quote(str(run))} --run-dir ANOTHER"


def resolve(**given: Any) -> Settings:
    """The settings of a new run.

    What was given goes first, then the recipe's, the net's that the run starts from, the data
    set's, and the defaults.

    Args:
        given: fields of `Settings`; None means "not given".

    Raises:
        UsageError: an unknown setting or recipe, a value out of range, or values that make no
            sense together.
    """
    given = _checked(given, Settings.data)
    recipe = recipes.settings(given["recipe"]) if "recipe" in given else {}
    start = _start_defaults(given["init_from"]) if "init_from" in given else {}
    if "output_stride" in given:
        given.setdefault("arch", {**start, **recipe}.get("arch", "dilated"))
    arch = {**start, **recipe, **given}.get("arch", Settings.arch)
    if architectures.row(arch).output_stride is None:
        recipe = {key: value for key, value in recipe.items() if key != "output_stride"}
        start.pop("output_stride", None)
    name = {**recipe, **given}.get("data", Settings.data)
    if given.get("crf") and "init_from" in given and "crf_options" not in given:
        from kfcn.cards import read_crf

        given["crf_options"] = read_crf(given["init_from"])
    layers = (DATA_DEFAULTS.get(name, {}), start, recipe, given)
    if architectures.row(arch).backbone and not any("backbone" in layer for layer in layers):
        given |= _backbone_of(given)
    settings = Settings(**_merged(layers))
    _check_together(settings, given)
    return settings


def continued(stored: Settings, given: Mapping[str, Any], run: Path | str) -> Settings:
    """The settings of a run that goes on: those it was started with.

    Nothing that is given may differ from them, but for the folders of the data: the run folder
    knows which files were in them (`kfcn.training.run_folder`).

    Args:
        stored: the run's own.
        given: fields of `Settings`; None means "not given".
        run: its folder, for messages.

    Raises:
        UsageError: an unknown setting, or a value out of range.
        OtherStartError: a value that is another than the stored one.
    """
    given = _checked(given, stored.data)
    folders = {}
    for name in ("data_dir", "unlabelled_dir"):
        if name in given and (name == "data_dir" or stored.unlabelled_dir is not None):
            folders[name] = given.pop(name)
    changed = {n: v for n, v in given.items() if v != getattr(stored, n)}
    if changed:
        differences = ", ".join(
            f"{n}={in_words(getattr(stored, n))} (now {in_words(v)})" for n, v in changed.items()
        )
        raise OtherStartError(
            f"{run} was started with {differences}", "continue it without these changes", run
        )
    return dataclasses.replace(stored, **folders)


def _checked(given: Mapping[str, Any], data: str) -> dict[str, Any]:
    """What was given, each value in its own type; `data` where no data set was given."""
    found = checked(Settings, given)
    if "classes" in found:
        source = catalog.Source(found.get("data", data), classes=found["classes"])
        found["classes"] = source.chosen_classes()
    return found


def from_stored(contents: Mapping[str, Any]) -> Settings:
    """The settings of a run from its `config.json`, of whatever format.

    Raises:
        KfcnError: settings that this version does not know, or values that are none; the message
            does not name the file.
    """
    found = contents.get("settings") if isinstance(contents, Mapping) else None
    if not isinstance(found, Mapping) or not found:
        raise KfcnError("it holds no settings")
    stored, format = dict(found), contents.get("format", 1)
    if type(format) is not int or not 1 <= format <= FORMAT:
        raise KfcnError(f"format {format!r}; expected at most {FORMAT}: a newer kfcn wrote it")
    if format == 1 and "iou_loss" not in stored and stored.get("arch") != "dilated":
        # Before skip nets could be dilated every run had an output stride, 8, that meant nothing.
        stored["output_stride"] = None
    if unknown := sorted(set(stored) - set(kinds(Settings))):
        raise KfcnError(
            f"the unknown setting {', '.join(unknown)}: it was written by another version of kfcn"
        )
    return Settings(**stored)


def _backbone_of(given: Mapping[str, Any]) -> dict[str, str]:
    """The backbone that options are of, where only one has them and the default has not."""
    asked = set(BODY_OPTIONS) & set(given)
    if asked <= set(BACKBONES[Settings.backbone].options):
        return {}
    found = [name for name, row in BACKBONES.items() if asked <= set(row.options)]
    return {"backbone": found[0]} if len(found) == 1 else {}


# A net that is trained already, refined end to end (Zheng et al. 2015, section 6: a rate far below
# the first stage's, which their summed loss hides).
_CRF_DEFAULTS = {"learning_rate": 1e-4, "epochs": 5}

_PASTED = (
    "parts of one picture are pasted into another, which takes crops of one size; choose it with "
    "--crop H W instead of --whole"
)
_UNLABELLED_EMA = 0.998
"""The average labels the pictures, so there has to be one."""


def _merged(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings from the weakest layer to the strongest.

    What one layer says of the options of its backbone is not for the backbone of another.
    """
    found: dict[str, Any] = {"backbone": Settings.backbone}
    for layer in layers:
        bare = not architectures.row(layer.get("arch", Settings.arch)).backbone
        if bare or layer.get("backbone", found["backbone"]) != found["backbone"]:
            found = {name: value for name, value in found.items() if name not in BODY_OPTIONS}
        if bare:
            found["weights"] = "none"
        found |= {**(_CRF_DEFAULTS if layer.get("crf") else {}), **layer}
    if found.get("unlabelled_dir") is not None:
        found.setdefault("ema", _UNLABELLED_EMA)
    return found


def _start_defaults(start: str) -> dict[str, Any]:
    """The net that a run or model has, for one that starts from it; empty where it does not say."""
    from kfcn.cards import read_card

    try:
        card = read_card(start) or {}
    except UsageError:
        return {}  # no such model: said when it is opened, a stage before may have to make it
    names = {"arch": card.get("architecture"), "backbone": card.get("backbone")}
    known = {n: v for n, v in names.items() if v is not None} | dict(card.get("net") or {})
    return checked(Settings, known)


def _check_together(settings: Settings, given: Mapping[str, Any]) -> None:
    """Raises a UsageError where settings, each of them possible, make no sense together."""
    if settings.crf and not settings.init_from:
        raise UsageError(
            "a CRF is trained on top of a trained net; name its run with --init-from RUN"
        )
    if settings.augment == "strong" and settings.window is None:
        raise UsageError(f"augment strong: {_PASTED}")
    if settings.unlabelled_dir is not None:
        _check_unlabelled(settings)
    if settings.init_from and given.get("weights", "none") != "none":
        raise UsageError(
            f"weights {given['weights']}: the net starts from {settings.init_from}; leave one of "
            "the two out"
        )
    if "momentum" in given and settings.optimizer != "sgd":
        raise UsageError(
            f"momentum: {settings.optimizer} has no momentum to set; --optimizer sgd has"
        )
    _check_net(settings, given)


def _check_unlabelled(settings: Settings) -> None:
    """Raises a UsageError where a training with `unlabelled_dir` cannot be as it is set."""
    if settings.crf:
        raise UsageError(
            "unlabelled_dir: a CRF is trained from labels alone; train its net with "
            "--unlabelled-dir first, and the CRF from that run"
        )
    if settings.window is None:
        raise UsageError(f"unlabelled_dir: {_PASTED}")
    if not settings.ema:
        raise UsageError(
            "unlabelled_dir: the running average labels the pictures; leave --ema out for "
            f"{_UNLABELLED_EMA}, or choose another above 0. Received: 0"
        )


def _check_net(settings: Settings, given: Mapping[str, Any]) -> None:
    """Raises a UsageError where settings ask of a net what it does not have."""
    arch, entry = settings.arch, architectures.row(settings.arch)
    if settings.output_stride and entry.output_stride is None:
        raise UsageError(
            f"output_stride {settings.output_stride}: it cannot be chosen for the arch {arch}; "
            "leave it out, or use --arch dilated or a skip net"
        )
    if not entry.backbone and settings.weights != "none":
        raise UsageError(
            f"weights {settings.weights}: {arch} has no backbone; leave --weights out, or "
            "start from a run with --init-from"
        )
    unused = [name for name in settings.head_options if name in given and name not in entry.head]
    body = BACKBONES[settings.backbone].options if entry.backbone else ()
    unused += [name for name in settings.backbone_options if name in given and name not in body]
    if unused:
        raise UsageError(f"{', '.join(unused)}: {settings.net} has no such option; leave it out")
