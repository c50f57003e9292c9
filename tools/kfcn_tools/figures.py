"""Figures as tables show them."""

from collections.abc import Sequence

import numpy as np


def spread(values: Sequence[float], sign: str = "") -> str:
    """Percent: the mean, and of several the least and the greatest; a dash where there is none."""
    if not len(values):
        return "–"
    shown = [f"{100 * value:{sign}.1f}" for value in (np.mean(values), min(values), max(values))]
    return shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"
