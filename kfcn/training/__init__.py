"""Training: settings, the run folder, exact checkpoints, the loop."""

from kfcn.training.trainer import Result, train

__all__ = ["Result", "train"]
