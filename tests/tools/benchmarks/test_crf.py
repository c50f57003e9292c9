"""The benchmark of the dense CRF: what it compares labels alike, and a row says so."""

import re

import numpy as np
import pytest
from kfcn_tools.benchmarks import crf
from kfcn_tools.benchmarks.timing import onednn

from kfcn.machine import onednn_is_on

pytest.importorskip("pydensecrf")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(crf, "SIZE", (24, 32))


def test_both_get_one_picture_and_give_the_same_labels():
    image, logits = crf.scene(6)
    assert image.shape == (24, 32, 3) and image.dtype == np.uint8
    assert logits.shape == (24, 32, 6) and len(np.unique(logits.argmax(-1))) == 6
    theirs = crf.pydensecrf(image, logits, 80.0, 13.0)().argmax(-1)
    ours = crf.ours(image, logits, 80.0, 13.0)()[0].argmax(-1)
    assert (theirs == ours).mean() > 0.99
    assert (theirs != logits.argmax(-1)).mean() > 0.05  # the control: the CRF has changed labels
    gradients = crf.ours(image, logits, 80.0, 13.0, train=True)()
    assert [g.shape for g in gradients] == [(1, 24, 32, 6), (6,), (6,), (6, 6)]
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_a_row_holds_ratios_to_pydensecrf(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    cells = crf.row((160.0, 3.0), 6, 3).strip("| ").split(" | ")
    assert len(cells) == len(crf.COLUMNS) and cells[1:3] == ["160/3", "6"]
    assert cells[0] == onednn() == ("kept to AVX2" if onednn_is_on() else "off")
    for cell in cells[4:6]:
        middle, least, most = map(float, re.findall(r"[\d.]+", cell))
        assert 0 < least <= middle <= most
    assert float(cells[-1]) > 99
