"""Learning from pictures without labels: the step by value, and whole runs."""

import csv
import json
import signal
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from processes import (
    checkpoints,
    difference,
    finish,
    launch_command,
    load,
    signalled,
    train_command,
)
from small_nets import needs_bfloat16, settings

from kfcn import losses, train
from kfcn.data.feed.unlabelled import Unlabelled
from kfcn.errors import KfcnError, Stopped, UsageError
from kfcn.losses import SegmentationLoss
from kfcn.training.average import Average
from kfcn.training.learner import Learner
from kfcn.training.loop import Loop
from kfcn.training.optimizers import AdamW, CaffeSGD
from kfcn.training.replicas import Replicas
from kfcn.training.resolution import continued, resolve
from kfcn.training.settings import Settings
from kfcn.training.step import Step

RNG = np.random.default_rng(0)
H, W, C = 5, 6, 4
IMAGES = RNG.normal(size=(2, H, W, 3))
LABELS = RNG.integers(0, C, (2, H, W)).astype("uint8")
WEAK, STRONG = RNG.normal(size=(3, H, W, 3)), RNG.normal(size=(2, H, W, 3))
SOURCE = RNG.choice([0, 1, 255], (2, H, W), p=[0.5, 0.3, 0.2]).astype("uint8")
PARTNER = np.array([2, 0], np.int32)
KERNEL, AVERAGE = RNG.normal(size=(3, C)), 6 * RNG.normal(size=(3, C))


def softmax(logits):
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def pseudo(average, partner=PARTNER, threshold=0.95):
    """Labels of the strong crops, pixel by pixel."""
    labels = np.full(SOURCE.shape, 255)
    for crop, y, x in np.ndindex(SOURCE.shape):
        if SOURCE[crop, y, x] == 255:
            continue
        seen = WEAK[partner[crop] if SOURCE[crop, y, x] else crop, y, x]
        shares = softmax(seen @ average)
        if shares.max() > threshold:
            labels[crop, y, x] = shares.argmax()
    return labels


def value(kernel, labels):
    """Loss of the labelled pictures and that of the others, by hand."""
    shares = softmax(IMAGES @ kernel)
    known = -np.log(np.take_along_axis(shares, LABELS[..., None].astype(int), -1)).mean()
    shares, total = softmax(STRONG @ kernel), 0.0
    for place in zip(*np.nonzero(labels != 255), strict=True):
        total -= np.log(shares[place][labels[place]])
    return known + total / (SOURCE != 255).sum()


def slopes(kernel, labels):
    """The gradient of `value` by differences."""
    result, tiny = np.zeros_like(kernel), 1e-5
    for place in np.ndindex(kernel.shape):
        change = np.zeros_like(kernel)
        change[place] = tiny
        up, down = (value(kernel + way * change, labels) for way in (1, -1))
        result[place] = (up - down) / (2 * tiny)
    return result


def batch_of(*arrays):
    floats = (tf.constant(x, tf.float32 if x.dtype == float else x.dtype) for x in arrays)
    images, labels, *rest = floats
    return (images, labels, Unlabelled(*rest)) if rest else (images, labels)


def spec_of(batch):
    return tf.nest.map_structure(lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), batch)


ONE = Replicas(tf.distribute.get_strategy())


def test_the_weights_move_by_the_rate_times_the_gradient():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(C, 1, use_bias=False)(inputs))
    model.set_weights([KERNEL[None, None]])
    optimizer = CaffeSGD(0.1, 0.0, 0.0, ())
    optimizer.build(model.trainable_variables)
    average = Average(model, 0.5)
    average.variables[0].assign(AVERAGE[None, None])
    learner = Learner(model, SegmentationLoss(), optimizer, average, unlabelled=True)
    batch = batch_of(IMAGES, LABELS, WEAK, STRONG, SOURCE, PARTNER)
    done = Step(learner, ONE, spec_of(batch))(batch)

    labels = pseudo(AVERAGE)
    known = (labels != 255).sum() / (SOURCE != 255).sum()
    assert 0.2 < known < 0.9
    assert done.confident == pytest.approx(known, rel=1e-6)
    assert done.loss == pytest.approx(value(KERNEL, labels), rel=1e-5)
    gradient = (KERNEL - np.asarray(model.get_weights()[0][0, 0], "float64")) / 0.1
    np.testing.assert_allclose(gradient, slopes(KERNEL, labels), atol=2e-6)
    for other in (  # the controls: another partner, the net's own labels, every pixel, none
        pseudo(AVERAGE, partner=np.array([1, 2])),
        pseudo(KERNEL),
        pseudo(AVERAGE, threshold=0.0),
        np.full_like(labels, 255),
    ):
        assert np.abs(gradient - slopes(KERNEL, other)).max() > 1e-3


