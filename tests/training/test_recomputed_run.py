"""`--recompute`: the run of a step that keeps fewer maps."""

import types

import pytest
from small_nets import PLAIN, settings

from kfcn import train
from kfcn.errors import UsageError
from kfcn.fused import training
from kfcn.training import trainer


@pytest.mark.slow
def test_a_run_computes_again_and_has_the_figures_of_one_without(pairs, tmp_path, monkeypatch):
    used = []
    replay = training.replay_in_segments

    def noted(*arguments):
        used.append(arguments)
        return replay(*arguments)

    monkeypatch.setattr(training, "replay_in_segments", noted)
    options = settings(pairs, epochs=1, **PLAIN)
    usual = train(tmp_path / "usual", **options)
    assert not used
    again = train(tmp_path / "again", **options, recompute=True)
    assert used
    figures = [result.evaluation.cross_entropy for result in (usual, again)]
    assert figures[1] == pytest.approx(figures[0], rel=1e-3)


def test_it_is_refused_on_several_replicas(pairs, tmp_path, monkeypatch):
    two = types.SimpleNamespace(total=2, chief=True)
    monkeypatch.setattr(trainer.replicas, "start", lambda *_: two)
    with pytest.raises(UsageError, match="recompute works on one replica, not on 2"):
        train(tmp_path / "run", **settings(pairs, recompute=True))
