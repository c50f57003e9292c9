"""Where the files of a bundle can be run: this machine, an emulated ARM, a browser, a phone.

Every target answers the same three calls, and the report does not care which one did::

    with target:                                # start: build, fetch, connect
        outcome = target.run(bundle, model, timing)
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kfcn_mobile.bundle import Bundle

NAMES = ("host", "c", "arm64", "browser", "adb", "ssh:HOST")


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
    """

    labels: list[np.ndarray]
    latency: list[dict] = field(default_factory=list)


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

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        """Labels the golden images with one file.

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


def make_targets(text: str, say: Callable[[str], None]) -> list[Target]:
    """The targets that an argument names; `arm64` is three of them.

    Raises:
        TargetError: no such target.
    """
    kind, _, rest = text.partition(":")
    if kind == "host" and not rest:
        from kfcn_mobile.targets.host import Host

        return [Host()]
    if kind == "arm64" and not rest:
        from kfcn_mobile.targets.arm64 import arm64_targets

        return arm64_targets(say)
    if kind == "browser" and not rest:
        from kfcn_mobile.targets.browser import Browser

        return [Browser(say)]
    if (kind in ("c", "adb") and not rest) or (kind == "ssh" and rest):
        from kfcn_mobile.targets.native import Adb, Local, Native, Ssh

        device = {"c": Local, "adb": Adb, "ssh": lambda: Ssh(rest)}[kind]()
        return [Native(text, device, say)]
    raise TargetError(f"{text!r}: no such target; expected one of {', '.join(NAMES)}")