def normalised(unlabelled, bias=0.0, steps=1, recompute=False):
    """A net with batch normalisation after so many steps, and what the last step gave."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.ReLU()(x)
    model = keras.Model(inputs, keras.layers.Conv2D(C, 1)(x))
    optimizer = AdamW(1e-2)
    optimizer.build(model.trainable_variables)
    average = Average(model, 0.999)
    average.variables[-1].assign([bias, 0.0, 0.0, 0.0])
    learner = Learner(model, SegmentationLoss(), optimizer, average, recompute, 0.0, unlabelled)
    arrays = (IMAGES, LABELS, WEAK, STRONG, SOURCE, PARTNER)
    batch = batch_of(*arrays[: None if unlabelled else 2])
    step = Step(learner, ONE, spec_of(batch))
    for _ in range(steps):
        done = step(batch)
    return model, [np.array(w) for w in model.get_weights()], done


def convolutions(step):
    """How many there are in the graph of a step: of each pass of a net, forward."""
    graph = step._step.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return sum(node.op == "Conv2D" for node in nodes)


def test_without_such_pictures_there_is_one_pass_of_the_net():
    """With them three: the labelled pictures, what is labelled, what is learned."""
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(C, 3, padding="same")(inputs))
    optimizer = CaffeSGD(0.1, 0.0, 0.0, ())
    optimizer.build(model.trainable_variables)
    for unlabelled, passes in ((False, 1), (True, 3)):
        batch = batch_of(IMAGES, LABELS, WEAK, STRONG, SOURCE, PARTNER)[: 3 if unlabelled else 2]
        learner = Learner(
            model, SegmentationLoss(), optimizer, Average(model, 0.5), unlabelled=unlabelled
        )
        assert convolutions(Step(learner, ONE, spec_of(batch))) == passes


def test_what_is_not_sure_changes_nothing():
    """Two steps give the same weights and batch statistics as without the pictures."""
    _, usual, done = normalised(False, steps=2)
    assert done.confident is None
    _, same, done = normalised(True, steps=2)
    assert done.confident == 0.0
    for a, b in zip(usual, same, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    _, other, done = normalised(True, bias=30.0, steps=2)
    assert done.confident > 0.9
    assert max(np.abs(a - b).max() for a, b in zip(usual, other, strict=True)) > 1e-3  # the control


def test_strong_changes_leave_nothing_in_the_batch_statistics():
    """After a step the moving ones are those of the labelled pictures, however much is learned."""
    model, usual, _ = normalised(False)
    _, found, done = normalised(True, bias=30.0)
    assert done.confident > 0.9
    moving = [i for i, w in enumerate(model.weights) if "moving" in w.path]
    assert len(moving) == 2
    for index, (a, b) in enumerate(zip(usual, found, strict=True)):
        if index in moving:
            np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(usual, found, strict=True))


def test_maps_that_are_computed_again_give_the_same():
    _, kept, _ = normalised(True, bias=30.0, steps=2)
    _, again, done = normalised(True, bias=30.0, steps=2, recompute=True)
    assert done.confident > 0.9
    for a, b in zip(kept, again, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_average_labels_in_inference_mode():
    """By a twin with its weights, which batch statistics of the pictures would not give."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(6, 3, padding="same")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Conv2D(C, 1)(x))
    average = Average(model, 0.5)
    values = [RNG.uniform(0.5, 1.5, w.shape) for w in model.get_weights()]
    for variable, number in zip(average.variables, values, strict=True):
        variable.assign(number)
    images = tf.constant(WEAK, tf.float32)
    found = tf.function(average.inference())(images).numpy()
    own = model(images, training=False).numpy()
    twin = keras.models.clone_model(model)
    twin.set_weights(values)
    np.testing.assert_allclose(found, twin(images, training=False).numpy(), atol=1e-4)
    assert np.abs(found - own).max() > 1e-1  # the controls
    assert np.abs(found - twin(images, training=True).numpy()).max() > 1e-1


