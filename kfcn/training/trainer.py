"""The training of a net from settings to a run folder."""

import dataclasses
import sys
from pathlib import Path

import keras

from kfcn import __version__, architectures, backbones, fcn
from kfcn import data as data_sets
from kfcn.data import pipeline
from kfcn.evaluation import Evaluation, evaluate
from kfcn.files import sha256, write_json
from kfcn.losses import PixelCrossEntropy
from kfcn.metrics import MeanIoU
from kfcn.rewrite import receptive_field
from kfcn.saved import CARD, MODEL, load_model
from kfcn.training import checkpoint
from kfcn.training.recorder import Recorder
from kfcn.training.run_folder import RunFolder, new_run_path
from kfcn.training.settings import Settings, resolve


@dataclasses.dataclass(frozen=True)
class Result:
    """What `train` gives: where the run lies and how good its best net is on validation."""

    run_dir: Path
    evaluation: Evaluation

    @property
    def model(self) -> Path:
        return self.run_dir / MODEL

    @property
    def overlays(self) -> Path:
        return RunFolder(self.run_dir).overlays


def train(run_dir: Path | str | None = None, verbose: bool = True, **settings) -> Result:
    """Trains a net, or goes on with a run that was stopped.

    Args:
        run_dir: folder of the run; one that holds a run continues it, with nothing else given or
            with the same settings. None makes `runs/DATA-ARCH`.
        verbose: print what happens, with a progress bar.
        settings: fields of `kfcn.training.settings.Settings`; what is left out has the data
            set's default.

    Returns:
        The run folder and the evaluation of its best net on the validation split.

    Raises:
        UsageError: settings that make no sense, or differ from those of the run.
        DataError: the data set has a file that cannot be used; nothing was trained.
        KfcnError: the training failed (weights, disk, a loss that is not finite).
    """
    say = print if verbose else (lambda line: None)
    stored = RunFolder(run_dir).stored_settings() if run_dir else None
    config = resolve(stored, **settings)
    run = RunFolder(run_dir or new_run_path(f"{config.data}-{config.arch}"))

    train_set, validation = (
        pipeline.cached(
            data_sets.load(config.data, split, config.data_dir, config.seed, config.classes)
        )
        for split in (config.train_split, config.val_split)
    )
    for note in (*train_set.notes, *validation.notes):
        say(note)
    counts = data_sets.check(train_set, progress=verbose)
    data_sets.check(validation, progress=verbose)

    model = _compiled(config, counts, train_set, say)
    run.start(config)
    steps = pipeline.steps_per_epoch(train_set, config.batch_size)
    note = checkpoint.restore(run.checkpoints, model, warn=say) or {"step": 0, "rows": []}
    epoch = note["step"] // steps
    recorder = Recorder(run, validation, steps, config.epochs, note["rows"], say)
    say(f"{len(train_set)} training and {len(validation)} validation images")
    if epoch:
        say(f"continuing {run.path} after epoch {epoch} of {config.epochs}")
    if epoch < config.epochs:
        _fit(model, config, train_set, steps, note["step"], recorder, verbose, say)

    best = load_model(run.path)
    result = evaluate(best, validation)
    write_json(run.path / CARD, _card(config, best, result, run, recorder.best, validation.classes))
    recorder.save_overlays(best)
    return Result(run.path, result)


def _compiled(config: Settings, counts, train_set, say) -> keras.Model:
    """The net with its first weights, its loss and its optimizer."""
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    classes = len(train_set.classes)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        model = build(config, classes)
    finally:
        keras.config.set_dtype_policy(before)
    if config.init_from:
        filled = fcn.carry_weights(load_model(config.init_from), model)
        say(f"{len(filled)} layers start from {config.init_from}")
    elif config.weights != "none":
        filled = backbones.load_weights(
            model, config.backbone, config.weights, **config.backbone_options
        )
        say(f"{filled} tensors of {config.backbone} start from {config.weights}")

    say(f"{config.net}: {model.count_params() / 1e6:.2f} M parameters, {_field(model)}")
    frozen = ["gamma", "beta", "bias"]  # not to be drawn to zero
    if config.crf:
        from kfcn.crf import NO_WEIGHT_DECAY, add_crf

        model = add_crf(model, **config.crf_options)
        frozen += NO_WEIGHT_DECAY

    steps = config.epochs * pipeline.steps_per_epoch(train_set, config.batch_size)
    schedule = keras.optimizers.schedules.PolynomialDecay(
        config.learning_rate, steps, end_learning_rate=0.0, power=0.9
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=frozen)
    weights = None
    if config.class_weights != "none":
        weights = data_sets.class_weights(counts, config.class_weights)
    model.compile(optimizer, PixelCrossEntropy(weights), metrics=[MeanIoU(classes, step=4)])
    optimizer.build(model.trainable_variables)
    return model


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
    size = receptive_field(model).size
    size = max(size) if isinstance(size, tuple) else size
    if size == float("inf"):
        return "every pixel sees the whole image"
    return f"receptive field {size:.0f} pixels"


def _fit(model, config, train_set, steps, first_step, recorder, verbose, say):
    batches = pipeline.training_batches(
        train_set,
        config.batch_size,
        config.crop if any(config.crop) else None,
        config.seed,
        first_step,
        pipeline.Augmentation(scale=config.scale),
    )
    try:
        model.fit(
            batches,
            initial_epoch=first_step // steps,
            epochs=config.epochs,
            steps_per_epoch=steps,
            callbacks=[recorder],
            shuffle=False,  # the stream has its own order
            verbose=_verbosity(verbose),
        )
    except KeyboardInterrupt:
        say(f"\nstopped; continue with --run-dir {recorder.run.path}")
        raise
    except Exception as error:
        found = pipeline.data_error(error)
        if found is None:
            raise
        raise found from error


def _verbosity(verbose: bool) -> int:
    """Keras' setting: a bar in a terminal or notebook, a line for each epoch in a log."""
    if not verbose:
        return 0
    return 1 if sys.stdout.isatty() or hasattr(sys, "ps1") else 2


def _card(config: Settings, model, result: Evaluation, run: RunFolder, row: dict, classes) -> dict:
    """The model's card: what an app, a converter or a reader needs to know of `model.keras`."""
    return {
        "kfcn_version": __version__,
        "architecture": config.arch,
        "backbone": None if config.arch == "convnet" else config.backbone,
        "classes": list(classes.names),
        "palette": [list(colour) for colour in classes.palette],
        "ignore": data_sets.IGNORE,
        "input": {"colour": "RGB", "range": [0, 255], "size": "any"},
        "output": "logits of the input's size",
        "parameters": model.count_params(),
        "sha256": sha256(run.path / MODEL),
        "data": config.data,
        "split": config.val_split,
        "epoch": row["epoch"],
        "crf": config.crf,
        "metrics": {k: v for k, v in result.as_dict().items() if k != "data"},
    }
