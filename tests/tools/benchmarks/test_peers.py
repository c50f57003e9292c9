"""What the benchmarks compute from their times; the times themselves are not asserted."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from kfcn_tools.benchmarks import (
    dense,
    folder,
    growth,
    profile_infer,
    profile_train,
    timing,
    train,
    upsample,
)
from kfcn_tools.benchmarks import peers as bench
from kfcn_tools.benchmarks.flops import count_flops
from kfcn_tools.benchmarks.timing import alternate, machine

import kfcn


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="told on Linux only")
def test_a_figure_stands_beside_the_cores_that_were_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5})
    assert ", 3 cores, load " in machine()


def test_operations_by_hand():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)  # (6, 8, 4)
    x = keras.layers.DepthwiseConv2D(5, padding="same")(x)  # (6, 8, 4)
    x = keras.layers.Conv2DTranspose(7, 4, strides=2, padding="same", use_bias=False)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(5)(x))
    convolution = 6 * 8 * 4 * (3 * 3 * 3)
    depthwise = 6 * 8 * 4 * (5 * 5)
    transposed = 6 * 8 * 4 * (4 * 4 * 7)  # each input value goes into 4x4 cells of 7 channels
    assert count_flops(model, (12, 16)) == 2 * (convolution + depthwise + transposed + 7 * 5)


def test_dilated_convolution_counts_as_the_whole_map():
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(4, 3, dilation_rate=2, padding="same")(image))
    assert count_flops(model, (16, 16)) == 2 * 16 * 16 * 4 * (3 * 3 * 3)


def test_runs_take_turns():
    seen = []
    times = alternate({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=3)
    assert seen[:2] == ["a", "b"]  # the warm-up
    assert [sorted(seen[i : i + 2]) for i in (2, 4, 6)] == [["a", "b"]] * 3
    assert {name: len(t) for name, t in times.items()} == {"a": 3, "b": 3}


def test_a_process_and_its_children_keep_to_their_cores():
    code = (
        "import subprocess, sys; from kfcn_tools.benchmarks.timing import keep_to_cores\n"
        "keep_to_cores(1)\n"
        "ask = 'from kfcn.machine import cores; print(cores())'\n"
        "subprocess.run([sys.executable, '-c', ask], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, text=True)
    assert done.stdout == "1\n", done.stderr


def test_photographs_are_spread_over_the_folder():
    assert folder.spread(list("abcdefghi"), 3) == ["a", "e", "i"]
    assert folder.spread(list("ab"), 3) == ["a", "b"]


class Told:
    """Stands for a net's process."""

    def ask(self, command):
        assert command == "memory"
        return {"mib": 5.0}


def test_ratios_are_of_pairs_and_shares_of_the_peak():
    times = {
        "kfcn fcn8s": np.array([100.0, 200.0, 400.0]),  # ms
        "torch fcn8s": np.array([300.0, 400.0, 400.0]),  # pairs: 3, 2, 1; of the medians: 2
        "product": np.array([1000.0, 900.0, 2000.0]),
    }
    found = {
        name: {
            "maker": name.split()[0], "net": "fcn8s", "stride": 32, "beside": beside, "start": 1.0,
            "flops": 10**9, "parameters": None, "versions": {}, "ratios": {}, "seconds": {},
            "mib": {},
        }
        for name, beside in (("kfcn fcn8s", None), ("torch fcn8s", "kfcn fcn8s"))
    }  # fmt: skip
    bench._note(found, times, "train 2", {"kfcn fcn8s": Told(), "torch fcn8s": Told()})
    torch = found["torch fcn8s"]
    assert torch["ratios"]["train 2"] == [2.0, 1.0, 3.0]
    assert torch["seconds"]["train 2"] == 0.4
    assert torch["peak"]["train 2"] == 2 * 4096**3 / 1.0
    # 2 images in 0.4 s, 3 GFLOP each there and back: 15 of 137.4 GFLOP/s.
    assert bench._speed(torch, "train 2") == ["5.00", "11 %", "2.00 (1.00–3.00)"]
    assert bench._speed(torch, "infer 1") == ["–"] * 3

    # A second run, of inference alone, comes into the same rows.
    infer = {name: {**figures, "ratios": {}, "seconds": {}} for name, figures in found.items()}
    bench._note(infer, times, "infer 1", {"torch fcn8s": Told()})
    infer["torch fcn8s"]["ratios"] = {}
    result = {"machine": "M", "classes": 21, "size": (360, 480), "train_batch": 2}
    found["LiteRT naive"] = {"seconds": {}}  # a file is not trained
    runs = [result | {"nets": {"resnet50": nets}} for nets in (found, infer)]
    text = bench.tables(json.loads(json.dumps(runs)))
    assert "peak: 137 to 137 GFLOP/s" in text
    assert "| torch fcn8s, resnet50 | 32 | 1.0 | 5.00 | 11 % | 2.00 (1.00–3.00) | 5 |" in text
    assert "| torch fcn8s, resnet50 | 2.50 | 2 % | – | – | – | – | 5 | – | 1.0 | – | – |" in text
    assert "LiteRT" not in text


