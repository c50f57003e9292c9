import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from base import NetTests
from keras import ops
from small_nets import TINY, box_twin, fit_statistics, gradient_centre, randomize

from kfcn.errors import KfcnError, UsageError
from kfcn.nets.fcn import fcn2s, fcn4s, fcn8s, fcn8s_atonce, fcn16s, fcn32s
from kfcn.nets.upsample import bilinear_kernel
from kfcn.nets.weights import carry_weights
from kfcn.saved import save_model


@pytest.fixture(scope="module")
def small8s():
    keras.utils.set_random_seed(0)
    return randomize(fit_statistics(fcn8s(5, **TINY)))


class TestFCN32s(NetTests):
    arch = "fcn32s"


class TestFCN16s(NetTests):
    arch = "fcn16s"


class TestFCN8s(NetTests):
    arch = "fcn8s"


class TestFCN4s(NetTests):
    arch = "fcn4s"


class TestFCN2s(NetTests):
    arch = "fcn2s"


class TestFCN8sAtOnce(NetTests):
    arch = "fcn8s-atonce"


def test_layers_bear_the_papers_names_in_its_order():
    names = [layer.name for layer in fcn8s(3, **TINY).layers]
    order = ["score_fr", "upscore2", "fuse_pool4", "upscore_pool4", "fuse_pool3", "upscore8"]
    assert [name for name in names if name in order] == order
    for skip, sum_of in (("score_pool4", "fuse_pool4"), ("score_pool3", "fuse_pool3")):
        assert names.index(skip) < names.index(sum_of)
    assert "upscore16" in [layer.name for layer in fcn16s(3, **TINY).layers]
    assert "upscore" in [layer.name for layer in fcn32s(3, **TINY).layers]


def test_scores_start_at_zero_and_upsampling_bilinear():
    net = fcn8s(3, **TINY)
    for name in ("score_fr", "score_pool4", "score_pool3"):
        assert not any(np.any(w) for w in net.get_layer(name).get_weights())
    for name, stride in (("upscore2", 2), ("upscore_pool4", 2), ("upscore8", 8)):
        layer = net.get_layer(name)
        np.testing.assert_array_equal(layer.get_weights()[0], bilinear_kernel(stride, 3))
        assert not layer.use_bias
        assert layer.activation is keras.activations.linear
    image = np.random.default_rng(0).uniform(0, 255, (1, 40, 50, 3)).astype("float32")
    assert not np.any(net(image))


@pytest.mark.parametrize(
    ("options", "learning"),
    [
        ({}, {"upscore2", "upscore_pool4"}),
        ({"learn_middle": False}, set()),
        ({"learn_last": True}, {"upscore2", "upscore_pool4", "upscore8"}),
    ],
)
def test_which_upsampling_layers_learn(options, learning):
    net = fcn8s(3, **TINY, **options)
    found = {x.name for x in net.layers if "upscore" in x.name and x.trainable_weights}
    assert found == learning


def test_the_graph_is_the_papers(small8s):
    """Scores of the taps, put together by hand in NumPy at a size that divides by 32."""
    taps = keras.Model(
        small8s.input,
        [small8s.get_layer(n).output for n in ("score_fr", "score_pool4", "score_pool3")],
    )
    image = np.random.default_rng(1).uniform(0, 255, (1, 64, 96, 3)).astype("float32")
    coarse, middle, fine = (ops.convert_to_numpy(t) for t in taps(image))

    expected = enlarged(enlarged(enlarged(coarse, 2) + middle, 2) + fine, 8)
    np.testing.assert_allclose(small8s(image), expected, atol=1e-4 * np.abs(expected).max())
    bare = enlarged(enlarged(enlarged(coarse, 2), 2), 8)
    assert np.abs(bare - expected).max() > 0.1  # the skips are seen


def enlarged(x, stride):
    """The bilinear transposed convolution as a layer of its own."""
    channels = x.shape[-1]
    layer = keras.layers.Conv2DTranspose(
        channels, 2 * stride, strides=stride, padding="same", use_bias=False
    )
    layer.build(x.shape)
    layer.set_weights([bilinear_kernel(stride, channels)])
    return ops.convert_to_numpy(layer(x))


def test_atonce_scales_the_skips():
    net = fcn8s_atonce(3, **TINY)
    plain = fcn8s(3, **TINY)
    for target in (net, plain):
        for name in ("score_pool4", "score_pool3"):
            layer = target.get_layer(name)
            layer.set_weights(
                [np.ones(w.shape, "float32") for w in layer.weights[:1]]
                + [0 * layer.weights[1].numpy()]
            )
    plain.set_weights(net.get_weights())
    assert net.get_layer("scale_pool4").scale == 0.01
    assert net.get_layer("scale_pool3").scale == 0.0001
    image = np.random.default_rng(1).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    for name, scale in (("score_pool4", 0.01), ("score_pool3", 0.0001)):
        scaled, unscaled = (
            ops.convert_to_numpy(keras.Model(m.input, m.get_layer(name).output)(image))
            for m in (net, plain)
        )
        np.testing.assert_allclose(scaled, scale * unscaled, rtol=1e-4, atol=1e-12)


