"""What a training run is made of: every setting, its default, and where it may not be changed."""

import dataclasses
from typing import Any

from kfcn import recipes
from kfcn.errors import UsageError
from kfcn.recipes import scenes


@dataclasses.dataclass(frozen=True)
class Settings:
    """The resolved settings of a run, as `config.json` stores them.

    Attributes:
        recipe: name of `kfcn.recipes` whose settings were the defaults, "NAME/N" for its stage N.
        arch: one of `kfcn.nets.architectures.NAMES`.
        backbone: a key of `kfcn.nets.backbones.BACKBONES`.
        output_stride: of the backbone, 8, 16 or 32; None for 8 in the arch `dilated`, else 32.
        alpha: width of mobilenet_v2; None for 1.0.
        fc_filters: channels of vgg16's fc6 and fc7; None for the paper's 4096.
        learn_middle: whether the 2x upsampling layers learn.
        learn_last: whether the last upsampling learns.
        align: kernels aligned to where the backbone's cells lie.
        crf: a dense CRF on top, trained end to end; needs `init_from` (the paper's two stages).
        crf_options: arguments of `DenseCRF`; by default those of `init_from`'s `crf.json`.
        weights: "imagenet", "none" or a path.
        init_from: run folder or model to start from; None for a new start.
        data: a name of `kfcn.data.NAMES`.
        data_dir: folder of the data set; None for `scenes`.
        classes: which of its sets of classes, where it has several ("voc" for coco).
        train_split: the split to train on.
        val_split: the split that decides which net is kept.
        crop: height and width of the training crops, pixels; (0, 0) trains on whole pictures of
            any size.
        scale: range of the random scale of the training pictures.
        batch_size: images in a batch, over all replicas.
        epochs: passes over the training split.
        optimizer: "adamw", or "sgd" with momentum, biases at twice the rate.
        learning_rate: at the first step; falls to 0 as (1 - step / steps) ** power.
        power: of that decay; 0 keeps the rate.
        momentum: of sgd.
        weight_decay: not for biases and batch normalisation; decoupled for adamw, L2 for sgd.
        ema: momentum of the weights' average, which is validated and saved in their place
            (`kfcn.training.average`); 0 for none.
        class_weights: "none", "median" (median frequency) or "sqrt" (its square root).
        iou_loss: weight of the soft IoU loss (`kfcn.losses.soft_iou_loss`) that is added to the
            cross entropy; 0 for none.
        seed: of initial weights, data order, augmentation and dropout.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
        deterministic: operations that give the same bits every time, some of them slower.
    """

    recipe: str | None = None
    arch: str = "fcn8s"
    backbone: str = "mobilenet_v2"
    output_stride: int | None = None
    alpha: float | None = None
    fc_filters: int | None = None
    learn_middle: bool = True
    learn_last: bool = False
    align: bool = False
    crf: bool = False
    crf_options: dict[str, float] = dataclasses.field(default_factory=dict)
    weights: str = "imagenet"
    init_from: str | None = None
    data: str = "scenes"
    data_dir: str | None = None
    classes: str | None = None
    train_split: str = "train"
    val_split: str = "val"
    crop: tuple[int, int] = (320, 320)
    scale: tuple[float, float] = (0.75, 1.75)
    batch_size: int = 4
    epochs: int = 40
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 1e-4
    ema: float = 0.0
    class_weights: str = "none"
    iou_loss: float = 0.0
    seed: int = 0
    precision: str = "float32"
    deterministic: bool = False

    @property
    def window(self) -> tuple[int, int] | None:
        """The training crop; None for whole pictures."""
        return self.crop if any(self.crop) else None

    @property
    def net(self) -> str:
        """The net in words, for messages."""
        if self.arch == "convnet":
            return self.arch
        return f"{self.arch} on {self.backbone}{' with a CRF' if self.crf else ''}"

    @property
    def backbone_options(self) -> dict[str, Any]:
        options = {"alpha": self.alpha, "fc_filters": self.fc_filters}
        return {name: value for name, value in options.items() if value is not None}

    @property
    def head_options(self) -> dict[str, Any]:
        return {
            "learn_middle": self.learn_middle,
            "learn_last": self.learn_last,
            "align": self.align,
        }


# Where a data set asks for other defaults than the rest.
_DATA_DEFAULTS = {
    "scenes": scenes.SETTINGS,
    "camvid": {"crop": (352, 480), "class_weights": "sqrt"},
}

_CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "class_weights": ("none", "median", "sqrt"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
}
_FIELDS = {field.name for field in dataclasses.fields(Settings)}