def test_operations_are_timed_by_kind():
    import tensorflow as tf

    matrix = tf.ones((256, 256))
    product = tf.function(lambda: tf.reduce_sum(matrix @ matrix))
    product()
    kinds = profile_infer.by_kind(product, repeats=4)
    (name,) = (kind for kind in kinds if "MatMul" in kind)
    assert kinds[name][1] == 1 and 0 < kinds[name][0] < 1000
    assert "Sum" in kinds and not {"Run", "Process", "Record"} & kinds.keys()


@pytest.mark.parametrize("tool", [dense, growth, profile_train, train, upsample])
def test_onednn_is_told_before_anything_is_measured(tool, monkeypatch):
    def stop():
        raise InterruptedError

    monkeypatch.setattr(tool, "machine_and_onednn", stop)
    with pytest.raises(InterruptedError):
        tool.main([])


def test_the_machine_in_a_line(monkeypatch):
    monkeypatch.setattr(timing, "onednn_is_on", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert timing.machine_and_onednn().endswith("; oneDNN in TensorFlow: kept to AVX2")
    monkeypatch.setattr(timing, "onednn_is_on", lambda: False)
    assert timing.machine_and_onednn().endswith("; oneDNN in TensorFlow: off")


def test_exponents():
    points = [{"at": n, "seconds": 3.0 * n**2, "mib": 100.0 + n} for n in (1, 10, 100, 1000)]
    assert growth.exponent(points, "seconds") == pytest.approx(2)
    assert growth.exponent(points, "mib") < 1  # a constant share is no growth
    axes = {"batch": {"train": points}}
    assert growth.tables(axes).splitlines()[-1].startswith("| exponent | 2.00 | 0.")


def test_plot_is_drawn(tmp_path):
    points = [{"at": n, "seconds": n, "mib": n} for n in (1, 2, 4)]
    growth.plot({"area": {"train": points, "infer": points}}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_replicas_and_workers_are_curves(monkeypatch):
    speeds = {"1 replica": 8.0, "2 replicas": 4.0, "1 worker": 5.0, "2 workers": 2.0}
    monkeypatch.setattr(train, "in_new_processes", lambda way, _: (speeds[way], 0.1, 900.0, 500.0))
    curves = growth.replicas((1, 2))
    seconds = {name: [point["seconds"] for point in points] for name, points in curves.items()}
    assert seconds == {"replicas": [0.125, 0.25], "workers": [0.2, 0.5]}
    assert growth.exponent(curves["replicas"], "seconds") == pytest.approx(1)


def test_data_sets_of_links(tmp_path):
    from kfcn import data

    dataset = data.load("folder", "train", growth.draw(tmp_path / "set", 103))
    assert len(dataset) == 103
    assert np.array_equal(dataset[102].labels, dataset[2].labels)
    assert not np.array_equal(dataset[102].labels, dataset[3].labels)


@pytest.mark.parametrize("tool", ["peers", "growth"])
def test_help_is_there_without_tensorflow(tool):
    code = f"import sys, kfcn_tools.benchmarks.{tool} as t; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_unknown_group_is_named(capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main(["resnet18"])
    assert stop.value.code == 2
    assert "group resnet18: expected some of resnet50, mobilenet" in capsys.readouterr().err


@pytest.mark.long
def test_child_answers_in_json_whatever_else_is_printed():
    spec = {"maker": "kfcn", "net": "fcn8s", "backbone": "mobilenet_v2", "classes": 3}
    process = bench.Process(spec | {"size": (32, 64), "stride": 32})
    try:
        assert process.hello["parameters"] > 2e6 and "kfcn" in process.hello["versions"]
        assert process.started < time.perf_counter()
        first = process.ask("memory")["mib"]
        assert process.ask("train 2") == {}
        # A greatest memory never falls, and a small step may stay below that of tracing.
        assert process.ask("memory")["mib"] >= first > process.hello["imported"]
    finally:
        process.end()


@pytest.mark.slow
def test_child_that_fails_says_why():
    with pytest.raises(RuntimeError, match="unknown backbone 'resnet18'"):
        bench.Process(
            {"maker": "kfcn", "net": "fcn8s", "backbone": "resnet18", "classes": 3}
            | {"size": (32, 64), "stride": 32}
        )


CARDS = """
import json
from torchvision.models import segmentation as s
weights = {"fcn_resnet50": s.FCN_ResNet50_Weights,
           "lraspp_mobilenet_v3_large": s.LRASPP_MobileNet_V3_Large_Weights}
keys = "num_params", "_ops", "_metrics"
print(json.dumps({n: {k: w.DEFAULT.meta[k] for k in keys} for n, w in weights.items()}))
"""


COMPILED = """
import json, torch
from kfcn_tools.benchmarks.nets.torch_nets import Net
spec = {"maker": "torch", "backbone": "mobilenet_v2", "classes": 3, "size": (64, 96)}
eager, compiled = (Net(spec | {"net": net}) for net in ("fcn8s", "fcn8s compiled"))
images, labels = eager._batch(1)
losses = []
for net in (eager, compiled):
    net.net.eval()
    with torch.no_grad():
        losses.append(float(net._run_loss(images, labels)))
        changed = float(net._run_loss(images, (labels + 1) % 3))
print(json.dumps([abs(losses[0] - losses[1]), abs(losses[0] - changed)]))
"""


@pytest.mark.skipif(not importlib.util.find_spec("torchvision"), reason="needs torchvision")
class TestPeers:
    """Against the figures on torchvision's own cards. Never in one process with TensorFlow."""

    def test_figures_are_the_cards(self):
        done = subprocess.run([sys.executable, "-c", CARDS], capture_output=True, timeout=60)
        cards = json.loads(done.stdout)
        for net, card in cards.items():
            told = card["_metrics"]["COCO-val2017-VOC-labels"]["miou"]
            assert bench.PUBLISHED[f"torchvision {net}"].startswith(f"{told}, COCO val2017")

        net = "lraspp_mobilenet_v3_large"
        process = bench.Process(
            {"maker": "torchvision", "net": net, "classes": 21, "size": (520, 520)}
        )
        assert process.hello["parameters"] == cards[net]["num_params"]
        # The card counts a multiplication and an addition as one, in 10^9, to three digits.
        flops = process.ask("flops")["flops"]
        assert flops / 2e9 == pytest.approx(cards[net]["_ops"], abs=5e-4)
        process.end()

    @pytest.mark.long
    @pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
    def test_compiled_is_the_same_net(self):
        done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, timeout=300)
        same, other = json.loads(done.stdout)
        assert same < 1e-4 < other, done.stderr

    @pytest.mark.parametrize("backbone", ["mobilenet_v2", "mobilenet_v3_large"])
    def test_fcn8s_in_torch_is_kfcns(self, backbone):
        """The same taps, hence the same parameters; and nearly the same operations."""
        process = bench.Process(
            {
                "maker": "torch",
                "net": "fcn8s",
                "backbone": backbone,
                "classes": 5,
                "size": (96, 160),
            }
        )
        ours = kfcn.fcn8s(5, backbone)
        trainable = sum(int(np.prod(w.shape)) for w in ours.trainable_variables)
        assert process.hello["parameters"] == trainable
        last = 2 * 12 * 20 * 16 * 16 * 5 * 5  # the fixed enlargement, which torch interpolates
        theirs = process.ask("flops")["flops"]
        assert theirs == pytest.approx(count_flops(ours, (96, 160)) - last, rel=0.01)
        process.end()
