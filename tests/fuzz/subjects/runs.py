"""Damaged run folders, nets' cards and settings of a cluster."""

import json
import re
from pathlib import Path

import numpy as np
from mutations import damaged, damaged_json, damaged_text

from subjects.outcomes import READ, REFUSED, told


class Value:
    """What a checkpoint wants to know of a variable."""

    def __init__(self, value: np.ndarray):
        self.value, self.shape = value, value.shape

    def assign(self, value: np.ndarray) -> None:
        self.value = value

    def numpy(self) -> np.ndarray:
        return self.value

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.value


def checkpoint(rng: np.random.Generator, folder: Path) -> str:
    """A damaged checkpoint; the one before it is there."""
    from kfcn.training import checkpoint as checkpoints
    from kfcn.training.recorder import Progress

    row = {"epoch": 1, "loss": 0.5, "mean_iou": 0.25, "val_mean_iou": 0.5}
    for step in (2, 3):
        progress = Progress(step, [row], 0.5, 3.0, np.eye(3, dtype=np.int64), 1.0, 0.1)
        values = [Value(np.full((4, 5), step, np.float32)), Value(np.arange(6) * step)]
        checkpoints.save(folder, values, step, progress.note(), keep=3)
    path = folder / "step-00000003.npz"
    if rng.integers(3):
        path.write_bytes(damaged(rng, path.read_bytes()))
    else:  # the note alone, in an archive that is whole
        with np.load(path) as archive:
            arrays = dict(archive)
        note = damaged_json(rng, json.loads(arrays["note"].tobytes()))
        np.savez(path, **{**arrays, "note": np.frombuffer(note, np.uint8)})
    said = []
    variables = [Value(np.zeros((4, 5), np.float32)), Value(np.zeros(6, int))]
    progress = checkpoints.restore(folder, variables, said.append, Progress.from_note)
    assert progress.step == (2 if said else 3)
    for variable, saved in zip(variables, (np.full((4, 5), 1.0), np.arange(6)), strict=True):
        np.testing.assert_array_equal(variable.value, saved * progress.step)
    if said:
        assert re.match(r"checkpoint step-00000003\.npz is damaged", said[0]) and len(said) == 1
        assert "\n" not in said[0]
        return REFUSED
    return READ


def config(rng: np.random.Generator, folder: Path) -> str:
    """`config.json` of a run."""
    import dataclasses

    from kfcn.commands.train import _kernels, parser
    from kfcn.errors import KfcnError
    from kfcn.options import kinds
    from kfcn.training.resolution import continued
    from kfcn.training.run_folder import RunFolder
    from kfcn.training.settings import Settings

    sound = dataclasses.asdict(Settings(data="folder", data_dir="x", iou_loss=0.5))
    content = {
        "format": 2, "settings": sound, "data": {"train": "ab", "val": "cd"},
        "versions": {"kfcn": "0.1.0"},
        "machine": {"cpu": "x", "cores": 2, "onednn": True, "onednn_instructions": "avx2"},
    }  # fmt: skip
    run = RunFolder(folder)
    run.config.write_bytes(damaged_json(rng, content))
    _kernels(parser().parse_args(["--run-dir", str(folder)]))
    try:
        found = run.stored_settings()
        assert found is not None
        said = run.other_kernels()
        assert said is None or "\n" not in said
        continued(found, {}, folder)
        run.check_data(found, {"train": "ab", "val": "cd"})
    except KfcnError as error:
        return told(error)
    stored = json.loads(run.config.read_text(encoding="utf-8-sig"))["settings"]
    for name, kind in kinds(Settings).items():
        value = getattr(found, name)
        expected = stored.get(name, kind.default)
        assert json.dumps(value, allow_nan=False) == json.dumps(_as(value, expected)), name
        assert kind.checked(value) == value
    return READ


def _as(value, stored):
    """A stored number as a float where it is read as one."""
    if isinstance(value, float):
        return float(stored)
    if isinstance(value, tuple):
        return [_as(*pair) for pair in zip(value, stored, strict=True)]
    if isinstance(value, dict):
        return {name: float(number) for name, number in stored.items()}
    return stored


CARD_OF_A_NET = {
    "kfcn_version": "0.1.0", "architecture": "fcn8s", "backbone": "mobilenet_v2",
    "classes": ["ground", "car", "Straße"], "palette": [[0, 0, 0], [9, 9, 9], [1, 2, 3]],
    "ignore": 255, "net": {"alpha": 0.5, "output_stride": 16}, "grouping": "ground=road\ncar",
    "reading": {
        "ignore": "none", "pages": "one", "unlabelled": "ignore", "stretch": [0, 4095],
    },
}  # fmt: skip


