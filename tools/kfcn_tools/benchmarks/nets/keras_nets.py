"""kfcn's nets, trained by kfcn's own step, and KerasHub's DeepLabV3+, trained by Keras."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from kfcn.labels import IGNORE
from kfcn_tools.benchmarks.flops import count_flops
from kfcn_tools.benchmarks.timing import onednn


class Net:
    """A net in Keras.

    Args:
        spec: "maker" (kfcn or KerasHub), "net", "backbone", "classes", "size" (H, W) and
            "stride", the output stride of the dilated net.

    Attributes:
        versions: of the packages.
        parameters: how many.
    """

    def __init__(self, spec: dict):
        self.size, self.classes = spec["size"], spec["classes"]
        self.versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
        self.versions["oneDNN in TensorFlow"] = onednn()
        keras.utils.set_random_seed(0)
        if spec["maker"] == "KerasHub":
            import keras_hub

            self.versions["keras-hub"] = keras_hub.__version__
            self.model = deeplab(self.classes)
            self._new_step = self._keras_step
            self._answer = self.model.predict_on_batch
        else:
            from kfcn import __version__
            from kfcn.nets import architectures

            self.versions["kfcn"] = __version__
            self.model = architectures.build(
                spec["net"], self.classes, spec["backbone"], spec["stride"]
            )
            self._new_step = self._kfcn_step
            self._answer = self._on_the_quickest
        self.parameters = self.model.count_params()
        self._step = self._net = None
        self._batches = {}

    def _batch(self, count: int):
        if count not in self._batches:
            rng = np.random.default_rng(0)
            images = rng.uniform(0, 255, (count, *self.size, 3)).astype(np.float32)
            labels = rng.integers(0, self.classes, (count, *self.size), np.uint8)
            labels[:, :20] = IGNORE
            self._batches[count] = tf.constant(images), tf.constant(labels)
        return self._batches[count]

    def infer(self, count: int) -> None:
        """Logits of a batch as a NumPy array."""
        self._answer(self._batch(count)[0].numpy())

    def _on_the_quickest(self, images):
        """The logits on the runtime that `kfcn-predict` takes."""
        from kfcn.inference.runtime.net import quickest

        self._net = self._net or quickest(self.model)
        return self._net.logits(images)

    def train(self, count: int) -> None:
        """One step on a batch."""
        self._step = self._step or self._new_step()
        self._step(self._batch(count))

    def _optimizer(self):
        return keras.optimizers.AdamW(1e-3, weight_decay=1e-4)

    def _kfcn_step(self):
        """What `kfcn-train` does at each step, metrics and the test for finiteness included."""
        from kfcn.losses import SegmentationLoss
        from kfcn.training import replicas
        from kfcn.training.learner import Learner
        from kfcn.training.step import Step

        where = replicas.start("one")
        optimizer = self._optimizer()
        optimizer.build(self.model.trainable_variables)
        spec = tuple(
            tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in self._batch(1)
        )
        return Step(Learner(self.model, SegmentationLoss(), optimizer), where, spec)

    def _keras_step(self):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORE)
        self.model.compile(self._optimizer(), loss, metrics=[])
        return lambda batch: self.model.train_on_batch(*batch)

    def flops(self) -> int:
        """Floating-point operations of one image in the convolutions and matrix products."""
        return count_flops(self.model, self.size)


def deeplab(classes: int) -> keras.Model:
    """KerasHub's DeepLabV3+ on ResNet50, as its preset `deeplab_v3_plus_resnet50_pascalvoc`.

    The preset itself would be downloaded. Its backbone has 39 190 656 parameters; so has this.
    """
    import keras_hub

    encoder = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
    )
    backbone = keras_hub.models.DeepLabV3Backbone(
        image_encoder=encoder,
        low_level_feature_key="P2",
        projection_filters=48,
        spatial_pyramid_pooling_key="P5",
        upsampling_size=8,
        dilation_rates=[6, 12, 18],
    )
    return keras_hub.models.DeepLabV3ImageSegmenter(backbone, classes)
