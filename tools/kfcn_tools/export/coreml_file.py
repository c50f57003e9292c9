"""Core ML's package, for images of one size. It can be made here, and run on Apple's systems."""

import json
from pathlib import Path

from kfcn_tools.export.net import Net

FILE = "model.mlpackage"


def write(net: Net, folder: Path) -> dict[str, str]:
    """Writes `model.mlpackage`: an RGB image in, int32 labels or float32 scores (1, H, W) out.

    From one frozen function: Keras' own SavedModel has two, which the converter refuses.
    """
    import coremltools
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    if net.size is None:
        raise ValueError("Core ML's file takes images of one size")
    height, width = net.size
    model, scores = net.model, net.scores

    # Core ML's images come as floats of 0..255, and it has no 8-bit numbers to give.
    def segment(image):
        logits = model(image, training=False)
        if scores:
            return tf.nn.softmax(logits, name="scores")
        return tf.argmax(logits, axis=-1, output_type=tf.int32, name="labels")

    image = tf.TensorSpec((1, height, width, 3), tf.float32, name="image")
    frozen = convert_variables_to_constants_v2(tf.function(segment).get_concrete_function(image))
    package = coremltools.convert(
        [frozen],
        source="tensorflow",
        convert_to="mlprogram",
        inputs=[
            coremltools.ImageType(
                name=frozen.inputs[0].op.name,
                shape=(1, height, width, 3),
                color_layout=coremltools.colorlayout.RGB,
            )
        ],
        outputs=[coremltools.TensorType(name=net.output)],  # not the function's own: "Identity"
        # The whole net in 32 bits: 16, the default, would move labels.
        compute_precision=coremltools.precision.FLOAT32,
        minimum_deployment_target=coremltools.target.iOS15,
    )
    package.user_defined_metadata.update(
        {
            "classes": json.dumps(list(net.classes.names), ensure_ascii=False),
            "palette": json.dumps([list(colour) for colour in net.classes.palette]),
            "kfcn": net.card,
        }
    )
    package.save(str(folder / FILE))
    return {"float32": FILE}


def opened(net: Net, folder: Path, file: str) -> None:
    """None: what runs it is on Apple's systems alone."""
