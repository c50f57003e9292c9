"""Where the files of a bundle can be run: this machine, an emulated ARM, a browser, a phone.

`KINDS` is the one table of them. All answer the same calls, and the report does not depend on which
one did::

    with target:                                # start: build, fetch, connect
        outcome = target.run(bundle, model, timing)
"""

import importlib
from dataclasses import dataclass, field

import numpy as np

from kfcn_mobile.bundle import Bundle
from kfcn_mobile.console import Say
from kfcn_mobile.errors import TargetError


@dataclass(frozen=True)
class Timing:
    """How to measure latency: `runs` timed runs after `warmup`, once for each thread count."""

    threads: tuple[int, ...] = (1,)
    runs: int = 30
    warmup: int = 5


@dataclass(frozen=True)
class Outcome:
    """What one file gave on a target.

    Attributes:
        labels: uint8 (H, W), one for each golden image.
        latency: one dict for each thread count: `threads`, `median_ms`, `p90_ms`, `min_ms`,
            `runs`, and `peak_bytes` and `model_bytes` where the target knows them.
        kernels: what computed them. The same int8 file gives the same labels wherever it is
            XNNPACK, and elsewhere it need not.
        confidences: where the target gives probabilities, those of each golden image at every
            `LOGITS_STEP`th row and column, float32 (h, w, C).
    """

    labels: list[np.ndarray]
    latency: list[dict] = field(default_factory=list)
    kernels: str = "XNNPACK"
    confidences: list[np.ndarray] | None = None


class Target:
    """A place that runs `.tflite` files. Subclasses give `run`, and `start` where they need it.

    Attributes:
        name: as in the report, such as `arm64 cortex-a53`.
        machine: what it runs on, for people; known once the target is started.
        emulated: whether its times are an emulator's, which say nothing about the hardware.
    """

    name = ""
    machine = ""
    emulated = False

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def start(self) -> None:
        """Makes the target ready.

        Raises:
            TargetError: it cannot be used, with the reason.
        """

    def file(self, bundle: Bundle, model: dict) -> dict | None:
        """The entry of the file that it runs where others run `model`; None where it has none."""
        return model

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        """Labels the golden images with one file.

        Args:
            bundle: where the images, and most files, are.
            model: what `file` gave.
            timing: how to time it.

        Raises:
            TargetError: the target failed.
            BundleError: the file does not run there.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Releases what `start` took."""


@dataclass(frozen=True)
class Kind:
    """A kind of target, as it is named on the command line.

    Attributes:
        help: where it runs, in a few words.
        needs: what must be there, or is fetched.
        make: "module:function" of this package; the function gets what stands behind the colon and
            a function that prints lines for people, and returns the targets.
        argument: what may stand behind the colon: "HOST" or "DIR" is needed, "[built-in]" is this
            word or nothing.
    """

    help: str
    needs: str
    make: str
    argument: str = ""

    def takes(self, argument: str) -> bool:
        """Whether this may stand behind the colon."""
        if self.argument.startswith("["):
            return argument in ("", self.argument[1:-1])
        return bool(argument) == bool(self.argument)


KINDS = {
    "host": Kind("this machine; built-in: without XNNPACK", "nothing", "host:make", "[built-in]"),
    "c": Kind("the C program on this machine", "make, a C compiler", "native:make_local"),
    "arm64": Kind(
        "Cortex-A53, Cortex-A76 and Neoverse N1, emulated by qemu",
        "apt (for an arm64 Python, and qemu where version 10 is not there); 140 MB once, no root",
        "arm64:make",
    ),
    "browser": Kind(
        "LiteRT.js in this machine's Chromium; webgpu: on WebGPU, WebAssembly otherwise",
        "Chromium, npm",
        "browser:make",
        "[webgpu]",
    ),
    "adb": Kind(
        "the C program on a connected Android phone",
        "adb, apt, a compiler for ARM (`pip install ziglang`)",
        "native:make_adb",
    ),
    "ssh": Kind(
        "the C program on a Linux board",
        "ssh without a password, a compiler for its processor",
        "native:make_ssh",
        "HOST",
    ),
    "mediapipe": Kind(
        "MediaPipe's ImageSegmenter on the files of scores",
        "`pip install 'kfcn[mediapipe]'`",
        "mediapipe:make",
    ),
    "onnxruntime": Kind(
        "ONNX Runtime on what kfcn-export --format onnx wrote",
        "`pip install 'kfcn[onnx]'`",
        "exported:make_onnxruntime",
        "DIR",
    ),
    "openvino": Kind(
        "OpenVINO on what kfcn-export --format openvino wrote",
        "`pip install 'kfcn[openvino]'`",
        "exported:make_openvino",
        "DIR",
    ),
}


def spelled(name: str) -> str:
    """A kind with what may stand behind it: `host[:built-in]`, `ssh:HOST`."""
    argument = KINDS[name].argument
    if argument.startswith("["):
        return f"{name}[:{argument[1:]}"
    return f"{name}:{argument}" if argument else name


def make_targets(text: str, say: Say) -> list[Target]:
    """The targets that an argument names; `arm64` is three of them.

    Raises:
        TargetError: no such target.
    """
    name, _, rest = text.partition(":")
    if name not in KINDS or not KINDS[name].takes(rest):
        raise TargetError(
            f"{text!r}: no such target; expected one of {', '.join(map(spelled, KINDS))}"
        )
    module, _, function = KINDS[name].make.partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)(rest, say)
