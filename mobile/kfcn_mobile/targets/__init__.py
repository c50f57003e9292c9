"""Where the files of a bundle can be run: this machine, an emulated ARM, a browser, a phone.

Every target answers the same three calls, and the report does not care which one did::

    with target:                                # start: build, fetch, connect
        outcome = target.run(bundle, model, timing)
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kfcn_mobile.bundle import Bundle

Say = Callable[[str], None]


class TargetError(Exception):
    """A target that cannot be used here; the message is one line with the reason."""


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
            `runs`, and `peak_bytes` and `model_bytes` where the target can tell.
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
        machine: what it ran on, for people; known once it is started.
        emulated: whether its times are those of an emulator, which says nothing of the hardware.
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
        """Gives back what `start` took."""


def summary(times_ms, threads: int) -> dict[str, float | int]:
    """Median, 90th percentile and minimum of times in milliseconds."""
    return {
        "median_ms": float(np.median(times_ms)),
        "p90_ms": float(np.percentile(times_ms, 90)),
        "min_ms": float(np.min(times_ms)),
        "runs": len(times_ms),
        "threads": threads,
    }


def _host(rest: str, say: Say) -> list[Target]:
    from kfcn_mobile.targets.host import Host

    return [Host("host:built-in", xnnpack=False) if rest else Host()]


def _arm64(rest: str, say: Say) -> list[Target]:
    from kfcn_mobile.targets.arm64 import arm64_targets

    return arm64_targets(say)


def _browser(rest: str, say: Say) -> list[Target]:
    from kfcn_mobile.targets.browser import Browser

    return [Browser(say)]


def _c(rest: str, say: Say) -> list[Target]:
    from kfcn_mobile.targets.native import Local, Native

    return [Native("c", Local(), say)]


def _adb(rest: str, say: Say) -> list[Target]:
    from kfcn_mobile.targets.native import Adb, Native

    return [Native("adb", Adb(), say)]


def _ssh(rest: str, say: Say) -> list[Target]:
    from kfcn_mobile.targets.native import Native, Ssh

    return [Native(f"ssh:{rest}", Ssh(rest), say)]


def _mediapipe(rest: str, say: Say) -> list[Target]:
    from kfcn_mobile.targets.mediapipe import MediaPipe

    return [MediaPipe()]


@dataclass(frozen=True)
class Kind:
    """A kind of target, as it is named on the command line.

    Attributes:
        help: where it runs, in a few words.
        make: gives its targets, of what stands behind the colon.
        argument: what that may be: "HOST" is needed, "[built-in]" is this word or nothing.
    """

    help: str
    make: Callable[[str, Say], list[Target]]
    argument: str = ""

    def takes(self, rest: str) -> bool:
        """Whether this may stand behind the colon."""
        if self.argument.startswith("["):
            return rest in ("", self.argument[1:-1])
        return bool(rest) == bool(self.argument)


KINDS = {
    "host": Kind("this machine; built-in: without XNNPACK", _host, "[built-in]"),
    "c": Kind("the C program on this machine", _c),
    "arm64": Kind("three 64-bit ARM processors, emulated", _arm64),
    "browser": Kind("LiteRT.js in this machine's Chromium", _browser),
    "adb": Kind("an Android device by adb", _adb),
    "ssh": Kind("a machine by ssh", _ssh, "HOST"),
    "mediapipe": Kind("MediaPipe's ImageSegmenter on the files of scores", _mediapipe),
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
    return KINDS[name].make(rest, say)
