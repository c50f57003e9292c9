"""The running average of the weights: by value, in a run, and after an interruption."""

import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import checkpoints, load, signalled
from small_nets import settings

from kfcn import train
from kfcn.errors import Stopped, UsageError
from kfcn.losses import SegmentationLoss
from kfcn.training import replicas, step
from kfcn.training.average import Average
from kfcn.training.learner import Learner
from kfcn.training.optimizers import AdamW
from kfcn.training.resolution import resolve


def numpy_average(trajectory, momentum):
    """Of the weights before and after each step, in float64."""
    average = [w.astype("float64") for w in trajectory[0]]
    for t, weights in enumerate(trajectory[1:], start=1):
        m = min(momentum, (1 + t) / (10 + t))
        average = [m * a + (1 - m) * w for a, w in zip(average, weights, strict=True)]
    return average


def apart(a, b):
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


def test_equals_the_average_in_numpy():
    """Over more steps than the warm-up to a momentum of 0.4 takes (five)."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(x))
    optimizer = AdamW(1e-2)
    optimizer.build(model.trainable_variables)
    average = Average(model, 0.4)
    learner = Learner(model, SegmentationLoss(), optimizer, average)
    spec = (tf.TensorSpec((2, 8, 8, 3)), tf.TensorSpec((2, 6, 6), tf.uint8))
    one = step.Step(learner, replicas.Replicas(tf.distribute.get_strategy()), spec)
    rng = np.random.default_rng(0)
    trajectory = [model.get_weights()]
    for _ in range(9):
        images = rng.normal(size=(2, 8, 8, 3)).astype("float32")
        one((tf.constant(images), tf.constant(rng.integers(0, 3, (2, 6, 6)), tf.uint8)))
        trajectory.append(model.get_weights())
    found = [np.asarray(v) for v in average.variables]
    assert apart(found, numpy_average(trajectory, 0.4)) < 1e-6
    assert apart(found, numpy_average(trajectory, 0.999)) > 1e-3  # the controls
    assert apart(found, trajectory[-1]) > 1e-3
    before = found
    one((tf.fill((2, 8, 8, 3), np.nan), tf.zeros((2, 6, 6), tf.uint8)))
    assert apart([np.asarray(v) for v in average.variables], before) == 0.0


@pytest.fixture(scope="module")
def short(pairs):
    return settings(pairs, arch="convnet", alpha=None, ema=0.5, keep=9, save_minutes=0)


@pytest.fixture(scope="module")
def averaged(short, tmp_path_factory):
    """A run of nine steps, all of whose checkpoints stay."""
    return train(tmp_path_factory.mktemp("averaged") / "run", **short)


def weights_of(path, model):
    """Raw weights and average in a checkpoint, in the order of `model.weights`."""
    _, arrays = load(path)
    trainable = len(model.trainable_weights)
    by_id = dict(zip(map(id, model.trainable_weights), arrays, strict=False))
    by_id |= dict(zip(map(id, model.non_trainable_weights), arrays[trainable:], strict=False))
    return [by_id[id(w)] for w in model.weights], arrays[-len(model.weights) :]


@pytest.mark.slow
def test_the_saved_net_is_the_average_of_the_run(averaged):
    """And training goes on from the raw weights: the steps' average in NumPy is the saved one."""
    model = keras.saving.load_model(averaged.model)
    saved = checkpoints(averaged.run_dir)
    assert len(saved) == 9
    trajectory, averages = zip(*(weights_of(path, model) for path in saved), strict=True)
    kept = [i for i, a in enumerate(averages) if apart(a, model.get_weights()) == 0.0]
    assert kept and kept[0] in (2, 5, 8)  # at the end of an epoch
    assert apart(trajectory[kept[0]], model.get_weights()) > 1e-3  # the control
    expected = averages[0]
    for t, weights in enumerate(trajectory[1:], start=2):
        m = min(0.5, (1 + t) / (10 + t))
        expected = [m * a + (1 - m) * w for a, w in zip(expected, weights, strict=True)]
    assert apart(expected, averages[-1]) < 1e-6


@pytest.mark.slow
def test_training_itself_is_the_same_without_it(averaged, short, tmp_path):
    plain = train(tmp_path / "plain", **{**short, "ema": 0.0})
    (_, a), (_, b) = (load(checkpoints(r.run_dir)[-1]) for r in (averaged, plain))
    assert len(a) > len(b)
    assert apart(a[: len(b)], b) == 0.0


@pytest.mark.slow
def test_a_run_that_was_stopped_while_validating_ends_with_the_same_bits(averaged, short, tmp_path):
    from kfcn.training.recorder import Recorder

    with signalled(Recorder, "evaluate", signal.SIGTERM), pytest.raises(Stopped):
        train(tmp_path / "run", **short)
    assert checkpoints(tmp_path / "run")[-1].name == "step-00000003.npz"
    train(tmp_path / "run", verbose=False)
    (_, a), (_, b) = (load(checkpoints(r)[-1]) for r in (averaged.run_dir, tmp_path / "run"))
    assert apart(a, b) == 0.0


@pytest.mark.slow
def test_with_loss_scaling_and_from_another_run(averaged, short, tmp_path):
    more = {"precision": "mixed_float16", "epochs": 1, "init_from": averaged.run_dir}
    result = train(tmp_path / "half", **{**short, **more})
    model = keras.saving.load_model(result.model)
    raw, average = weights_of(checkpoints(result.run_dir)[-1], model)
    assert apart(average, model.get_weights()) == 0.0
    assert 0 < apart(raw, average) < 0.1


@pytest.mark.parametrize("ema", [-0.1, 1.0])
def test_a_momentum_out_of_range_is_told(ema):
    with pytest.raises(UsageError, match="expected a number of at least 0 and below 1"):
        resolve(ema=ema)
