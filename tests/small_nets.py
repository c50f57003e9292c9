"""Small nets and twins that the tests share."""

import json

import keras
import numpy as np
import pytest

from kfcn.machine import onednn_lacks_avx512

needs_bfloat16 = pytest.mark.skipif(
    onednn_lacks_avx512(), reason="oneDNN has no bfloat16 without AVX-512"
)

TINY = {"backbone": "mobilenet_v2", "alpha": 0.35}
PLAIN = {"arch": "convnet", "alpha": None}
"""For `settings`: eight convolutions, of which a step is made in a third of the time."""


class StandardizedConv2D(keras.layers.Conv2D):
    """A layer of a user's own: what a convolution of Keras has, and other values."""

    def call(self, inputs):
        kernel = self.kernel - keras.ops.mean(self.kernel, (0, 1, 2))
        kernel = kernel / keras.ops.std(self.kernel, (0, 1, 2))
        return keras.ops.conv(inputs, kernel, self.strides, self.padding)


def randomize(model, seed=0, scale=1.0):
    """Gives every score layer random weights, so that a fresh net does not answer zero."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.name.startswith("score") and layer.weights:
            layer.set_weights(
                [scale * rng.normal(size=w.shape).astype("float32") for w in layer.weights]
            )
    return model


def save_colour_run(folder, palette, kernel=None, bias=(60, 0, 0)):
    """Saves a net that sees the class in the colour, as a run does; as it is: dark, red or green.

    Args:
        folder: already exists.
        palette: RGB of each class by its name, for the card.
        kernel: `(3, C)`, what each colour says for each class.
        bias: C numbers.
    """
    kernel = np.eye(3)[:, [2, 0, 1]] if kernel is None else kernel
    image = keras.Input((None, None, 3))
    layer = keras.layers.Conv2D(len(bias), 1, name="score")
    model = keras.Model(image, layer(image))
    layer.set_weights([kernel[None, None], np.array(bias, float)])
    model.save(folder / "model.keras")
    card = {"classes": list(palette), "palette": [list(colour) for colour in palette.values()]}
    (folder / "model.json").write_text(json.dumps(card))


def fit_statistics(model, size=64, seed=0, images=None):
    """Sets the moving statistics of every batch normalisation from one batch; a random one."""
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    momenta = [x.momentum for x in norms]
    for layer in norms:
        layer.momentum = 0.0
    image = np.random.default_rng(seed).uniform(-1, 1, (4, size, size, 3)).astype("float32")
    if any(
        isinstance(x, (keras.layers.Rescaling, keras.layers.Normalization)) for x in model.layers
    ):
        image = (image + 1) * 127.5
    model(image if images is None else images, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def box_twin(model):
    """The same geometry with box filters only: linear, positive, average pooling.

    Its gradient at one output cell is a sum of shifted boxes, symmetric around the centre of the
    receptive field; the gradient of the net itself is lopsided by max pooling and dead units. All
    channels would be the same: there is one.
    """

    def visit(op, *args, **kwargs):
        if isinstance(op, (keras.layers.Activation, keras.layers.ReLU, keras.layers.Dropout)):
            return args[0]
        if isinstance(op, (keras.layers.BatchNormalization, keras.layers.Normalization)):
            return args[0]
        if isinstance(op, (keras.layers.Rescaling, keras.layers.Multiply)):
            return args[0][0] if isinstance(args[0], (list, tuple)) else args[0]
        if not isinstance(op, keras.layers.Layer):
            return op(*args, **kwargs)
        config = op.get_config()
        kind = type(op)
        if kind is keras.layers.MaxPooling2D:
            kind = keras.layers.AveragePooling2D
        if config.get("activation") not in (None, "linear"):
            config["activation"] = "linear"
        if "filters" in config:
            config["filters"] = 1
        if "target_shape" in config:
            config["target_shape"] = (*config["target_shape"][:-1], 1)
        layer = kind.from_config(config)
        out = layer(*args, **kwargs)
        if isinstance(layer, keras.layers.Conv2DTranspose):
            layer.set_weights([w[..., :1, :1] if w.ndim == 4 else w[:1] for w in op.get_weights()])
        elif layer.weights:
            kernel = np.ones(layer.weights[0].shape, "float32")
            kernel /= kernel.size / (kernel.shape[-1] if kernel.shape[-1] > 1 else kernel.shape[-2])
            layer.set_weights([kernel, *(np.zeros(w.shape) for w in layer.weights[1:])])
        return out

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=visit)


def gradient_centre(model, size, cell):
    """Centre of mass of the gradient of output `cell` (row, column slices) in input pixels."""
    import tensorflow as tf

    @tf.function  # which leaves out the gradients of the kernels: TensorFlow 2.21 crashes in some
    def gradient(image):
        with tf.GradientTape() as tape:
            tape.watch(image)
            value = tf.reduce_sum(model(image)[0, cell[0], cell[1]])
        return tape.gradient(value, image)

    mass = np.abs(gradient(tf.random.stateless_uniform((1, size, size, 3), (0, 0))).numpy())[0]
    mass = mass.sum(-1)
    positions = np.arange(size)
    return (
        (mass.sum(1) * positions).sum() / mass.sum(),
        (mass.sum(0) * positions).sum() / mass.sum(),
    )


def settings(pairs, **more):
    """Arguments of a training run of seconds on the `pairs`."""
    return {
        "data": "folder",
        "data_dir": pairs,
        "backbone": "mobilenet_v2",
        "alpha": 0.35,
        "weights": "none",
        "crop": (32, 40),
        "batch_size": 4,
        "epochs": 3,
        "deterministic": True,
        "verbose": False,
        **more,
    }


def u_net(classes=3, interpolation="nearest", activation=None, width=6):
    """A net as people build it: it joins the maps of two strides, and takes even sizes alone."""
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    fine = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    x = keras.layers.MaxPooling2D()(fine)
    x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    x = keras.layers.UpSampling2D(interpolation=interpolation)(x)
    x = keras.layers.Concatenate()([x, fine])
    x = keras.layers.Conv2D(classes, 3, padding="same", activation=activation)(x)
    return keras.Model(image, x)


def net_of_probabilities(classes, scale):
    """A net that ends in a softmax; its random weights are the same each time."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(scale)(image)
    scores = keras.layers.Conv2D(classes, 3, padding="same", activation="softmax")
    return keras.Model(image, scores(x))
