"""kfcn: fully convolutional networks for semantic segmentation in Keras.

The public names stand here and are imported when they are first used, so that `import kfcn`
costs nothing and TensorFlow is loaded only when work starts.
"""

import importlib

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
    "train": "kfcn.training",
    "evaluate": "kfcn.inference.evaluate",
    "predict": "kfcn.inference.predict",
    "convolutionalize": "kfcn.rewrite",
    "to_atrous": "kfcn.rewrite",
    "receptive_field": "kfcn.rewrite",
    "DilatedPooling2D": "kfcn.rewrite",
    "class_heatmap": "kfcn.inference.class_heatmaps",
    "shift_and_stitch": "kfcn.rewrite.stitch",
    "DenseCRF": "kfcn.crf",
    "add_crf": "kfcn.crf",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name):
    if name == "__version__":
        from importlib.metadata import version

        value = version("kfcn")  # stands in setup.cfg and nowhere else
    elif name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    else:
        raise AttributeError(f"module 'kfcn' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
