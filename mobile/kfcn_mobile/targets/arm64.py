"""64-bit ARM without a phone: LiteRT's arm64 build on processors that qemu plays.

The labels are those of the real instructions; the times are the emulator's and say nothing of a
phone's. On an ARM machine the same target runs natively.
"""

import os
import platform
import shutil
from pathlib import Path

from kfcn_mobile import bundle as bundle_module
from kfcn_mobile import description, gates, runner
from kfcn_mobile.bundle import Bundle
from kfcn_mobile.console import Say
from kfcn_mobile.errors import TargetError
from kfcn_mobile.fetch.arm64_files import arm64_root, find_qemu, qemu_version
from kfcn_mobile.runner import summary
from kfcn_mobile.targets import Outcome, Target, Timing
from kfcn_mobile.targets.host import Host, Interpreted

# Kernels differ by what a processor can: a53 has no dot product, a76 and n1 have; n1 is a server's.
CPUS = ("cortex-a53", "cortex-a76", "neoverse-n1")


def make(argument: str, say: Say) -> list[Target]:
    """One target for each processor, or the machine itself where it is an ARM."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return [Host("arm64")]
    return [Emulated(cpu, say) for cpu in CPUS]


class Emulated(Interpreted):
    """An arm64 Python under qemu-user.

    Args:
        cpu: a processor that qemu knows.
        say: gets lines for people, such as what is fetched.
    """

    emulated = True

    def __init__(self, cpu: str, say: Say):
        self.name = f"arm64 {cpu}"
        self._cpu, self._say = cpu, say

    def start(self) -> None:
        super().start()
        qemu = find_qemu(self._say)
        self._root = arm64_root(self._say)
        self._python = tuple(self._root.python_command(qemu, self._cpu))
        version = ".".join(map(str, qemu_version(qemu)))
        litert = self._root.versions["ai-edge-litert"]
        self.machine = f"qemu {version}, {self._cpu}, Python {self._root.python}, LiteRT {litert}"
        package = self._copy / "kfcn_mobile"
        package.mkdir()
        (package / "__init__.py").touch()
        for module in (runner, bundle_module, description, gates):
            shutil.copy(str(module.__file__), package)

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        labels, figures = self._label(bundle, bundle.path.resolve() / model["file"])
        if figures["machine"] != "aarch64":
            raise TargetError(f"{self.name}: ran on {figures['machine']}")
        # The golden images' own runs are all the timing that an emulator is worth.
        return Outcome(labels, [summary(figures["images_ms"], 1)] if timing.runs else [])

    @property
    def _copy(self) -> Path:
        """The folder of those modules that the emulated Python imports."""
        assert self._folder is not None, "the target is not started"
        return self._folder

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self._copy), str(self._root.root / "site")])
        return {"PYTHONHOME": str(self._root.root / "usr"), "PYTHONPATH": path}
