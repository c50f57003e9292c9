"""The training of a net from settings to a run folder."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kfcn.data.audit.audit import before_training
from kfcn.data.audit.check import class_weights
from kfcn.data.dataset import Dataset
from kfcn.data.feed import batches
from kfcn.data.feed.views import Memory, Skipping, cached
from kfcn.data.pictures import Pictures, check_pictures
from kfcn.data.stretch import open_splits
from kfcn.errors import KfcnError, UsageError, WriteError, counted
from kfcn.files import sha256, write_json
from kfcn.inference.evaluate import Evaluation
from kfcn.inference.runtime import store
from kfcn.machine import onednn_lacks_avx512
from kfcn.nets.weights import check_weights
from kfcn.saved import CARD, MODEL, load_model, model_path
from kfcn.training import checkpoint, replicas
from kfcn.training.learner import Learner
from kfcn.training.loop import Loop
from kfcn.training.recorder import Progress, Recorder, best
from kfcn.training.resolution import from_its_net
from kfcn.training.run_folder import UNLABELLED, RunFolder, data_place
from kfcn.training.settings import Conduct, Settings
from kfcn.training.stages import Stage, plan
from kfcn.training.start import card_of, new_learner

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Result:
    """What `train` gives: where the run lies and how good its best net is on validation."""

    run_dir: Path
    evaluation: Evaluation
    worker: int = 0
    """Number of this process among several; 0 is the one that wrote the run folder."""

    @property
    def model(self) -> Path:
        return self.run_dir / MODEL

    @property
    def overlays(self) -> Path:
        return RunFolder(self.run_dir).overlays


def train(
    run_dir: Path | str | None = None,
    verbose: bool = True,
    *,
    strategy: str = Conduct.strategy,
    cpu_replicas: int = Conduct.cpu_replicas,
    save_minutes: float = Conduct.save_minutes,
    keep: int = Conduct.keep,
    skip_bad: int = Conduct.skip_bad,
    **settings: Any,
) -> Result:
    """Trains a net, or goes on with a run that was stopped.

    The named arguments say how the run is carried out and may change from one start to the next;
    `settings` say what is trained and may not.

    Args:
        run_dir: folder of the run; one that holds a run continues it, with nothing else given or
            with the same settings. None makes `runs/DATA-ARCH` or `runs/RECIPE`, or continues it
            where it holds an unfinished run of the same settings. The stages of a recipe have
            folders of their own in it; finished ones are left as they are.
        verbose: print what happens, with a progress bar.
        strategy: where the replicas are (`kfcn.training.replicas.start`).
        cpu_replicas: logical CPU devices to mirror over; 0 for none.
        save_minutes: between two checkpoints within an epoch; 0 saves after every step. One is
            always saved at its end.
        keep: how many checkpoints stay.
        skip_bad: how many unreadable files each worker may leave out.
        settings: fields of `kfcn.training.settings.Settings`, such as `recipe="camvid_fcn8s"`;
            what is left out has the recipe's or the data set's default.

    Returns:
        The run folder and the evaluation of its best net on the validation split; those of the
        last stage where there are several.

    Raises:
        UsageError: settings that make no sense, or differ from those of the run; workers with
            different data.
        DataError: the data set has a file that cannot be used.
        WriteError: the disk is full, or the run folder may not be written to.
        KfcnError: the training failed (weights, a loss that is not finite).
        WorkerLostError: another worker of the cluster has gone.
        Stopped: SIGTERM or Ctrl-C came, or the terminal was closed; the state is saved.
    """
    conduct = Conduct(strategy, cpu_replicas, save_minutes, keep, skip_bad)
    stages = plan(run_dir, settings)
    _check_start(stages)
    if any(stage.config.deterministic for stage in stages):
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    where = replicas.start(conduct.strategy, conduct.cpu_replicas)
    if where.total > 1 and any(stage.config.recompute for stage in stages):
        raise UsageError(
            f"--recompute works on one replica, not on {where.total}: batch normalisation would "
            "ask the others for their statistics twice; leave it out, or use --strategy one"
        )
    for stage in stages:
        _check_precision(stage.config.precision)
    loud = verbose and where.chief
    say = print if loud else _nothing
    result = None
    for number, stage in enumerate(stages, start=1):
        last = number == len(stages)
        if len(stages) > 1:
            finished = ", finished" if stage.finished else ""
            say(f"stage {number} of {len(stages)}: {stage.run.path}{finished}")
        if last or not stage.finished:
            try:
                result = _train(stage, where, conduct, loud)
            except WriteError as error:
                if not checkpoint.exists(stage.run.checkpoints):
                    raise
                again = f"the same command continues from there (run {stage.run.path})"
                raise error.advising(again) from error
    assert result is not None  # there is a last stage
    return result


def _check_start(stages: Iterable[Stage]) -> None:
    """Makes sure that what the next training starts from is there, before any data are read."""
    stage = next((stage for stage in stages if not stage.finished), None)
    if stage is None or checkpoint.exists(stage.run.checkpoints):
        return
    if stage.config.init_from:
        model_path(stage.config.init_from)
    elif stage.config.weights != "none":
        check_weights(stage.config.backbone, stage.config.weights)


def _check_precision(precision: str) -> None:
    import tensorflow as tf

    on_cpu = not tf.config.list_physical_devices("GPU")
    if precision == "mixed_bfloat16" and on_cpu and onednn_lacks_avx512():
        raise UsageError(
            "--precision mixed_bfloat16 needs AVX-512 where oneDNN computes; this processor has "
            "none, or ONEDNN_MAX_CPU_ISA keeps oneDNN from it: leave it out"
        )


def _nothing(line: str) -> None:
    """What a silent run says."""


def _train(stage: Stage, where: replicas.Replicas, conduct: Conduct, loud: bool) -> Result:
    """Trains one run to its end, or measures one that is there; `loud` prints what happens."""
    config, run, say = stage.config, stage.run, print if loud else _nothing
    data = _opened(config, run, conduct.skip_bad, loud)
    _check_same_data(config, data.fingerprints, where)
    train_set, validation, unlabelled = data.train, data.validation, data.unlabelled
    finished = stage.finished
    _check_shared(run, int(finished), where)
    if finished:
        epochs = counted(config.all_epochs, "epoch")
        say(f"{run.path} is finished, {epochs}; to train further, {from_its_net(run.path)}")
        recorder = Recorder(run, validation, config.all_epochs, where, say)
        return Result(run.path, recorder.evaluate(load_model(run.path)), where.worker)
    counts, warnings = before_training(train_set, validation, progress=loud)
    if unlabelled is not None:
        check_pictures(unlabelled, loud)
        warnings += unlabelled.notes
    for line in warnings:
        say(line)
    batches.check_shares(len(train_set), config.batch_size, where.total)
    steps = batches.steps_per_epoch(train_set, config.batch_size)
    if config.epochs is None:
        config = config.for_steps(steps)
        stage = dataclasses.replace(stage, config=config)
        say(
            f"{counted(config.all_epochs, 'epoch')} of {counted(steps, 'step')} for "
            f"{counted(len(train_set), 'picture')} (--epochs N for another number)"
        )

    weights = None
    if config.class_weights != "none":
        weights = class_weights(counts, config.class_weights)
    # What it began from may have moved since: the checkpoint holds all of it.
    goes_on = checkpoint.exists(run.checkpoints)
    with where.guard(), where.strategy.scope():
        learner = new_learner(config, train_set, weights, say, started=goes_on)
    difference = run.other_kernels() if goes_on else None
    where.sum(0)  # nobody looks into the run folder from here on as if it were not there
    with run.lock() if where.chief else contextlib.nullcontext():
        if where.chief:
            run.start(config, data.fingerprints, card_of(config, validation), goes_on)
        where.sum(0)
        progress = _restored(run, learner, where, say)
        say(
            f"{len(train_set)} training and {counted(len(validation), 'validation image')}, {where}"
        )
        if unlabelled is not None:
            say(f"{counted(len(unlabelled), 'unlabelled image')} of {config.unlabelled_dir}")
        if progress.step:
            epoch, step = divmod(progress.step, steps)
            say(f"continuing {run.path} after step {step} of epoch {epoch + 1} of {config.epochs}")
            if difference:
                say(f"the results will differ in rounding: {difference}")
        recorder = Recorder(run, validation, config.all_epochs, where, say)
        saving = checkpoint.Saving(60 * conduct.save_minutes, conduct.keep)
        loop = Loop(stage, learner, train_set, where, progress, recorder, saving, unlabelled)
        loop.to_the_end(bar=loud)

        where.sum(0)  # the best net is on the disk
        net = load_model(run.path)
        result = recorder.evaluate(net)
        if where.chief:
            recorder.save_overlays(net)
            card = _final_card(card_of(config, validation), run, net, result, progress)
            write_json(run.path / CARD, card)  # last: with it the run is finished
            store.save(run.path, net)  # its first prediction then waits for no import of Keras
        where.sum(0)
    return Result(run.path, result, where.worker)


def _final_card(
    card: dict[str, Any],
    run: RunFolder,
    net: "keras.Model",
    result: Evaluation,
    progress: Progress,
) -> dict[str, Any]:
    """The card of a run with what is known at its end: of its best net, and how good that is."""
    row = best(progress.rows)
    assert row is not None  # there was at least one epoch
    return card | {
        "parameters": net.count_params(),
        "sha256": sha256(run.path / MODEL),
        "epoch": row["epoch"],
        "metrics": {k: v for k, v in result.as_dict().items() if k != "data"},
    }


class _Data(NamedTuple):
    """What a run learns from and is validated on, and what it was at the time."""

    train: Dataset
    validation: Dataset
    unlabelled: Dataset | None
    fingerprints: dict[str, str]


def _opened(config: Settings, run: RunFolder, skip_bad: int, loud: bool) -> _Data:
    """The data of a run, once they are known to be those that it was started with."""
    splits = (config.train_split, config.val_split)
    opened = dict(zip(splits, open_splits(config.source, splits, loud), strict=True))
    if config.unlabelled_dir is not None:
        labelled = opened[config.train_split]
        reading = dataclasses.replace(config.reading, stretch=labelled.stretch)
        opened[UNLABELLED] = Pictures(config.unlabelled_dir, labelled.classes, reading)
    fingerprints = {part: dataset.fingerprint() for part, dataset in opened.items()}
    run.check_data(config, fingerprints)
    memory = Memory()  # one for all
    seen = {
        part: cached(Skipping(dataset, skip_bad, print), memory) for part, dataset in opened.items()
    }
    train, validation = (seen[split] for split in splits)
    return _Data(train, validation, seen.get(UNLABELLED), fingerprints)


def _check_same_data(
    config: Settings, fingerprints: Mapping[str, str], where: replicas.Replicas
) -> None:
    """Makes sure that all workers have the files of the first: each reads its part of them alone.

    With other files on one of them the net would learn from wrong labels, and with fewer an epoch
    would end there earlier: all would wait for one another for good.

    Args:
        config: of this worker.
        fingerprints: split or `UNLABELLED` -> `Dataset.fingerprint`, of this worker.
        where: all workers; each of them must call it.

    Raises:
        UsageError: on every worker, where one of them has other files.
    """
    text = repr(sorted(fingerprints.items()))
    mine = int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)  # fits int64
    # Numbers alone: an array would be one more shape, of which TensorFlow warns.
    first = where.sum(mine if where.chief else 0)
    others = where.sum(int(mine != first))
    if others:
        who = f"worker {where.worker}" if mine != first else f"{others} of {where.workers} workers"
        places = " and ".join(data_place(config, part) for part in fingerprints)
        raise UsageError(
            f"{who} found different files from worker 0 (here: {places}); give all workers the "
            "same data"
        )


def _restored(
    run: RunFolder, learner: Learner, where: replicas.Replicas, say: Callable[[str], None]
) -> Progress:
    """How far the run is, with its newest checkpoint in the learner's variables."""
    with where.strategy.scope():
        progress = (
            checkpoint.restore(
                run.checkpoints, learner.variables, warn=say, parse=Progress.from_note
            )
            or Progress()
        )
    if not progress.step and run.holds_results():
        raise UsageError(
            f"{run.path} holds a net and no checkpoint to continue from; measure it with "
            f"kfcn-evaluate, or {from_its_net(run.path)}"
        )
    _check_shared(run, progress.step, where)
    return progress


def _check_shared(run: RunFolder, done: int, where: replicas.Replicas) -> None:
    """Makes sure that all workers see one run folder: it is as far for each of them."""
    if where.sum(done) != where.workers * done:
        raise KfcnError(
            f"the workers found the run {run.path} at different steps; expected a folder that all "
            "of them share"
        )
