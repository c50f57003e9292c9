"""kfcn: fully convolutional networks for semantic segmentation in Keras.

The public names stand here and are imported when they are first used, so that `import kfcn`
costs nothing and TensorFlow is loaded only when work starts.
"""

import importlib
from typing import TYPE_CHECKING, Any

# No module of this package bears the name of a function here: importing `kfcn.predict` somewhere
# would put the module in the function's place.
_PUBLIC = {
    "fcn32s": "kfcn.nets.fcn",
    "fcn16s": "kfcn.nets.fcn",
    "fcn2s": "kfcn.nets.fcn",
    "fcn4s": "kfcn.nets.fcn",
    "fcn8s": "kfcn.nets.fcn",
    "fcn8s_atonce": "kfcn.nets.fcn",
    "fcn8s_fpn": "kfcn.nets.fcn_fpn",
    "dilated": "kfcn.nets.baselines",
    "convnet": "kfcn.nets.convnet",
    "SegmentationLoss": "kfcn.losses",
    "train": "kfcn.training",
    "evaluate": "kfcn.inference.evaluate",
    "predict": "kfcn.inference.predict",
    "segment": "kfcn.inference.arrays",
    "convolutionalize": "kfcn.rewrite",
    "to_atrous": "kfcn.rewrite",
    "receptive_field": "kfcn.rewrite",
    "DilatedPooling2D": "kfcn.rewrite",
    "class_heatmap": "kfcn.inference.class_heatmaps",
    "shift_and_stitch": "kfcn.rewrite.stitch",
    "DenseCRF": "kfcn.crf",
    "use_onednn": "kfcn.machine",
    "add_crf": "kfcn.crf",
}

_MODULES = ("crf", "data", "losses", "metrics", "pretrained")

if TYPE_CHECKING:  # The same table for type checkers, editors and the reference; a test compares.
    from kfcn import crf as crf
    from kfcn import data as data
    from kfcn import losses as losses
    from kfcn import metrics as metrics
    from kfcn import pretrained as pretrained
    from kfcn.crf import DenseCRF as DenseCRF
    from kfcn.crf import add_crf as add_crf
    from kfcn.inference.arrays import segment as segment
    from kfcn.inference.class_heatmaps import class_heatmap as class_heatmap
    from kfcn.inference.evaluate import evaluate as evaluate
    from kfcn.inference.predict import predict as predict
    from kfcn.losses import SegmentationLoss as SegmentationLoss
    from kfcn.machine import use_onednn as use_onednn
    from kfcn.nets.baselines import dilated as dilated
    from kfcn.nets.convnet import convnet as convnet
    from kfcn.nets.fcn import fcn2s as fcn2s
    from kfcn.nets.fcn import fcn4s as fcn4s
    from kfcn.nets.fcn import fcn8s as fcn8s
    from kfcn.nets.fcn import fcn8s_atonce as fcn8s_atonce
    from kfcn.nets.fcn import fcn16s as fcn16s
    from kfcn.nets.fcn import fcn32s as fcn32s
    from kfcn.nets.fcn_fpn import fcn8s_fpn as fcn8s_fpn
    from kfcn.rewrite import DilatedPooling2D as DilatedPooling2D
    from kfcn.rewrite import convolutionalize as convolutionalize
    from kfcn.rewrite import receptive_field as receptive_field
    from kfcn.rewrite import to_atrous as to_atrous
    from kfcn.rewrite.stitch import shift_and_stitch as shift_and_stitch
    from kfcn.training import train as train

__all__ = ["__version__", *_MODULES, *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]: made from the table


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value = version("kfcn")  # stands in setup.cfg and nowhere else
    elif name in _MODULES:
        value = importlib.import_module(f"kfcn.{name}")
    elif name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    else:
        raise AttributeError(f"module 'kfcn' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
