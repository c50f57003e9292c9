"""A SavedModel: for TensorFlow Serving, `tf.saved_model.load` and what is made from it."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfcn.errors import KfcnError
from kfcn.fused.resizes import resizes
from kfcn.graph import replay
from kfcn_tools.export.net import Net, Run

CARD = "kfcn.json"
# A process that has no kfcn: the file must stand on its own.
_ALONE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("kfcn", "kfcn_tools", "kfcn_mobile"):
            raise ImportError(name + " is not there")

sys.meta_path.insert(0, Blocker())
import numpy as np
import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])
made = {}
with np.load(sys.argv[2], allow_pickle=False) as batches:
    for name, images in batches.items():
        images = tf.constant(images)
        (served,) = loaded.signatures["serving_default"](image=images).values()
        made[name] = loaded.serve(images)[sys.argv[4]].numpy()
        made[name + " served"] = served.numpy()
np.savez(sys.argv[3], **made)
"""


def write(net: Net, folder: Path) -> dict[str, str]:
    """Writes a SavedModel with the signature `serving_default`: `image` in, `labels` out.

    Args:
        net: what to write.
        folder: the SavedModel's own; `assets/kfcn.json` in it names classes and colours.

    Returns:
        The main file of each kind that was written, by mode.
    """
    import tensorflow as tf

    model, scores, instead = net.model, net.scores, resizes(net.model)

    def serve(image):
        logits = tf.cast(replay(model, tf.cast(image, tf.float32), instead), tf.float32)
        if scores:
            return {"scores": tf.nn.softmax(logits)}
        labels = tf.argmax(logits, axis=-1, output_type=tf.int32)
        return {"labels": tf.cast(labels, tf.uint8)}

    module: Any = tf.Module()
    # Keras' variables are not TensorFlow's own: what the function reads must hang on the module.
    module.weights = [variable.value for variable in model.variables]
    module.serve = tf.function(
        serve, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")]
    )
    with tempfile.TemporaryDirectory(prefix="kfcn-export-") as temporary:
        card = Path(temporary) / CARD
        card.write_text(net.card + "\n", encoding="utf-8")
        module.card = tf.saved_model.Asset(str(card))
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return {"float32": "saved_model.pb"}


def opened(net: Net, folder: Path, file: str) -> Run:
    """Runs the SavedModel in a process without kfcn, by `serve` and by its signature."""

    def run(batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        names = [f"arr_{index}" for index in range(len(batches))]  # as savez has them
        with tempfile.TemporaryDirectory(prefix="kfcn-export-") as temporary:
            given, made = Path(temporary) / "images.npz", Path(temporary) / "made.npz"
            np.savez(given, *batches)
            command = [sys.executable, "-c", _ALONE, str(folder), str(given), str(made), net.output]
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", check=False
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
                raise KfcnError(f"the SavedModel does not run without kfcn: {reason}")
            with np.load(made, allow_pickle=False) as arrays:
                results = [arrays[name] for name in names]
                served = [arrays[f"{name} served"] for name in names]
        if not all(map(np.array_equal, results, served)):
            raise KfcnError("the SavedModel's signature returns something other than its function")
        return results

    return run