@pytest.mark.slow
def test_staged_growth_starts_as_the_coarser_net():
    keras.utils.set_random_seed(3)
    coarse = randomize(fit_statistics(fcn32s(4, **TINY)))
    middle = fcn16s(4, **TINY)
    fine = fcn8s(4, **TINY)
    assert "score_fr" in carry_weights(coarse, middle)
    assert "upscore2" in carry_weights(middle, fine)
    image = np.random.default_rng(1).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    score = [
        ops.convert_to_numpy(keras.Model(m.input, m.get_layer("score_fr").output)(image))
        for m in (coarse, middle, fine)
    ]
    np.testing.assert_array_equal(score[0], score[1])
    np.testing.assert_array_equal(score[0], score[2])
    # The new skips say nothing yet: the answer is the coarse score enlarged 2, 2 and 8 times.
    expected = enlarged(enlarged(enlarged(score[0], 2), 2), 8)
    np.testing.assert_allclose(fine(image), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_the_finer_nets_go_on_as_the_paper_s():
    """FCN-4s and 2s start as FCN-8s, and each adds what its skip sees, by hand in NumPy."""
    keras.utils.set_random_seed(4)
    eight, four = randomize(fit_statistics(fcn8s(3, **TINY))), fcn4s(3, **TINY)
    carry_weights(eight, four)
    image = np.random.default_rng(1).uniform(0, 255, (1, 64, 32, 3)).astype("float32")
    fuse = keras.Model(eight.input, eight.get_layer("fuse_pool3").output)
    scores = ops.convert_to_numpy(fuse(image))
    expected = enlarged(enlarged(scores, 2), 4)
    np.testing.assert_allclose(four(image), expected, atol=1e-4 * np.abs(expected).max())

    rng = np.random.default_rng(2)
    two = fcn2s(3, **TINY)
    carry_weights(four, two)
    skips = {}
    for stride, name in ((4, "score_pool2"), (2, "score_pool1")):
        layer = two.get_layer(name)
        layer.set_weights([rng.normal(0, 1, w.shape) for w in layer.weights])
        skips[stride] = ops.convert_to_numpy(keras.Model(two.input, layer.output)(image))
        assert skips[stride].shape == (1, 64 // stride, 32 // stride, 3)
    expected = enlarged(enlarged(enlarged(scores, 2) + skips[4], 2) + skips[2], 2)
    np.testing.assert_allclose(two(image), expected, atol=1e-4 * np.abs(expected).max())


def test_names_that_match_nothing_are_an_error():
    with pytest.raises(KfcnError, match="fit fcn32s: score_pool4 fits nothing there"):
        carry_weights(fcn8s(3, **TINY), fcn32s(3, **TINY))
    with pytest.raises(
        KfcnError, match="expected a coarser net with the same backbone and options"
    ):
        carry_weights(fcn32s(3, **TINY), fcn16s(3, "mobilenet_v2", alpha=0.5))


def test_other_classes_carry_the_body_only():
    source, target = randomize(fcn8s(3, **TINY)), fcn8s(6, **TINY)
    filled = carry_weights(source, target)
    assert "Conv1" in filled
    assert not [name for name in filled if name.startswith(("score", "upscore"))]


@pytest.mark.slow
def test_align_puts_the_answer_over_its_object():
    """MobileNetV2's cells lie s - 1 off; the usual kernels leave the answer half a stride away."""
    cell = (slice(224, 256), slice(224, 256))
    centres = {}
    for align in (False, True):
        net = fcn32s(2, "mobilenet_v2", alpha=0.35, align=align)
        centres[align] = gradient_centre(box_twin(net), 480, cell)[0]
    assert centres[True] == pytest.approx(239.5, abs=0.6)
    assert centres[False] == pytest.approx(239.5 + 15.5, abs=0.6)


def test_one_class_is_refused():
    with pytest.raises(UsageError, match="at least 2 classes; received 1"):
        fcn8s(1, **TINY)


LOADER = """
import sys
import keras, numpy as np
net = keras.models.load_model(sys.argv[1])
np.save(sys.argv[3], net.predict(np.load(sys.argv[2]), verbose=0))
print(keras.backend.backend(), any(name.startswith("kfcn") for name in sys.modules))
"""


@pytest.mark.slow
def test_saved_model_loads_on_jax(small8s, tmp_path):
    """On TensorFlow every net does, see `NetTests`."""
    pytest.importorskip("jax")
    image = np.random.default_rng(5).uniform(0, 255, (2, 37, 61, 3)).astype("float32")
    np.save(tmp_path / "image.npy", image)
    save_model(small8s, tmp_path / "model.keras")
    files = [tmp_path / name for name in ("model.keras", "image.npy", "logits.npy")]
    done = subprocess.run(
        [sys.executable, "-c", LOADER, *map(str, files)],
        env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.stdout == "jax False\n", done.stderr[-2000:]
    expected = ops.convert_to_numpy(small8s(image))
    np.testing.assert_allclose(np.load(files[2]), expected, atol=1e-4 * np.abs(expected).max())
    assert expected.std() > 0.01
