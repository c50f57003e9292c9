"""What is left of label maps as points and scribbles."""

import itertools

import numpy as np
from kfcn_tools.benchmarks.labels import strokes


def drawn():
    """A bar of class 1 (40x12) on class 0, a speck of class 2, an edge without label."""
    labels = np.zeros((60, 80), np.uint8)
    labels[10:22, 20:60] = 1
    labels[40:44, 40:44] = 2
    labels[:, :3] = 255
    return labels


def test_a_point_is_a_disc_where_the_region_is_thickest():
    found = strokes.touched(drawn(), "points")
    ys, xs = np.nonzero(found == 1)
    assert len(ys) == 29 and set(ys) == set(range(ys.min(), ys.min() + 7))
    assert 15 <= ys.min() + 3 <= 16 and 25 <= xs.min() + 3 <= 54  # on the bar's middle line
    assert not (found == 2).any() and (found == 0).sum() == 29


def test_a_scribble_runs_along_the_region_and_stays_within():
    labels = drawn()
    found = strokes.touched(labels, "scribbles")
    ys, xs = np.nonzero(found == 1)
    assert xs.max() - xs.min() > 25 and 3 <= ys.max() - ys.min() < 9
    assert (found[found != 255] == labels[found != 255]).all()
    share = (found != 255).sum() / (labels != 255).sum()
    assert 0.02 < share < 0.2
    small = strokes.touched(labels, "scribbles", least=10)
    assert (small == 2).any()  # too thin for a stroke: a point


def test_the_skeleton_of_a_bar_is_its_middle_line():
    bar = np.zeros((9, 30), bool)
    bar[2:7, 3:27] = True
    thin = strokes.skeleton(bar)
    assert thin[4, 6:24].all() and not thin[[2, 3, 5, 6], 8:22].any()
    way = strokes.longest_way(thin)
    assert len(way) >= 18
    for (row, column), (next_row, next_column) in itertools.pairwise(way):
        assert max(abs(row - next_row), abs(column - next_column)) == 1
