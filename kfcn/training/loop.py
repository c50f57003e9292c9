"""The loop over the steps of a run: feed, train, save, stop."""

import sys
import time

import keras
import tensorflow as tf
from tqdm import tqdm

from kfcn.data.dataset import Dataset
from kfcn.data.feed import batches
from kfcn.data.feed.unlabelled import unlabelled_batches, unlabelled_names
from kfcn.errors import KfcnError, Stopped
from kfcn.training import checkpoint
from kfcn.training.checkpoint import Saving
from kfcn.training.interrupt import Interrupt
from kfcn.training.learner import Learner
from kfcn.training.recorder import Progress, Recorder
from kfcn.training.replicas import Replicas
from kfcn.training.stages import Stage
from kfcn.training.step import Done, Step


class Loop:
    """Trains a net from where it is to the end of the run, and keeps it safe on the way.

    Args:
        stage: settings and folder of the run.
        learner: what is trained.
        train_set: the training split.
        replicas: where the net lies.
        progress: how far the run is; counts on.
        recorder: is called at the end of each epoch.
        saving: how often the state is saved.
        unlabelled: pictures without labels to learn from as well.
    """

    def __init__(
        self,
        stage: Stage,
        learner: Learner,
        train_set: Dataset,
        replicas: Replicas,
        progress: Progress,
        recorder: Recorder,
        saving: Saving,
        unlabelled: Dataset | None = None,
    ):
        self.config, self.run = stage.config, stage.run
        self.learner, self.train_set, self.unlabelled = learner, train_set, unlabelled
        self.replicas = replicas
        self.progress, self.recorder, self.saving = progress, recorder, saving
        self.steps = batches.steps_per_epoch(train_set, self.config.batch_size)
        self._saved = time.monotonic()
        self._twin: keras.Model | None = None
        stream = replicas.strategy.distribute_datasets_from_function(self._batches)
        self._step = Step(learner, replicas, stream.element_spec)
        self._stream = iter(stream)
        replicas.marker.begin(progress.step)

    def to_the_end(self, bar: bool = False) -> None:
        """Trains until every epoch has its row.

        Args:
            bar: show a progress bar for each epoch.

        Raises:
            Stopped: a signal came; the state is saved.
            KfcnError: the loss is not finite, or the state cannot be written.
            DataError: a file of the data set cannot be used.
            WorkerLostError: another worker has gone.
        """
        again = f"the same command continues from there (run {self.run.path})"
        with Interrupt(f"stopped; the state is saved, {again}") as interrupt:
            while len(self.progress.rows) < self.config.all_epochs:
                self._epoch(interrupt, bar)
                self._save()  # before the validation: who is stopped there repeats only that
                with interrupt.anytime(), self.replicas.guard():
                    rate = float(keras.ops.convert_to_numpy(self.learner.optimizer.learning_rate))
                    self.recorder.end_epoch(self.trained_net(), self.progress, rate)
            self._save()  # with the last row

    def _epoch(self, interrupt: Interrupt, bar: bool) -> None:
        progress = self.progress
        last = (len(progress.rows) + 1) * self.steps
        shown = tqdm(
            desc=f"epoch {len(progress.rows) + 1}/{self.config.epochs}",
            total=self.steps,
            initial=progress.step % self.steps,
            unit="step",
            leave=False,
            disable=not (bar and (sys.stderr.isatty() or hasattr(sys, "ps1"))),
        )
        with shown:
            while progress.step < last:
                done = self.one_step(bool(interrupt.code))
                if done.stop:
                    self._save()
                    raise Stopped(interrupt.message, interrupt.code or 143)
                if time.monotonic() - self._saved >= self.saving.seconds:
                    self._save()
                shown.set_postfix(loss=f"{progress.mean_loss:.4f}", refresh=False)
                shown.update()

    def one_step(self, stop: bool = False) -> Done:
        """Trains on the next batch and counts it; returns what the step gave.

        Args:
            stop: tell all workers that this is the last step for now.
        """
        started = time.perf_counter()
        try:
            with self.replicas.guard():
                batch = next(self._stream)
                waited = time.perf_counter() - started
                done = self._step(batch, stop)
        except Exception as error:
            found = batches.data_error(error)
            if found is None:
                raise
            self._save()
            raise found from error
        if not done.finite:
            self._save()
            raise KfcnError(self._not_finite(done.loss))
        self.progress.add(done, time.perf_counter() - started, waited)
        self.replicas.marker.reach(self.progress.step)
        return done

    def _batches(self, context: object):
        config, step, shares = self.config, self.progress.step, self.replicas.shares
        labelled = batches.training_batches(
            self.train_set,
            config.batch_size,
            config.window,
            config.seed,
            step,
            batches.Augmentation(scale=config.scale, strong=config.augment == "strong"),
            shares=shares,
        )
        if self.unlabelled is None:
            return labelled
        beside = unlabelled_batches(
            self.unlabelled, config.batch_size, config.crop, config.seed, step, config.scale, shares
        )
        return tf.data.Dataset.zip(labelled, beside).map(lambda batch, more: (*batch, more))

    def trained_net(self) -> keras.Model:
        """The net as it is now, to validate and to save: averaged where there is an average.

        It is on one device, as each worker validates it for itself.

        An averaged net is another one than the net in training, which stays as it is: there is no
        moment at which a checkpoint could catch the wrong weights.
        """
        model, average = self.learner.model, self.learner.average
        if self.replicas.total == 1 and not average:
            return model
        twin = self._twin = self._twin or keras.models.clone_model(model)
        weights = average.variables if average else model.weights
        for ours, theirs in zip(twin.weights, weights, strict=True):
            ours.assign(keras.ops.convert_to_numpy(theirs))
        return twin

    def _save(self) -> None:
        if self.replicas.chief:
            progress = self.progress
            checkpoint.save(
                self.run.checkpoints,
                self.learner.variables,
                progress.step,
                progress.note(),
                self.saving.keep,
            )
        self._saved = time.monotonic()

    def _not_finite(self, loss: float) -> str:
        step, config = self.progress.step, self.config
        size, seed = config.batch_size, config.seed
        names = ", ".join(batches.batch_names(self.train_set, size, config.window, seed, step))
        if self.unlabelled is not None:
            others = unlabelled_names(self.unlabelled, size, seed, step)
            names += f", and of {config.unlabelled_dir} {', '.join(others)}"
        return (
            f"the loss is {loss} at step {step + 1} (epoch {len(self.progress.rows) + 1}), batch "
            f"{names}; the state before it is saved in {self.run.checkpoints}: look at "
            "these files, or start another run with a lower --learning-rate"
        )
