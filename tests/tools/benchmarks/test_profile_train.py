"""What the profile makes of the names of operations."""

import pytest
import tensorflow as tf
from kfcn_tools.benchmarks import profile_train
from small_nets import TINY

from kfcn.fused.training import training_forward
from kfcn.losses import SegmentationLoss
from kfcn.nets.fcn import fcn8s


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("fcn8s_1/block_1_expand_1/convolution:_MklNativeConv2D", "convolution"),
        ("fcn8s_1/upscore8_1/conv_transpose:_MklNativeConv2DBackpropInput", "convolution"),
        (
            "gradient_tape/a/depthwise:_MklNativeDepthwiseConv2dNativeBackpropFilter",
            "depthwise convolution",
        ),
        ("gradient_tape/a/b:_MklNativeFusedBatchNormGradV3", "batch normalisation"),
        ("gradient_tape/a/Relu6Grad:Relu6Grad", "activation"),
        ("cond/then/_0/cond/adam_w/mul_103:Mul", "optimizer"),
        ("PyFunc:PyFunc", "reading and augmenting"),
        ("fcn8s_1/block_1_pad_1/Pad:Pad", "padding, cutting, joining"),
        ("add:AddV2", "other"),
    ],
)
def test_kinds(operation, kind):
    assert profile_train.kind_of(operation) == kind


def test_all_that_the_loss_computes_is_counted_as_loss():
    """Forward and back: softmax, log, selections, and what custom gradients are made of."""
    loss = SegmentationLoss(class_weights=[1.0, 2.0, 3.0], iou_weight=1.0)

    @tf.function
    def step(labels, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            share = loss(labels, logits)
        return tape.gradient(share, logits)

    specs = tf.TensorSpec((2, 4, 4), tf.uint8), tf.TensorSpec((2, 4, 4, 3))
    operations = step.get_concrete_function(*specs).graph.get_operations()
    # Numbers take no time, and sums of gradients belong to nobody.
    nobody = ("Placeholder", "Const", "Identity", "AddN")
    seen = {f"{o.name}:{o.type}" for o in operations if o.type not in nobody}
    assert {"Softmax", "Log", "OneHot", "SelectV2"} <= {o.type for o in operations}
    assert [one for one in sorted(seen) if profile_train.kind_of(one) != "loss"] == []


def test_layers():
    layers = ["block_1_expand", "block_1_expand_BN", "upscore2", "upscore8"]

    def layer(path):
        return profile_train.layer_of(path, layers)

    assert layer("fcn8s_1/block_1_expand_1/convolution") == "block_1_expand"
    assert layer("gradient_tape/fcn8s_1/block_1_expand_BN_1/Grad") == "block_1_expand_BN"
    assert layer("fcn8s/upscore8/conv_transpose") == "upscore8"
    assert layer("cond/then/_0/cond/adam_w/mul_103") == "input, loss, optimizer"


def test_the_profiler_s_file_is_read(tmp_path):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    plane = space.planes.add(name="/host:CPU")
    names = ["a/b:Conv2D#id=1#", "ExecutorState::Process", "EagerLocalExecute: step", "a/b:Relu"]
    line = plane.lines.add()
    for number, name in enumerate(names, start=1):
        plane.event_metadata[number].name = name
        line.events.add(metadata_id=number, duration_ps=number * 10**9)
    (tmp_path / "vm.xplane.pb").write_bytes(space.SerializeToString())
    read = list(profile_train.read(str(tmp_path)))
    assert read == [("a/b", "Conv2D", 0.001), ("a/b", "Relu", 0.004)]


def test_what_is_computed_instead_of_a_layer_counts_as_the_layer():
    net = fcn8s(3, **TINY)
    step = tf.function(training_forward(net))
    graph = step.get_concrete_function(tf.TensorSpec((1, 64, 64, 3))).graph
    names = [layer.name for layer in net.layers]
    heavy = [o.name for o in graph.get_operations() if "Depthwise" in o.type or "Norm" in o.type]
    assert len(heavy) > 50
    assert {profile_train.layer_of(name, names) for name in heavy} <= set(names)