def resolve(stored: dict[str, Any] | None = None, **given) -> Settings:
    """The settings of a run: what was given, then the recipe's, the data set's, the defaults.

    Args:
        stored: settings of the run folder that is to be continued; then nothing that is given
            may differ from them.
        given: fields of `Settings`; None means "not given".

    Raises:
        UsageError: an unknown setting or recipe, a value out of range, or a difference to
            `stored`.
    """
    given = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(set(given) - _FIELDS)
    if unknown:
        raise UsageError(f"unknown setting {', '.join(unknown)}; expected {sorted(_FIELDS)}")
    for name in ("crop", "scale"):
        if name in given:
            given[name] = tuple(given[name])
    for name in ("data_dir", "init_from"):
        if name in given:
            given[name] = str(given[name])
    if stored is not None:
        pairs = {name: tuple(stored[name]) for name in ("crop", "scale") if name in stored}
        base = Settings(**{**stored, **pairs})
        if base.arch != "dilated" and base.output_stride == 8 and "iou_loss" not in stored:
            # Written before skip nets could be dilated: the 8 meant nothing.
            base = dataclasses.replace(base, output_stride=None)
        changed = {n: v for n, v in given.items() if v != getattr(base, n)}
        if changed:
            told = ", ".join(f"{n}={getattr(base, n)} (now {v})" for n, v in changed.items())
            raise UsageError(
                f"the run was started with {told}; continue it without these changes "
                "or choose another --run-dir"
            )
        return base
    recipe = recipes.settings(given["recipe"]) if "recipe" in given else {}
    if "output_stride" in given:
        given.setdefault("arch", recipe.get("arch", "dilated"))
    name = {**recipe, **given}.get("data", Settings.data)
    if given.get("crf") and "init_from" in given and "crf_options" not in given:
        from kfcn.saved import read_crf

        given["crf_options"] = read_crf(given["init_from"])
    layers = (
        _DATA_DEFAULTS.get(name, {}),
        _net_defaults(recipe),
        recipe,
        _net_defaults(given),
        given,
    )
    settings = Settings(**{key: value for layer in layers for key, value in layer.items()})
    _validate(settings)
    return settings


def _net_defaults(given: dict) -> dict:
    """What follows from the net that is asked for, whatever the data."""
    # A net that is trained already, refined end to end (Zheng et al. 2015, section 6: a rate far
    # below the first stage's, which their summed loss hides).
    refined = {"learning_rate": 1e-4, "epochs": 5} if given.get("crf") else {}
    return refined | _body_defaults(given)


def _body_defaults(given: dict) -> dict:
    """What a data set's defaults say of mobilenet_v2 is not for another body."""
    if given.get("arch") == "convnet":
        return {"alpha": None, "weights": "none"}
    return {} if given.get("backbone", Settings.backbone) == "mobilenet_v2" else {"alpha": None}


def _validate(settings: Settings) -> None:
    for name, choices in _CHOICES.items():
        if getattr(settings, name) not in choices:
            raise UsageError(
                f"{name} {getattr(settings, name)!r}: expected one of {', '.join(choices)}"
            )
    for name in ("batch_size", "epochs"):
        if getattr(settings, name) < 1:
            raise UsageError(f"{name} {getattr(settings, name)}: expected at least 1")
    if settings.learning_rate <= 0 or settings.weight_decay < 0:
        raise UsageError(
            f"learning_rate {settings.learning_rate}, weight_decay {settings.weight_decay}: "
            "expected a rate above 0 and a decay of 0 or more"
        )
    for name in ("ema", "momentum"):
        if not 0 <= getattr(settings, name) < 1:
            raise UsageError(f"{name} {getattr(settings, name)}: expected a number in [0, 1)")
    if settings.power < 0:
        raise UsageError(f"power {settings.power}: expected 0 or more")
    if settings.crf and not settings.init_from:
        raise UsageError(
            "a CRF is trained on top of a trained net; name its run with --init-from RUN"
        )
    if settings.output_stride and settings.arch in ("heatmap", "convnet"):
        raise UsageError(
            f"output_stride {settings.output_stride}: the arch {settings.arch} has none to choose; "
            "leave it out, or use --arch dilated or a skip net"
        )
    if settings.output_stride not in (None, 8, 16, 32):
        raise UsageError(f"output_stride {settings.output_stride}: expected 8, 16 or 32")
    if settings.iou_loss < 0:
        raise UsageError(f"iou_loss {settings.iou_loss}: expected a weight of 0 or more")
    if settings.arch == "convnet" and settings.weights != "none":
        raise UsageError(
            f"weights {settings.weights}: convnet has no backbone; leave --weights out, or "
            "start from a run with --init-from"
        )
    if len(settings.scale) != 2 or not 0 < settings.scale[0] <= settings.scale[1]:
        raise UsageError(f"scale {settings.scale}: expected a smallest and a greatest above 0")
    if settings.crop != (0, 0) and (len(settings.crop) != 2 or min(settings.crop) < 32):
        # Below the coarsest stride a map of the backbone has no cell left to learn from.
        raise UsageError(f"crop {settings.crop}: expected height and width of at least 32 pixels")
