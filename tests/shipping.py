"""Tiny nets and one small bundle for the tests of kfcn_tools and kfcn_mobile."""

import functools
import json
import tempfile
from pathlib import Path

import numpy as np

SIZE = (48, 64)
CLASSES = ["ground", "sky", "tree"]
PALETTE = [[90, 60, 30], [120, 180, 255], [20, 120, 40]]


def picture(seed, size=SIZE):
    """A smooth random image: uint8 (H, W, 3). White noise would leave every label to chance."""
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def tiny_fcn(classes=3, learn_middle=False, seed=0):
    """An FCN-8s whose body has the layers of MobileNetV2, with weights that are not trivial."""
    import keras
    from keras import layers

    from kfcn.nets.upsample import match_size, upsample

    keras.utils.set_random_seed(seed)
    image = keras.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalize")(image)
    taps = {}
    for stride, width in ((2, 8), (4, 8), (8, 12), (16, 12), (32, 16)):
        name = f"block{stride}"
        x = layers.Conv2D(width, 3 if stride == 2 else 1, padding="same", name=f"{name}_expand")(x)
        x = layers.BatchNormalization(name=f"{name}_expand_bn")(x)
        x = layers.ReLU(6.0, name=f"{name}_expand_relu")(x)
        x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
        x = layers.DepthwiseConv2D(3, strides=2, use_bias=False, name=f"{name}_depthwise")(x)
        x = layers.BatchNormalization(name=f"{name}_depthwise_bn")(x)
        x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
        x = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_project")(x)
        x = taps[stride] = layers.BatchNormalization(name=f"{name}_project_bn")(x)

    def score(stride, name):
        return layers.Conv2D(classes, 1, name=name)(taps[stride])

    x = upsample(score(32, "score_fr"), 2, "upscore2", trainable=learn_middle)
    skip = score(16, "score_pool4")
    x = layers.Add(name="fuse_pool4")([match_size(x, skip), skip])
    x = upsample(x, 2, "upscore_pool4", trainable=learn_middle)
    skip = score(8, "score_pool3")
    x = layers.Add(name="fuse_pool3")([match_size(x, skip), skip])
    logits = match_size(upsample(x, 8, "upscore8"), image)
    model = keras.Model(image, logits, name="tiny")
    settle(model)
    return model


def settle(model, gain=3.0):
    """Random weights and moving statistics that fit them, so that no layer is vacuous."""
    import keras

    batch = np.stack([picture(seed) for seed in range(100, 108)]).astype(np.float32)
    rng = np.random.default_rng(7)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
            layer.gamma.assign(rng.uniform(0.5, 2.0, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.5, layer.beta.shape))
        elif layer.name.startswith("score") and layer.get_weights():
            kernel, bias = layer.get_weights()
            kernel = rng.normal(0, gain / np.sqrt(kernel.shape[2]), kernel.shape)
            layer.set_weights([kernel, rng.normal(0, 0.3, bias.shape)])
    for _ in range(2):
        model(batch, training=True)


@functools.cache
def tiny_model():
    return tiny_fcn()


@functools.cache
def tiny_conversion():
    from kfcn_tools.convert.modes import Conversion
    from kfcn_tools.convert.options import Int8Options

    return Conversion(tiny_model(), SIZE, [picture(seed) for seed in range(12)], Int8Options())


@functools.cache
def tiny_files():
    """float32 and int8 files of `tiny_model`: mode -> (content, details)."""
    from kfcn_tools.convert.modes import convert_modes

    return convert_modes(tiny_conversion(), ("float32", "int8"))


@functools.cache
def tiny_scores():
    """The same nets' files of scores."""
    from kfcn_tools.convert.modes import scores_of

    return scores_of(tiny_conversion(), ("float32", "int8"))


def computed(content, image):
    """What a file computes, in float32 by name; `scores` is what its argmax reads."""
    from kfcn_tools.litert import open_interpreter, run_once

    interpreter = open_interpreter(content, xnnpack=False, keep_tensors=True)
    run_once(interpreter, image)
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}

    def read(index):
        values, (step, zero) = interpreter.get_tensor(index), details[index]["quantization"]
        return (values.astype(np.float32) - zero) * step if step else values

    operators = interpreter._get_ops_details()
    values = {details[i]["name"]: read(i) for op in operators for i in op["outputs"]}
    (argmax,) = (op for op in operators if op["op_name"] == "ARG_MAX")
    return values | {"scores": read(argmax["inputs"][0])}


@functools.cache
def tiny_bundle() -> Path:
    """A bundle with float32 and int8 files and three golden images, with the truth."""
    from kfcn_tools.convert import metadata
    from kfcn_tools.convert import write_bundle as bundle
    from kfcn_tools.convert.pictures import Picture

    from kfcn.outputs import new_folder

    path = Path(tempfile.mkdtemp(prefix="kfcn-test-")) / "bundle"
    model = tiny_model()
    pictures = []
    for seed in range(200, 203):
        image = picture(seed)
        truth = bundle.keras_labels(model, image)[0].copy()
        truth[:8] = 255
        truth[-8:] = 0
        pictures.append(Picture(image, truth, f"val/{seed}.png"))
    info = {"size": SIZE, "classes": CLASSES, "palette": PALETTE, "kfcn_version": "0"}
    info["source"] = {"name": "tiny/model.keras", "sha256": "00"}
    with new_folder(path) as folder:
        models = []
        for mode, (content, details) in tiny_files().items():
            (folder / f"{mode}.tflite").write_bytes(content)
            models.append({"file": f"{mode}.tflite", "mode": mode, **details})
        scores = []
        for mode, (content, details) in tiny_scores().items():
            file = f"scores_{mode}.tflite"
            (folder / file).write_bytes(metadata.embed(content, info, scores=True))
            scores.append({"file": file, "mode": mode, **details})
        golden = bundle.write_golden(folder, model, pictures)
        bundle.write_description(folder, info, models, golden, scores)
    return path


def describe(bundle, change):
    """Changes bundle.json."""
    file = bundle / "bundle.json"
    info = json.loads(file.read_text())
    change(info)
    file.write_text(json.dumps(info))


def rewrite(bundle, name, content):
    """Changes a file and has bundle.json say so."""
    from kfcn_mobile.bundle import sha256

    (bundle / name).write_bytes(content)
    describe(bundle, lambda info: info["files"].update({name: sha256(bundle / name)}))
