"""What a run starts from: its net with its first weights, its loss, its optimizer; and its card."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import keras

from kfcn import __version__
from kfcn.cards import read_card
from kfcn.data.catalog import is_path
from kfcn.data.dataset import Dataset
from kfcn.data.feed import batches
from kfcn.errors import UsageError
from kfcn.labels import IGNORE
from kfcn.losses import SegmentationLoss
from kfcn.nets import architectures
from kfcn.nets.weights import carry_weights, load_weights
from kfcn.rewrite import receptive_fields
from kfcn.saved import check_finite, load_model
from kfcn.training.average import Average
from kfcn.training.learner import Learner
from kfcn.training.optimizers import NO_DECAY, build_optimizer
from kfcn.training.settings import Settings


def new_learner(
    config: Settings,
    train_set: Dataset,
    class_weights: Iterable[float] | None,
    say: Callable[[str], None],
    started: bool = False,
) -> Learner:
    """The net with its first weights, its loss, its optimizer and its average.

    Args:
        config: of the run.
        train_set: of whose classes the net is.
        class_weights: of the loss.
        say: gets a line on what the net starts from.
        started: its weights come from a checkpoint, whatever it started from.
    """
    keras.utils.set_random_seed(config.seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        model = build(config, len(train_set.classes))
    finally:
        keras.config.set_dtype_policy(before)
    if config.init_from and not started:
        card = read_card(config.init_from)
        if config.crf and card is not None and card.get("crf"):
            raise UsageError(
                f"{config.init_from} has a CRF already; start --crf from the net that this one was "
                "trained on"
            )
        same = None if card is None else tuple(card["classes"]) == train_set.classes.names
        filled = carry_weights(load_model(config.init_from), model, same)
        check_finite(model, config.init_from)
        count = sum(bool(layer.weights) for layer in model.layers)
        scores = "" if same or same is None else "; its classes differ: scores start at zero"
        say(f"{len(filled)} of {count} layers start from {config.init_from}{scores}")
    elif config.weights != "none" and not started:
        filled = load_weights(model, config.backbone, config.weights, **config.backbone_options)
        say(f"{filled} tensors of {config.backbone} start from {config.weights}")

    say(f"{config.net}: {model.count_params() / 1e6:.2f} M parameters, {_field(model)}")
    no_decay = NO_DECAY
    if config.crf:
        from kfcn.crf import NO_WEIGHT_DECAY, add_crf

        model = add_crf(model, **config.crf_options)
        no_decay = (*NO_DECAY, *NO_WEIGHT_DECAY)
    steps = config.all_epochs * batches.steps_per_epoch(train_set, config.batch_size)
    optimizer = build_optimizer(config, model.trainable_variables, steps, no_decay)
    loss = SegmentationLoss(class_weights, config.iou_loss)
    average = Average(model, config.ema) if config.ema else None
    unlabelled = config.unlabelled_dir is not None
    return Learner(model, loss, optimizer, average, config.recompute, config.gated_crf, unlabelled)


def build(config: Settings, classes: int) -> keras.Model:
    """The untrained net of the settings."""
    return architectures.build(
        config.arch,
        classes,
        config.backbone,
        config.output_stride,
        config.head_options,
        config.backbone_options,
    )


def _field(model: keras.Model) -> str:
    size = receptive_fields(model)[0].extent
    if size == float("inf"):
        return "every pixel sees the whole image"
    return f"receptive field {size:.0f} pixels"


def card_of(config: Settings, validation: Dataset) -> dict[str, Any]:
    """What an app, a converter or a reader needs to know of a net, before it is trained."""
    classes = validation.classes
    reading = dataclasses.replace(config.reading, stretch=validation.stretch)
    return {
        "kfcn_version": __version__,
        "architecture": config.arch,
        "backbone": config.backbone if architectures.row(config.arch).backbone else None,
        "net": config.net_options,
        "classes": list(classes.names),
        "palette": [list(colour) for colour in classes.palette],
        "ignore": IGNORE,
        "input": {"colour": "RGB", "range": [0, 255], "size": "any"},
        "output": "logits of the input's size",
        "data": config.data,
        "reading": reading.as_dict(),
        "grouping": None if config.classes is None or is_path(config.classes) else config.classes,
        "split": config.val_split,
        "crf": config.crf,
    }
