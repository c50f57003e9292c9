"""Machines that the C program is brought to: this one, an Android phone, a Linux board.

Each answers the same calls: `connect`, `put`, `shell`, `get`, `remove`. All files lie in one folder
of the device, which is removed at the end.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kfcn_mobile.errors import TargetError


class Device:
    """A machine with a shell. `folder` is where `put` writes and `shell` starts."""

    name = ""
    folder = ""
    # Whether its C library is another than glibc, so that glibc must be brought along.
    needs_glibc = False

    def connect(self) -> str:
        """Makes the folder; returns the processor as `uname -m` calls it.

        Raises:
            TargetError: the device cannot be reached.
        """
        self.folder = self._call(self.shell_command("mktemp -d")).strip()
        return self.shell("uname -m").strip()

    def describe(self) -> str:
        """What it is, for people."""
        return self.shell("uname -sr").strip()

    def shell_command(self, script: str) -> list[str]:
        """The command that runs a shell script on the device."""
        raise NotImplementedError

    def shell(self, script: str) -> str:
        """Runs a script in the folder and returns what it prints."""
        return self._call(self.shell_command(f"cd {shlex.quote(self.folder)} && {script}"))

    def put(self, files: dict[str, Path]) -> None:
        """Copies files to the folder under the given names."""
        raise NotImplementedError

    def get(self, names: Sequence[str], into: Path) -> None:
        """Copies files of the folder into a folder here."""
        raise NotImplementedError

    def remove(self) -> None:
        """Removes the folder."""
        if self.folder:
            self._call(self.shell_command(f"rm -rf {shlex.quote(self.folder)}"))
            self.folder = ""

    def _call(self, command: list[str], **options) -> str:
        try:
            if options.pop("text", True):
                options |= {"encoding": "utf-8", "errors": "replace"}
            done = subprocess.run(command, capture_output=True, check=False, **options)
        except FileNotFoundError:
            raise TargetError(f"{self.name}: no program {command[0]!r} on the PATH") from None
        if done.returncode:
            printed = done.stderr
            if isinstance(printed, bytes):
                printed = printed.decode(errors="replace")
            lines = [line for line in printed.strip().splitlines() if "error" in line.lower()]
            reason = (lines or printed.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise TargetError(f"{self.name}: {reason}")
        return done.stdout


class Local(Device):
    """This machine."""

    name = "c"

    def shell_command(self, script: str) -> list[str]:
        return ["sh", "-c", script]

    def put(self, files: dict[str, Path]) -> None:
        for name, path in files.items():
            shutil.copy(path, Path(self.folder) / name)

    def get(self, names: Sequence[str], into: Path) -> None:
        for name in names:
            shutil.copy(Path(self.folder) / name, into)


class Ssh(Device):
    """A Linux machine that `ssh HOST` reaches without a password, such as a Raspberry Pi."""

    def __init__(self, host: str):
        self.name, self._host = f"ssh:{host}", host
        self._control: str | None = None
        self._socket = ""  # until it is connected

    def connect(self) -> str:
        # One connection for all that follows: a small board takes a second for each new one.
        self._control = tempfile.mkdtemp(prefix="kfcn-ssh-")
        self._socket = f"{self._control}/socket"
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        # It stays in the background with its standard error: a file, for a pipe would not end.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
            try:
                done = subprocess.run(
                    ["ssh", "-M", "-N", "-f", "-S", self._socket, *options, "--", self._host],
                    stdout=subprocess.DEVNULL,
                    stderr=printed,
                    check=False,
                )
            except FileNotFoundError:
                raise TargetError(f"{self.name}: no program 'ssh' on the PATH") from None
            if done.returncode:
                printed.seek(0)
                lines = printed.read().strip().splitlines() or [f"exit code {done.returncode}"]
                raise TargetError(f"{self.name}: {lines[-1]}")
        return super().connect()

    def shell_command(self, script: str) -> list[str]:
        # `--`: a host that begins with a dash is no option.
        return ["ssh", "-S", self._socket, "--", self._host, script]

    def remove(self) -> None:
        try:
            super().remove()
        finally:
            if self._control and shutil.which("ssh"):
                end = ["ssh", "-S", self._socket, "-O", "exit", "--", self._host]
                subprocess.run(end, capture_output=True, check=False)
            if self._control:
                shutil.rmtree(self._control, ignore_errors=True)
                self._control = None

    def put(self, files: dict[str, Path]) -> None:
        with tempfile.TemporaryDirectory(prefix="kfcn-put-") as staging:
            for name, path in files.items():
                shutil.copy(path, Path(staging) / name)
            archive = self._call(["tar", "-C", staging, "-cf", "-", *files], text=False)
        script = f"tar -C {shlex.quote(self.folder)} -xf -"
        self._call(self.shell_command(script), input=archive, text=False)

    def get(self, names: Sequence[str], into: Path) -> None:
        script = f"tar -C {shlex.quote(self.folder)} -cf - {shlex.join(names)}"
        archive = self._call(self.shell_command(script), text=False)
        # Only names that were asked for: what comes back is another machine's word.
        self._call(["tar", "-C", str(into), "-xf", "-", *names], input=archive, text=False)


class Adb(Device):
    """A connected Android device. `ANDROID_SERIAL` chooses among several."""

    name = "adb"
    needs_glibc = True

    def connect(self) -> str:
        lines = self._call(["adb", "devices"]).splitlines()[1:]
        states = dict(line.split("\t")[:2] for line in lines if "\t" in line)
        serial = os.environ.get("ANDROID_SERIAL")
        ready = [name for name, state in states.items() if state.strip() == "device"]
        if serial not in ready and (serial or len(ready) != 1):
            found = ", ".join(f"{name} ({state.strip()})" for name, state in states.items())
            raise TargetError(
                f"adb: expected one connected device{f' {serial}' if serial else ''}, found"
                f" {found or 'none'}; ANDROID_SERIAL chooses"
            )
        self.folder = f"/data/local/tmp/kfcn-{os.getpid()}"
        self._call(self.shell_command(f"mkdir -p {self.folder}"))
        return self.shell("uname -m").strip()

    def describe(self) -> str:
        names = ("ro.product.manufacturer", "ro.product.model", "ro.build.version.release")
        maker, model, release = (self.shell(f"getprop {name}").strip() for name in names)
        return f"{maker} {model}, Android {release}"

    def shell_command(self, script: str) -> list[str]:
        return ["adb", "shell", script]

    def put(self, files: dict[str, Path]) -> None:
        for name, path in files.items():
            self._call(["adb", "push", str(path), f"{self.folder}/{name}"])

    def get(self, names: Sequence[str], into: Path) -> None:
        for name in names:
            self._call(["adb", "pull", f"{self.folder}/{name}", str(into / name)])
