"""`--recompute`: the run of a step that keeps fewer maps."""

import types

import numpy as np
import pytest
from nets import settings

from kfcn import train
from kfcn.errors import UsageError
from kfcn.saved import load_model
from kfcn.training import trainer


def test_a_run_ends_with_the_weights_of_one_without(pairs, tmp_path):
    runs = [
        train(tmp_path / name, **settings(pairs, epochs=1, recompute=name == "again")).run_dir
        for name in ("usual", "again")
    ]
    usual, again = (load_model(run).get_weights() for run in runs)
    fresh = train(tmp_path / "other", **settings(pairs, epochs=1, seed=1)).run_dir
    other = load_model(fresh).get_weights()
    for one, same, different in zip(usual, again, other, strict=True):
        np.testing.assert_allclose(same, one, atol=1e-3 * max(np.abs(one).max(), 1))
        assert one.shape == different.shape
    # The control: another seed ends elsewhere.
    assert max(np.abs(a - b).max() for a, b in zip(usual, other, strict=True)) > 1e-2


def test_it_is_refused_on_several_replicas(pairs, tmp_path, monkeypatch):
    two = types.SimpleNamespace(total=2, chief=True)
    monkeypatch.setattr(trainer.replicas, "start", lambda *_: two)
    with pytest.raises(UsageError, match="recompute works on one replica, not on 2"):
        train(tmp_path / "run", **settings(pairs, recompute=True))
