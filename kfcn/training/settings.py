"""What a training run is made of: every setting with its default, meaning and range."""

import dataclasses
from typing import Any

from kfcn import recipes
from kfcn.data import catalog
from kfcn.data.reading import CHOICES, IGNORE_HELP, PAGES_HELP, UNLABELLED_HELP, Reading
from kfcn.nets import architectures
from kfcn.nets.backbones import BACKBONES
from kfcn.options import (
    Checked,
    Kind,
    Range,
    default_in_words,
    in_words,
    option,
    table,
)
from kfcn.recipes import scenes

STRATEGIES = ("auto", "one", "mirrored", "multiworker")
BODY_OPTIONS = tuple(dict.fromkeys(name for row in BACKBONES.values() for name in row.options))
"""Settings that are options of some backbone."""
USUAL_EPOCHS, LEAST_STEPS, MOST_STEPS = 40, 500, 10_000
"""Of a run that is not asked for a number of epochs: it is steps that a net learns from, and a few
pictures make few in an epoch."""
LEAST_CROP = 32
"""Below the coarsest stride a map of the backbone has no cell left to learn from."""


@dataclasses.dataclass(frozen=True)
class Settings(Checked):
    """The resolved settings of a run, as `config.json` stores them.

    A field says everything about its setting: the flags of `kfcn-train`, the checks and the
    reference are made from it.
    """

    recipe: str | None = option(
        None,
        "the settings of a result; explicit flags override it. `list` prints all, with their "
        f"figures: {', '.join(recipes.names())}",
        metavar="NAME|list",
    )

    arch: str = option(
        "fcn8s",
        f"the net: {', '.join(architectures.NAMES)}",
        group="net",
        metavar="NAME",
        choices=architectures.NAMES,
    )
    backbone: str = option(
        "efficientnet_lite0",
        f"backbone of the net: {', '.join(BACKBONES)}",
        group="net",
        metavar="NAME",
        choices=tuple(BACKBONES),
    )
    output_stride: int | None = option(
        None,
        "strides of the backbone beyond this are removed, later filters dilated; without an arch "
        "it trains the net dilated",
        group="net",
        otherwise="8 for the arch dilated, else 32",
        choices=(8, 16, 32),
    )
    alpha: float | None = option(
        None,
        "width multiplier of mobilenet_v2, such as 0.35, 0.5, 0.75 or 1.0; implies --backbone "
        "mobilenet_v2",
        group="net",
        otherwise="1",
        range=Range(above=0),
    )
    fc_filters: int | None = option(
        None,
        "channels of fc6 and fc7 of vgg16; implies --backbone vgg16",
        group="net",
        otherwise="the paper's 4096",
        range=Range(least=1),
    )
    learn_middle: bool = option(
        True,
        "keep the 2x upsampling layers bilinear too, as in the released nets",
        group="net",
        flag="--fix-middle",
    )
    learn_last: bool = option(False, "let the last upsampling learn", group="net")
    align: bool = option(
        False, "upsampling kernels aligned to where the backbone's cells lie", group="net"
    )
    crf: bool = option(
        False,
        "CRF-RNN: a dense CRF on top of the net of --init-from, trained end to end; by default 5 "
        "epochs at a rate of 1e-4",
        group="net",
    )
    crf_options: dict[str, float] = option(
        {},
        "arguments of DenseCRF; by default those in the crf.json of the run that it starts from",
        group="net",
        flag=None,
    )
    weights: str = option(
        "imagenet",
        "weights of the backbone: imagenet, none, or a file",
        group="net",
        metavar="imagenet|none|PATH",
    )
    init_from: str | None = option(
        None,
        "run folder, model or shipped net to start from; its net is the default for arch and "
        "backbone, and if its classes differ, all but the class scores is carried over",
        group="net",
        metavar="RUN",
    )

    data: str = option(
        "scenes",
        f"the data set: {', '.join(catalog.NAMES)}",
        group="data",
        metavar="NAME",
        valid=catalog.is_name,
        expected=f"one of {', '.join(catalog.NAMES)}",
    )
    data_dir: str | None = option(None, "folder of the data set", group="data", metavar="DIR")
    classes: str | None = option(
        None,
        catalog.CLASSES_HELP,
        group="data",
        metavar="FILE|LIST",
    )
    ignore: str = option("255", IGNORE_HELP, group="data", choices=CHOICES["ignore"])
    pages: str = option("one", PAGES_HELP, group="data", choices=CHOICES["pages"])
    unlabelled: str = option(
        "background", UNLABELLED_HELP, group="data", choices=CHOICES["unlabelled"]
    )
    unlabelled_dir: str | None = option(
        None,
        "folder of pictures without labels to learn from as well: the running average of the "
        "weights labels them, and the net learns its confident labels on the same pictures, "
        "strongly augmented",
        group="data",
        metavar="DIR",
    )
    train_split: str = option("train", "the split to train on", group="data", metavar="NAME")
    val_split: str = option(
        "val", "the split that decides which net is kept", group="data", metavar="NAME"
    )
    crop: tuple[int, int] = option(
        (320, 320),
        "height and width of the training crops, pixels; 0 0 for whole pictures, as --whole",
        group="data",
        metavar=("H", "W"),
        range=Range(least=0),
        valid=lambda crop: crop == (0, 0) or min(crop) >= LEAST_CROP,
        expected=f"height and width of at least {LEAST_CROP} pixels, or 0 0 for whole pictures",
        other=(
            "--whole",
            (0, 0),
            "no crops: whole pictures of any size, padded to the largest of the batch",
        ),
    )
    scale: tuple[float, float] = option(
        (0.75, 1.75),
        "range of the random scale of the training pictures",
        group="data",
        metavar=("LOW", "HIGH"),
        range=Range(least=0.05, most=20),
        valid=lambda scale: scale[0] <= scale[1],
        expected="a smallest and a greatest number of 0.05 to 20",
    )
    augment: str = option(
        "usual",
        "training pictures vary in scale, mirroring and colours; strong: colours and sharpness "
        "vary strongly, and parts of one picture are pasted into another (CutMix)",
        group="data",
        choices=("usual", "strong"),
    )
    batch_size: int = option(
        4, "images in a batch, over all replicas", group="data", range=Range(least=1)
    )

    epochs: int | None = option(
        None,
        "passes over the training split",
        group="training",
        otherwise=f"{USUAL_EPOCHS}, or as many as make {LEAST_STEPS} to {MOST_STEPS} steps",
        range=Range(least=1),
    )
    optimizer: str = option(
        "adamw",
        "sgd has momentum, and biases at twice the rate",
        group="training",
        choices=("adamw", "sgd"),
    )
    learning_rate: float = option(
        1e-3,
        "initial learning rate; falls to 0 as (1 - step / steps) ** power",
        group="training",
        range=Range(above=0),
    )
    power: float = option(
        0.9,
        "exponent of the learning-rate decay; 0 keeps it constant",
        group="training",
        range=Range(least=0),
    )
    momentum: float = option(
        0.9, "momentum of sgd", group="training", range=Range(least=0, below=1)
    )
    weight_decay: float = option(
        1e-4,
        "not applied to biases and batch normalisation; decoupled for adamw, L2 for sgd",
        group="training",
        range=Range(least=0),
    )
    ema: float = option(
        0.0,
        "validate and save the running average of the weights, with this momentum: 0.998 spans "
        "about 500 steps, and is the default with --unlabelled-dir; 0 for none",
        group="training",
        range=Range(least=0, below=1),
    )
    class_weights: str = option(
        "none",
        "class weights of the loss: by median frequency, or their square root",
        group="training",
        choices=("none", "median", "sqrt"),
    )
    iou_loss: float = option(
        0.0,
        "add the soft IoU loss of the batch, with this weight, to the cross entropy",
        group="training",
        range=Range(least=0),
    )
    gated_crf: float = option(
        0.0,
        "add the gated CRF loss, with this weight: for labels of points, lines or strokes, whose "
        "other pixels are 255; 0.01 helped where it was measured",
        group="training",
        range=Range(least=0),
    )
    seed: int = option(
        0,
        "seed of initial weights, data order, augmentation and dropout",
        group="training",
        range=Range(least=0, most=2**32 - 1),
    )
    precision: str = option(
        "float32",
        "precision of activations; weights are float32",
        group="training",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    recompute: bool = option(
        False,
        "compute the maps inside the net again for the gradient instead of keeping them: less "
        "memory, more time; on one replica",
        group="training",
    )
    deterministic: bool = option(False, "bit-for-bit repeatable, somewhat slower", group="training")

    def for_steps(self, steps_per_epoch: int) -> "Settings":
        """The same with a number of epochs, which follows the size of the training split."""
        if self.epochs is not None:
            return self
        steps = min(max(USUAL_EPOCHS * steps_per_epoch, LEAST_STEPS), MOST_STEPS)
        return dataclasses.replace(self, epochs=-(-steps // steps_per_epoch))

    @property
    def all_epochs(self) -> int:
        """The number of epochs, which `for_steps` has chosen where nobody else has."""
        if self.epochs is None:
            raise ValueError("the number of epochs has not been chosen: see `for_steps`")
        return self.epochs

    @property
    def source(self) -> catalog.Source:
        """The data set."""
        return catalog.Source(self.data, self.data_dir, self.seed, self.classes, self.reading)

    @property
    def reading(self) -> Reading:
        """How its files are read; the stretch of deep pictures is the training split's."""
        return Reading(self.ignore, self.pages, self.unlabelled)

    @property
    def window(self) -> tuple[int, int] | None:
        """The training crop; None for whole pictures."""
        return self.crop if any(self.crop) else None

    @property
    def net(self) -> str:
        """The net in words, for messages."""
        body = f" on {self.backbone}" if architectures.row(self.arch).backbone else ""
        return f"{self.arch}{body}{' with a CRF' if self.crf else ''}"

    @property
    def backbone_options(self) -> dict[str, Any]:
        """What was chosen of the backbone's options."""
        chosen = {name: getattr(self, name) for name in BODY_OPTIONS}
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def net_options(self) -> dict[str, Any]:
        """What was chosen of the net beside its arch and backbone, for its card."""
        options = {
            "output_stride": self.output_stride,
            **self.backbone_options,
            **self.head_options,
        }
        return {n: v for n, v in options.items() if v != getattr(Settings, n)}

    @property
    def head_options(self) -> dict[str, Any]:
        """The options of the skip nets (`kfcn.nets.fcn.fcn8s`)."""
        return {
            "learn_middle": self.learn_middle,
            "learn_last": self.learn_last,
            "align": self.align,
        }


@dataclasses.dataclass(frozen=True)
class Conduct(Checked):
    """How a run is carried out; it may change from one start to the next."""

    strategy: str = option(
        "auto",
        "auto: all GPUs of this machine, or the workers that TF_CONFIG or Slurm name",
        group="devices and faults",
        choices=STRATEGIES,
    )
    cpu_replicas: int = option(
        0,
        "mirror over N logical CPU devices, for trials without GPUs; 0 for none",
        group="devices and faults",
        range=Range(least=0),
    )
    save_minutes: float = option(
        5.0,
        "minutes between checkpoints within an epoch; 0: after every step. One is always saved at "
        "the end of an epoch",
        group="devices and faults",
        range=Range(least=0),
    )
    keep: int = option(
        3, "how many checkpoints to keep", group="devices and faults", range=Range(least=1)
    )
    skip_bad: int = option(
        0,
        "report up to N unreadable files for each worker and continue without them",
        group="devices and faults",
        range=Range(least=0),
    )


DATA_DEFAULTS: dict[str, dict[str, Any]] = {
    "scenes": scenes.SETTINGS,
    "camvid": {"crop": (352, 480), "class_weights": "sqrt"},
}
"""Where a data set asks for other defaults than the rest."""


def default_words(kind: Kind) -> str:
    """The default of a setting, and the data sets that have another."""
    parts = [default_in_words(kind)]
    for name, defaults in DATA_DEFAULTS.items():
        if kind.name in defaults and kind.name != "data":
            parts.append(f"{in_words(defaults[kind.name])} for {name}")
    return ", ".join(filter(None, parts))


def reference() -> str:
    """Markdown: every setting with its flag, values, default and meaning."""
    return table(Settings, default_words)
