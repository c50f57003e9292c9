"""Data sets: `load` gives one by name, `check` looks at every pair before a run relies on it.

The names stand here and are imported when they are first used: whoever wants a net or a label
need not have OpenCV, Pillow and ten readers in memory.
"""

import importlib

_PUBLIC = {
    "IGNORE": "kfcn.labels",
    "Classes": "kfcn.labels",
    "Reading": "kfcn.data.dataset",
    "Dataset": "kfcn.data.dataset",
    "Sample": "kfcn.data.dataset",
    "NAMES": "kfcn.data.catalog",
    "Source": "kfcn.data.catalog",
    "load": "kfcn.data.catalog",
    "splits": "kfcn.data.catalog",
    "Counts": "kfcn.data.audit.check",
    "before_training": "kfcn.data.audit.audit",
    "choose_stretch": "kfcn.data.stretch",
    "open_splits": "kfcn.data.stretch",
    "check": "kfcn.data.audit.check",
    "class_weights": "kfcn.data.audit.check",
}

__all__ = list(_PUBLIC)


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'kfcn.data' has no attribute '{name}'")