@pytest.fixture(scope="module")
def pictures(pairs, tmp_path_factory):
    """The training pictures again, without their labels, and a small one."""
    root = tmp_path_factory.mktemp("pictures")
    for file in sorted((pairs / "images/train").iterdir())[:5]:
        (root / file.name).write_bytes(file.read_bytes())
    Image.fromarray(np.full((20, 70, 3), 90, np.uint8)).save(root / "small.png")
    return root


@pytest.fixture(scope="module")
def short(pairs, pictures):
    """Nine steps, after each of which there is a checkpoint."""
    more = {"arch": "convnet", "alpha": None, "keep": 9, "save_minutes": 0, "ema": 0.5}
    more["learning_rate"] = 0.02
    return settings(pairs, unlabelled_dir=str(pictures), **more)


@pytest.fixture
def easily_sure(monkeypatch):
    """So short a run is sure of nothing; of three classes one has at least a third."""
    monkeypatch.setattr(losses, "CONFIDENT", 0.34)


@pytest.fixture(scope="module")
def finished(short, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CONFIDENT", 0.34)
        return train(tmp_path_factory.mktemp("unlabelled") / "run", **short)


def history(run_dir):
    with (run_dir / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_run_records_what_it_was_sure_of_and_learned_from(finished, short, tmp_path, easily_sure):
    shares = [float(row["confident"]) for row in history(finished.run_dir)]
    assert len(shares) == 3 and all(0.05 < share <= 1 for share in shares)
    config = json.loads((finished.run_dir / "config.json").read_text())
    assert set(config["data"]) == {"train", "val", "unlabelled_dir"}
    assert config["settings"]["unlabelled_dir"] == short["unlabelled_dir"]
    plain = train(tmp_path / "plain", **{**short, "unlabelled_dir": None})
    assert "confident" not in history(plain.run_dir)[0]
    last = [checkpoints(r.run_dir)[-1] for r in (finished, plain)]
    assert last[0].name == last[1].name
    assert difference(*last) > 1e-3


@pytest.mark.slow
def test_a_run_that_was_stopped_within_an_epoch_ends_with_the_same_bits(
    finished, short, tmp_path, easily_sure
):
    third = signalled(Loop, "one_step", signal.SIGTERM, lambda loop: loop.progress.step == 3)
    with third, pytest.raises(Stopped):
        train(tmp_path / "run", **short)
    assert checkpoints(tmp_path / "run")[-1].name == "step-00000005.npz"
    train(tmp_path / "run", verbose=False)
    last = [checkpoints(r)[-1] for r in (finished.run_dir, tmp_path / "run")]
    assert last[0].name == last[1].name == "step-00000009.npz"
    assert difference(*last) == 0.0
    rows = [[{**row, "seconds": 0} for row in load(path)[0]["rows"]] for path in last]
    assert rows[0] == rows[1]


def test_a_loss_that_is_not_finite_names_both_kinds_of_pictures(short, pictures, tmp_path):
    with pytest.raises(KfcnError, match=r"the loss is (nan|inf) at step") as caught:
        train(tmp_path / "run", **{**short, "learning_rate": 1e30})
    labelled, unlabelled = str(caught.value).split("batch ")[1].split(";")[0].split(", and of ")
    assert len(labelled.split(", ")) == 3 and labelled.startswith("images/train/train")
    folder, *names = unlabelled.replace(",", "").split()
    assert folder == str(pictures)
    assert len(names) == 4 and set(names) <= {file.name for file in pictures.iterdir()}


def test_a_run_goes_on_with_the_pictures_it_had(finished, short, tmp_path):
    """Wherever they lie now."""
    moved, other = tmp_path / "moved", tmp_path / "other"
    for folder, names in ((moved, slice(None)), (other, slice(1, None))):
        folder.mkdir()
        for file in sorted(Path(short["unlabelled_dir"]).iterdir())[names]:
            (folder / file.name).write_bytes(file.read_bytes())
    result = train(finished.run_dir, **{**short, "unlabelled_dir": str(moved)})
    assert result.run_dir == finished.run_dir
    with pytest.raises(UsageError, match=r"other data: .*other has other files than .* had"):
        train(finished.run_dir, **{**short, "unlabelled_dir": str(other)})


EASILY = "from kfcn import losses as l; l.CONFIDENT = 0.34; from kfcn.commands.train import main; "


@pytest.mark.long
@pytest.mark.parametrize("way", ["mirrored", "two workers"])
def test_replicas_and_workers_learn_what_one_process_does(pairs, pictures, tmp_path, way):
    """Batches of 3 in shares of 1 and 2, by momentum SGD as in `test_distribute`."""
    flags = ("--unlabelled-dir", pictures, "--optimizer", "sgd", "--learning-rate", 0.05)
    one, other = (
        [sys.executable, "-c", f"{EASILY}raise SystemExit(main())", *command[1:]]
        for command in (
            train_command(pairs, tmp_path / name, *flags, "--batch-size", 3)
            for name in ("one", "other")
        )
    )
    other = [*other, "--cpu-replicas", "2"] if way == "mirrored" else launch_command(other)
    for command in (one, other):
        code, output = finish(command, tmp_path / "log.txt")
        assert code == 0, output
    assert f"2 replicas on {'1 worker' if way == 'mirrored' else '2 workers'}" in output
    (begin, *_, end), (*_, same) = (checkpoints(tmp_path / name) for name in ("one", "other"))
    assert end.name == same.name == "step-00000006.npz"
    # 1.2e-5: rounding also decides of a pixel here and there whether it is sure.
    assert difference(end, same) < 5e-5
    assert difference(begin, end) > 1e-2  # the control
    shares = [[float(row["confident"]) for row in history(tmp_path / n)] for n in ("one", "other")]
    assert shares[1] == pytest.approx(shares[0], abs=1e-4) and shares[0][-1] > 0.05


@pytest.mark.long
@pytest.mark.parametrize(
    ("arch", "precision"),
    [
        *(
            pytest.param(arch, "mixed_bfloat16", marks=needs_bfloat16)
            for arch in ("fcn32s", "fcn8s", "fcn8s-fpn", "heatmap", "dilated")
        ),
        ("fcn8s", "mixed_float16"),
    ],
)
def test_every_net_in_every_precision(short, run, tmp_path, arch, precision, easily_sure):
    """Those that can start from another run do."""
    more = {"arch": arch, "alpha": 0.35, "precision": precision, "epochs": 1}
    if arch.startswith("fcn8s"):
        more["init_from"] = str(run.run_dir)
    result = train(tmp_path / "run", **{**short, **more})
    (row,) = history(result.run_dir)
    assert float(row["confident"]) > 0.05 and np.isfinite(float(row["loss"]))


def test_settings_that_make_no_sense_with_it():
    assert resolve(unlabelled_dir="x").ema == 0.998
    assert resolve(unlabelled_dir="x", ema=0.9).ema == 0.9
    assert resolve().ema == 0.0
    for more, told in (
        ({"ema": 0.0}, r"the running average labels the pictures; .* Received: 0"),
        ({"crop": (0, 0)}, "takes crops of one size; choose it with --crop H W"),
        ({"crf": True, "init_from": "voc_animals"}, "a CRF is trained from labels alone"),
    ):
        with pytest.raises(UsageError, match=told):
            resolve(unlabelled_dir="x", **more)
    with pytest.raises(UsageError, match=r"was started with unlabelled_dir=None \(now x\)"):
        continued(Settings(), {"unlabelled_dir": "x"}, "run")


def test_a_folder_that_is_none_is_told_before_anything_is_trained(short, tmp_path):
    for folder, told in ((tmp_path / "no", "no such folder"), (tmp_path, "no images")):
        with pytest.raises(KfcnError, match=told):
            train(tmp_path / "run", **{**short, "unlabelled_dir": str(folder)})
        assert not (tmp_path / "run").exists()
