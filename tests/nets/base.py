"""What every net does: the tests of a net are a subclass of `NetTests` that says how it is built.

    class TestMyNet(NetTests):
        arch = "mynet"  # for a backbone: backbone = "mybody"

Training and export are slow tests; `python -m pytest tests/nets/test_mynet.py -m ""` runs all.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from kfcn_tools.convert.fix_size import fix_size
from kfcn_tools.convert.tflite import export_tflite
from kfcn_tools.litert import runner
from small_nets import needs_bfloat16

from kfcn.losses import SegmentationLoss
from kfcn.machine import ONEDNN, onednn_is_on
from kfcn.nets import architectures
from kfcn.saved import save_model
from kfcn.training.learner import Learner
from kfcn.training.optimizers import AdamW
from kfcn.training.replicas import Replicas
from kfcn.training.step import Step

SMALL = {"vgg16": {"fc_filters": 8}, "mobilenet_v2": {"alpha": 0.35}}
"""Options with which a backbone is quick to test."""
CLASSES = 3
IMAGES = np.random.default_rng(5).uniform(0, 255, (2, 64, 96, 3)).astype("float32")

SERVER = """
import sys
class NoKfcn:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("kfcn", "kfcn_tools"):
            raise ImportError("kfcn is not to be imported")
sys.meta_path.insert(0, NoKfcn())
import numpy as np
import tensorflow as tf
for line in sys.stdin:
    model, images, logits = line.rstrip("\\n").split("\\t")
    try:
        np.save(logits, tf.keras.models.load_model(model)(np.load(images)))
        print("done", flush=True)
    except Exception as error:
        print(repr(error).replace("\\n", " "), flush=True)
"""


class WithoutKfcn:
    """A process that cannot import kfcn, and opens model files as an app does."""

    def __init__(self):
        # The same kernels, or labels differ in rounding: a test before may have set the variable
        # when TensorFlow was here already.
        same = os.environ | {ONEDNN: str(int(onednn_is_on()))}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=same,
        )  # fmt: skip

    def logits(self, model: Path, images: np.ndarray) -> np.ndarray:
        """What the net of a file says of images `(B, H, W, 3)`."""
        given, found = model.with_name("images.npy"), model.with_name("logits.npy")
        np.save(given, images)
        assert self._process.stdin and self._process.stdout
        print(model, given, found, sep="\t", file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "done\n"
        return np.load(found)

    def close(self) -> None:
        self._process.communicate(timeout=60)


class NetTests:
    """Any size, a file that needs no kfcn, mixed precision, a training step, export.

    Attributes:
        arch: one of `kfcn.nets.architectures.NAMES`.
        backbone: one of `kfcn.nets.backbones.BACKBONES`, for a net that stands on one.
        rate: at which two steps of Adam lessen the loss of a fresh net.
    """

    arch = "fcn8s"
    backbone = "mobilenet_v2"
    rate = 1e-4

    @classmethod
    def build(cls) -> keras.Model:
        options = SMALL.get(cls.backbone, {})
        return architectures.build(cls.arch, CLASSES, cls.backbone, backbone_options=options)

    def test_any_size(self, net):
        """Every remainder of the strides, as one function of unknown size."""
        run = tf.function(net, input_signature=[tf.TensorSpec((1, None, None, 3), tf.float32)])
        for side in range(1, 34):
            size = (side, 34 - side)
            assert run(np.zeros((1, *size, 3), "float32")).shape == (1, *size, CLASSES)

    def test_file_needs_no_kfcn(self, net, tmp_path, without_kfcn):
        save_model(net, tmp_path / "model.keras")
        expected = np.asarray(net(IMAGES[:, :37, :61]))
        found = without_kfcn.logits(tmp_path / "model.keras", IMAGES[:, :37, :61])
        np.testing.assert_array_equal(found, expected)
        assert expected.std() > 0.01

    @needs_bfloat16
    def test_mixed_precision(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            net = self.build()
        finally:
            keras.config.set_dtype_policy("float32")
        convolutions = [layer for layer in net.layers if isinstance(layer, keras.layers.Conv2D)]
        # The last one gives the logits where nothing is enlarged, as in `convnet`.
        assert {layer.compute_dtype for layer in convolutions[:-1]} == {"bfloat16"}
        assert {weight.dtype for weight in net.trainable_weights} == {"float32"}
        assert net(np.zeros((1, 33, 40, 3), "float32")).dtype == "float32"

    @pytest.mark.long
    def test_training_steps(self):
        """A fresh net finds its three classes equally likely, and two steps move all of it.

        Its scores start at zero: the first step reaches them alone, the second everything.
        """
        net = self.build()
        optimizer = AdamW(self.rate, weight_decay=0.0)  # a decay would move what has no gradient
        optimizer.build(net.trainable_variables)
        spec = (tf.TensorSpec((None, 64, 96, 3)), tf.TensorSpec((None, 64, 96), tf.uint8))
        learner = Learner(net, SegmentationLoss(None, 0.0), optimizer)
        step = Step(learner, Replicas(tf.distribute.get_strategy()), spec)
        labels = np.zeros((2, 64, 96), "uint8")
        labels[:, 20:40, 30:70], labels[:, :4] = 1, 255
        before = {weight.path: weight.numpy() for weight in net.trainable_weights}
        losses = [step((tf.constant(IMAGES), tf.constant(labels))).loss for _ in range(3)]
        assert losses[0] == pytest.approx(np.log(CLASSES), rel=1e-5)
        assert losses[2] < losses[1] < losses[0]
        still = [w.path for w in net.trainable_weights if np.array_equal(w, before[w.path])]
        assert not still

    @pytest.mark.long
    def test_export(self, net):
        """The logits of a `.tflite` file are Keras'."""
        fixed = fix_size(net, 64, 96, exact_logits=True)
        image = IMAGES[0].astype(np.uint8)
        found = runner(export_tflite(fixed, output="logits"))(image)
        expected = np.asarray(net(image[None].astype("float32")))[0]
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
        mirrored = np.asarray(net(image[None, :, ::-1].astype("float32")))[0]
        assert np.abs(mirrored - expected).max() > 1e-2 * np.abs(expected).max()  # the control
