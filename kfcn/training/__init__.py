"""Training: settings, the run folder, exact checkpoints, the loop."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfcn.training.trainer import Result, train

__all__ = ["Result", "train"]


def __getattr__(name: str) -> Any:
    # Imported when it is first used: `kfcn-train --help` reads the settings without TensorFlow.
    if name in __all__:
        from kfcn.training import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
