"""A Keras model of fixed size as the content of a `.tflite` file."""

import tempfile
from typing import Literal

import keras
from kfcn_mobile.bundle import SIGNATURE

from kfcn.errors import KfcnError, first_line

FloatMode = Literal["float32", "float16", "dynamic"]


def export_tflite(
    model: keras.Model,
    mode: FloatMode = "float32",
    output: Literal["labels", "logits"] = "labels",
) -> bytes:
    """Writes a model of fixed size as TFLite.

    Args:
        model: what `fix_size` gave.
        mode: "float32"; "float16" stores the weights in half precision; "dynamic" stores them in
            int8 and quantises activations while it runs.
        output: "labels" gives the signature `segment`, uint8 RGB (1, H, W, 3) `image` in, uint8
            (1, H, W) `labels` out; "logits" gives the signature `logits`, float32 (1, H, W, C).

    Returns:
        The file's content.

    Raises:
        KfcnError: TFLite's converter cannot write the model.
    """
    import tensorflow as tf

    from kfcn.crf import builtin_ops

    def logits(image):
        return {"logits": model(tf.cast(image, tf.float32), training=False)}

    def segment(image):
        labels = tf.argmax(logits(image)["logits"], axis=-1, output_type=tf.int32)
        return {"labels": tf.cast(labels, tf.uint8)}

    name, function = (SIGNATURE, segment) if output == "labels" else ("logits", logits)
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = tf.TensorSpec(model.input.shape, tf.uint8, name="image")
    with tempfile.TemporaryDirectory(prefix="kfcn-export-") as folder:
        with builtin_ops():  # adding the endpoint traces, and so may writing
            archive.add_endpoint(name, function, input_signature=[spec])
            archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[name])
        if mode != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if mode == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            return converter.convert()
        except Exception as error:  # its own kinds, with pages of MLIR
            raise KfcnError(
                f"{mode}: TFLite's converter cannot write the model: {first_line(error)}"
            ) from error
