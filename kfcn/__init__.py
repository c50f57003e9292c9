"""kfcn: fully convolutional networks for semantic segmentation in Keras.

The public names stand here and are imported when they are first used, so that `import kfcn`
costs nothing and TensorFlow is loaded only when work starts.
"""

import importlib

__version__ = "0.1.0"

# No module of this package bears the name of a function here: importing `kfcn.predict` somewhere
# would put the module in the function's place.
_PUBLIC = {
    "fcn32s": "kfcn.fcn",
    "fcn16s": "kfcn.fcn",
    "fcn2s": "kfcn.fcn",
    "fcn4s": "kfcn.fcn",
    "fcn8s": "kfcn.fcn",
    "fcn8s_atonce": "kfcn.fcn",
    "fcn8s_fpn": "kfcn.pyramid",
    "dilated": "kfcn.coarse",
    "convnet": "kfcn.conv_only",
    "train": "kfcn.training",
    "evaluate": "kfcn.evaluation",
    "predict": "kfcn.prediction",
    "convolutionalize": "kfcn.rewrite",
    "to_atrous": "kfcn.rewrite",
    "receptive_field": "kfcn.rewrite",
    "DilatedPooling2D": "kfcn.rewrite",
    "class_heatmap": "kfcn.heatmap",
    "shift_and_stitch": "kfcn.stitch",
    "DenseCRF": "kfcn.crf",
    "add_crf": "kfcn.crf",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name):
    if name in _PUBLIC:
        module = importlib.import_module(_PUBLIC[name])
        value = getattr(module, name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'kfcn' has no attribute '{name}'")


def __dir__():
    return sorted(__all__)
