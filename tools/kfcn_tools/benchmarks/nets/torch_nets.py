"""torchvision's segmentation nets, and FCN-8s in plain torch on torchvision's classifiers.

Random weights, channels last, one optimizer and loss for all: AdamW, and cross entropy over the
pixels that have a label. "compiled" behind a net's name: forward pass and loss by `torch.compile`.
"""

from collections.abc import Callable

import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.models.feature_extraction import create_feature_extractor

from kfcn.labels import IGNORE
from kfcn.machine import cores

# FCN-8s's taps in torchvision's classifiers: the module that ends stride 8, 16 and 32, and its
# channels. They are the maps that kfcn taps.
TAPS = {
    "resnet50": (("layer2", 512), ("layer3", 1024), ("layer4", 2048)),
    "mobilenet_v2": (
        ("features.7.conv.0", 192),
        ("features.14.conv.0", 576),
        ("features.18", 1280),
    ),
    "mobilenet_v3_large": (("features.6", 40), ("features.12", 112), ("features.16", 960)),
}


class FCN8s(nn.Module):
    """FCN-8s as `kfcn.fcn8s` has it: 1x1 scores, two learned enlargements, one fixed.

    Args:
        backbone: a key of `TAPS`.
        classes: number of classes C.

    Call with (B, 3, H, W) float32; gives logits (B, C, H, W).
    """

    def __init__(self, backbone: str, classes: int):
        super().__init__()
        body = getattr(torchvision.models, backbone)(weights=None)
        names = {name: str(8 << i) for i, (name, _) in enumerate(TAPS[backbone])}
        self.body = create_feature_extractor(body, names)
        channels = [count for _, count in TAPS[backbone]]
        self.scores = nn.ModuleList(nn.Conv2d(count, classes, 1) for count in channels)
        self.twice = nn.ModuleList(
            nn.ConvTranspose2d(classes, classes, 4, stride=2, padding=1, bias=False)
            for _ in range(2)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the image's size."""
        taps = self.body(image)
        pool3, pool4, coarse = (score(taps[str(8 << i)]) for i, score in enumerate(self.scores))
        x = _cut(self.twice[0](coarse), pool4) + pool4
        x = _cut(self.twice[1](x), pool3) + pool3
        # The values of the fixed bilinear transposed convolution but for its faded border, and
        # the quickest way to them in torch.
        x = functional.interpolate(x, scale_factor=8, mode="bilinear")
        return _cut(x, image)


def _cut(x, reference):
    return x[..., : reference.shape[-2], : reference.shape[-1]]


class Net:
    """A net in torch; the interface is that of `keras_nets.Net`."""

    def __init__(self, spec: dict):
        torch.set_num_threads(cores())
        torch.manual_seed(0)
        name, _, compiled = spec["net"].partition(" ")
        if spec["maker"] == "torch":
            net = FCN8s(spec["backbone"], spec["classes"])
        else:
            net = getattr(torchvision.models.segmentation, name)(
                weights=None, weights_backbone=None, num_classes=spec["classes"]
            )
        self.net = net.to(memory_format=torch.channels_last)
        self.size, self.classes = spec["size"], spec["classes"]
        self.optimizer = None
        self.versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
        self.parameters = sum(p.numel() for p in net.parameters())
        self._batches = {}
        self._pictures = {}
        ready: Callable[..., Callable[..., torch.Tensor]] = (
            torch.compile if compiled else lambda function: function
        )
        self._run = ready(self._logits)
        self._run_loss = ready(self._loss)
        self._run_labels = ready(self._labels)

    def _batch(self, count: int):
        if count not in self._batches:
            images = torch.rand(count, 3, *self.size).to(memory_format=torch.channels_last)
            labels = torch.randint(0, self.classes, (count, *self.size))
            labels[:, :20] = IGNORE
            self._batches[count] = images, labels
        return self._batches[count]

    def _logits(self, images):
        found = self.net(images)
        return found["out"] if isinstance(found, dict) else found

    def _loss(self, images, labels):
        return functional.cross_entropy(self._logits(images), labels, ignore_index=IGNORE)

    def _labels(self, picture):
        return self._logits(picture.permute(0, 3, 1, 2).float()).argmax(1).to(torch.uint8)

    def infer(self, count: int) -> None:
        """Logits of a batch as a NumPy array."""
        self.net.eval()
        with torch.inference_mode():
            self._run(self._batch(count)[0]).numpy()

    def labels(self, height: int, width: int) -> None:
        """The class of each pixel of one picture uint8 `(1, H, W, 3)`, as a NumPy array."""
        if (height, width) not in self._pictures:
            self._pictures[height, width] = torch.randint(
                0, 256, (1, height, width, 3), dtype=torch.uint8
            )
        self.net.eval()
        with torch.inference_mode():
            self._run_labels(self._pictures[height, width]).numpy()

    def train(self, count: int) -> None:
        """One step on a batch."""
        self.net.train()
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.net.parameters(), 1e-3, weight_decay=1e-4)
        images, labels = self._batch(count)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._run_loss(images, labels)
        loss.backward()
        self.optimizer.step()
        loss.item()

    def flops(self) -> int:
        """Floating-point operations of one image in the convolutions and matrix products."""
        from torch.utils.flop_counter import FlopCounterMode

        self.net.eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            self.net(self._batch(1)[0])
        return counter.get_total_flops()
