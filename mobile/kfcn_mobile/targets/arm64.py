"""64-bit ARM without a phone: LiteRT's arm64 build on processors that qemu plays.

The labels are those of the real instructions; the times are the emulator's and say nothing of a
phone's. On an ARM machine the same target runs natively.
"""

import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from kfcn_mobile import bundle as bundle_module
from kfcn_mobile import gates, runner
from kfcn_mobile.bundle import Bundle, BundleError
from kfcn_mobile.fetch.arm64_files import Say, arm64_root, find_qemu, qemu_version
from kfcn_mobile.targets import Outcome, Target, TargetError, Timing, summary
from kfcn_mobile.targets.host import Host

# Kernels differ by what a processor can: a53 has no dot product, a76 and n1 have; n1 is a server's.
CPUS = ("cortex-a53", "cortex-a76", "neoverse-n1")


def arm64_targets(say: Say) -> list[Target]:
    """One target for each processor, or the machine itself where it is an ARM."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return [Host("arm64")]
    return [Emulated(cpu, say) for cpu in CPUS]


class Emulated(Target):
    """An arm64 Python under qemu-user.

    Args:
        cpu: a processor that qemu knows.
        say: gets lines for people, such as what is fetched.
    """

    emulated = True

    def __init__(self, cpu: str, say: Say):
        self.name = f"arm64 {cpu}"
        self._cpu, self._say = cpu, say
        self._folder = None

    def start(self) -> None:
        self._qemu = find_qemu(self._say)
        self._root = arm64_root(self._say)
        version = ".".join(map(str, qemu_version(self._qemu)))
        litert = self._root.versions["ai-edge-litert"]
        self.machine = f"qemu {version}, {self._cpu}, Python {self._root.python}, LiteRT {litert}"
        self._folder = Path(tempfile.mkdtemp(prefix="kfcn-arm64-"))
        package = self._folder / "kfcn_mobile"
        package.mkdir()
        (package / "__init__.py").touch()
        for module in (runner, bundle_module, gates):
            shutil.copy(module.__file__, package)

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        images, labels = self._folder / "images.npy", self._folder / "labels.npy"
        if not images.exists():
            np.save(images, np.stack([golden.image for golden in bundle.golden]))
        labels.unlink(missing_ok=True)
        file = bundle.path.resolve() / model["file"]
        arguments = ["-m", "kfcn_mobile.runner", str(file)]
        arguments += ["--images", str(images), "--labels", str(labels)]
        command, environment = self._root.command(self._qemu, self._cpu, *arguments)
        path = os.pathsep.join([str(self._folder), str(self._root.root / "site")])
        environment = {**os.environ, **environment, "PYTHONPATH": path}
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise BundleError(f"{file}: fails on {self.name} ({reason})")
        told = json.loads(done.stdout.splitlines()[-1])
        if told["machine"] != "aarch64":
            raise TargetError(f"{self.name}: ran on {told['machine']}")
        # The pictures' own runs are all the timing that an emulator is worth.
        latency = [summary(told["images_ms"], 1)] if timing.runs else []
        return Outcome(list(np.load(labels, allow_pickle=False)), latency)

    def close(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
