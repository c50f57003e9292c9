"""Damaged notes of checkpoints and variables of clusters: one line, the older checkpoint."""

import json

import numpy as np
import pytest

from kfcn.errors import KfcnError, UsageError
from kfcn.training import checkpoint
from kfcn.training.recorder import Progress
from kfcn.training.replicas import _cluster, _slurm_tasks, read_tf_config


def test_a_note_comes_back_as_it_was():
    rows = [{"epoch": 1, "loss": 0.1 + 0.2, "mean_iou": None, "val_mean_iou": 0.25}]
    progress = Progress(7, rows, 0.3, 5.0, np.arange(9).reshape(3, 3), 1.5, 0.1)
    again = Progress.from_note(json.loads(json.dumps(progress.note())))
    assert vars(again) | {"matrix": 0} == vars(progress) | {"matrix": 0}
    np.testing.assert_array_equal(again.matrix, progress.matrix)
    assert vars(Progress.from_note({"step": 3, "rows": []})) == vars(Progress(3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": -1}, {"step": float("nan")}, {"step": 2.0}, {"step": "3"}, {"step": True},
        {"step": 4}, {"loss": float("nan")}, {"loss": float("inf")}, {"weight": -1.0},
        {"weight": "2"}, {"rows": {}}, {"rows": [3]}, {"rows": [{"epoch": 1}]},
        {"matrix": [[1, -1], [0, 0]]},
        {"unlabelled": -1}, {"unlabelled": 0.5}, {"confident": "x"},
        {"matrix": "x"}, {"matrix": [[0.5]]}, {"unknown": 1}, {"seconds": None},
    ],
)  # fmt: skip
def test_a_wrong_note_makes_the_older_checkpoint_go_on(tmp_path, wrong):
    for step in (2, 3):
        note = Progress(step).note() | (wrong if step == 3 else {})
        checkpoint.save(tmp_path, [np.full(4, step)], 3 if step == 3 else 2, {}, keep=3)
        path = tmp_path / f"step-{step:08d}.npz"
        text = np.frombuffer(json.dumps(note).encode(), np.uint8)
        np.savez(path, **{"note": text, "00000": np.full(4, step)})
    variable, said = Variable(), []
    progress = checkpoint.restore(tmp_path, [variable], said.append, Progress.from_note)
    assert progress.step == 2 and (variable.value == 2).all()
    assert len(said) == 1 and "step-00000003.npz is damaged" in said[0] and "\n" not in said[0]
    path.with_name("step-00000002.npz").write_bytes(b"")
    with pytest.raises(KfcnError, match="none of the 2 checkpoints"):
        checkpoint.restore(tmp_path, [variable], said.append, Progress.from_note)


class Variable:
    shape = (4,)

    def assign(self, value):
        self.value = value


@pytest.mark.parametrize(
    "text",
    [
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": "worker", "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": ["worker"], "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": NaN}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1e400}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": null}}',
        '{"cluster": [0], "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [{}]}, "task": {"type": "worker", "index": 0}}',
        "[" * 200_000,
        "null",
    ],
)
def test_a_wrong_tf_config_is_one_line(text):
    with pytest.raises(UsageError, match=r"^TF_CONFIG (is wrong:|has) .*expected") as error:
        read_tf_config(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name, text", [
    ("SLURM_STEP_NODELIST", "n[1-99999999999]"), ("SLURM_STEP_TASKS_PER_NODE", "2(x999999999)"),
    ("SLURM_STEP_NODELIST", "n[1-"), ("SLURM_PROCID", "9"), ("SLURM_PROCID", "x"),
])  # fmt: skip
def test_slurm_variables_that_give_no_cluster_are_one_line(monkeypatch, name, text):
    sound = {
        "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NODELIST": "n[01-02]", "SLURM_PROCID": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_LOCALID": "0",
    }  # fmt: skip
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for variable, value in sound.items():
        monkeypatch.setenv(variable, value)
    found = _cluster()
    assert found is not None and found[1:] == (2, ["n01:8888", "n01:8889", "n02:8888"])
    monkeypatch.setenv(name, text)
    with pytest.raises(UsageError, match=r"give no cluster|expected up to 100000 nodes") as error:
        _cluster()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "two", "-1", "1.5", "nan", "9" * 5000, "4\n4"])
def test_a_wrong_number_of_slurm_tasks_is_one_line(monkeypatch, text):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", text)
    with pytest.raises(UsageError, match=r"SLURM_STEP_NUM_TASKS=.*expected the number of tasks"):
        _slurm_tasks()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert _slurm_tasks() == 4