def net_card(rng: np.random.Generator, folder: Path) -> str:
    """`model.json` and `crf.json` beside a net, and all that is made of them before it is used."""
    from kfcn.cards import check_card, read_card, read_crf
    from kfcn.data.grouping import Grouping
    from kfcn.data.reading import Reading
    from kfcn.errors import KfcnError
    from kfcn.inference.formats import writer_for
    from kfcn.outputs import Outputs
    from kfcn.training.resolution import resolve

    (folder / "model.keras").write_bytes(b"")
    widths = {"theta_alpha": 80.0, "theta_beta": 3.0, "bilateral_weight": 0}
    files = {"model.json": CARD_OF_A_NET, "crf.json": {"crf": widths, "mean_iou": 0.5}}
    victim = str(rng.choice(["model.json", "model.json", "crf.json"]))
    for name, content in files.items():
        sound = json.dumps(content).encode()
        (folder / name).write_bytes(damaged_json(rng, content) if name == victim else sound)
    try:
        found, crf = read_card(folder), read_crf(folder)
        check_card(found, 3, folder)
        resolve(init_from=str(folder), data="folder", data_dir=str(folder))
        reading = Reading.of_card(found)
        writer = writer_for(3, found, Outputs(folder / "out"), "png")
        assert found is not None
        if found.get("grouping"):
            Grouping.parse(found["grouping"])
    except KfcnError as error:
        return told(error)
    stored = json.loads((folder / "model.json").read_text(encoding="utf-8-sig"))
    assert list(writer.names) == stored["classes"] and len(set(writer.names)) == 3
    assert np.asarray(writer.palette).shape == (3, 3)
    how = stored.get("reading") or {}
    assert reading.ignore == how.get("ignore", "255")
    assert list(reading.stretch or []) == (how.get("stretch") or [])
    stored = json.loads((folder / "crf.json").read_text(encoding="utf-8-sig"))
    assert crf == stored["crf"] and all(0 <= value < np.inf for value in crf.values())
    return READ


NODES = {
    "SLURM_STEP_NUM_TASKS": "5", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "n[01-02],gpu7",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_STEP_NUM_NODES": "3", "SLURM_NTASKS": "5",
    "SLURM_JOB_NODELIST": "n[01-02]", "SLURM_NODELIST": "n[01-02]", "SLURM_NODEID": "0",
    "SLURM_LOCALID": "1",
}  # fmt: skip


def cluster(rng: np.random.Generator, folder: Path) -> str:
    """What the environment says of the other workers."""
    import os
    from unittest import mock

    from kfcn.errors import KfcnError
    from kfcn.training import replicas

    if rng.integers(2):
        content = {
            "cluster": {"chief": ["a:1"], "worker": ["b:22", "10.0.0.1:333", "[::1]:4444"]},
            "task": {"type": "worker", "index": 1},
        }
        variables = {"TF_CONFIG": damaged_json(rng, content).decode("utf-8", "replace")}
        variables["TF_CONFIG"] = variables["TF_CONFIG"].replace("\0", "")
    else:
        variables = dict(NODES)
        for name in rng.choice(list(NODES), rng.integers(1, 3), replace=False).tolist():
            variables[name] = changed_text(rng, NODES[name])
            if rng.integers(3) == 0:
                ranges = ("n[1-99999999999]", "n[9-1]", "n[", "a[1-2]b[3-4]", "2(x999999999)", "-1")
                variables[name] = str(rng.choice(ranges))
            if rng.integers(6) == 0:
                del variables[name]
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "TF_CONFIG"))}
    try:
        with mock.patch.dict(os.environ, keep | variables, clear=True):
            found = replicas._cluster()
    except KfcnError as error:
        return told(error)
    if found is not None:
        _, worker, addresses = found
        assert 0 <= worker < len(addresses) and len(set(addresses)) == len(addresses) < 10_000
        assert all(str(address).rpartition(":")[2].isdigit() for address in addresses)
    return READ


def changed_text(rng: np.random.Generator, text: str) -> str:
    """A variable of the environment, damaged."""
    content = damaged_text(rng, text).decode("utf-8", "replace").replace("\0", "")
    return content.encode("utf-8", "replace").decode()
