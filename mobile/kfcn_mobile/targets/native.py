"""The C program of `c/` on a device: built here, copied there, run, its label maps fetched."""

import importlib.util
import json
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from kfcn_mobile.bundle import Bundle
from kfcn_mobile.console import Say
from kfcn_mobile.errors import TargetError
from kfcn_mobile.fetch.arm64_files import arm64_root, litert_library
from kfcn_mobile.runner import summary
from kfcn_mobile.targets import Outcome, Target, Timing
from kfcn_mobile.targets.devices import Adb, Device, Local, Ssh

SOURCES = Path(__file__).resolve().parent.parent / "c"
# The oldest glibc that LiteRT's own wheels run on.
GLIBC = "2.27"


def make_local(argument: str, say: Say) -> list[Target]:
    """The C program on this machine."""
    return [Native("c", Local(), say)]


def make_adb(argument: str, say: Say) -> list[Target]:
    """The C program on a connected Android device."""
    return [Native("adb", Adb(), say)]


def make_ssh(argument: str, say: Say) -> list[Target]:
    """The C program on the Linux machine `argument`."""
    return [Native(f"ssh:{argument}", Ssh(argument), say)]


class Native(Target):
    """The C program on a device.

    Args:
        name: as in the report.
        device: where to.
        say: gets lines for people.
    """

    def __init__(self, name: str, device: Device, say: Say):
        self.name, self._device, self._say = name, device, say
        self._made: Path | None = None

    @property
    def _folder(self) -> Path:
        if self._made is None:
            raise TargetError(f"{self.name} was not started")
        return self._made

    def start(self) -> None:
        self._made = Path(tempfile.mkdtemp(prefix="kfcn-native-"))
        processor = self._device.connect()
        program, library = build(processor, self._folder, self._say)
        files = {"segment": program, library.name: library}
        self._run = "./segment"
        if self._device.needs_glibc:
            loader, libraries = glibc(processor, program, self._say)
            files |= {path.name: path for path in (loader, *libraries)}
            self._run = f"./{loader.name} --library-path . ./segment"
        self._device.put(files)
        self._device.shell("chmod 755 segment" + " ld-*" * self._device.needs_glibc)
        self.machine = f"{self._device.describe()}, {processor}, C program"
        self._images = None

    def run(self, bundle: Bundle, model: dict, timing: Timing) -> Outcome:
        if self._images is None:
            self._images = self._put_images(bundle)
        self._device.put({"model.tflite": bundle.path / model["file"]})
        pairs = [name for i, ppm in enumerate(self._images) for name in (ppm, f"{i}.pgm")]
        self._segment(pairs)
        outputs = pairs[1::2]
        self._device.get(outputs, self._folder)
        labels = [_read_pgm(self._folder / name, bundle.size) for name in outputs]
        latency = []
        for threads in timing.threads if timing.runs else ():
            options = ["-t", str(threads), "-w", str(timing.warmup), "-r", str(timing.runs)]
            times = self._segment([*options, *pairs[:2]])["runs_ms"]
            latency.append(summary(times, threads))
        return Outcome(labels, latency)

    def close(self) -> None:
        if self._made:
            shutil.rmtree(self._made, ignore_errors=True)
            try:
                self._device.remove()
            except TargetError as error:
                self._say(f"{error}: its folder {self._device.folder} was not removed")

    def _put_images(self, bundle: Bundle) -> list[str]:
        names = []
        for i, golden in enumerate(bundle.golden):
            Image.fromarray(golden.image).save(self._folder / f"{i}.ppm")
            names.append(f"{i}.ppm")
        self._device.put({name: self._folder / name for name in names})
        return names

    def _segment(self, arguments: list[str]) -> dict:
        # LiteRT writes notes to standard error; adb's shell mixes them into the output.
        printed = self._device.shell(
            f"{self._run} model.tflite {shlex.join(arguments)} 2>log || "
            "{ tail -n 1 log >&2; exit 1; }"
        )
        return json.loads(printed.strip().splitlines()[-1])


def _read_pgm(path: Path, size: tuple[int, int]) -> np.ndarray:
    with Image.open(path) as picture:
        labels = np.array(picture)
    if labels.shape != size or labels.dtype != np.uint8:
        raise TargetError(f"{path.name}: a label map of {labels.shape}, expected {size}")
    return labels


def build(processor: str, folder: Path, say: Say) -> tuple[Path, Path]:
    """Compiles the C program for a processor (`x86_64` or `aarch64`).

    Returns:
        The program and the LiteRT library that it needs beside it.

    Raises:
        TargetError: no compiler, or it failed.
    """
    if platform.system() != "Linux":
        raise TargetError(f"the C program is built on Linux, this is {platform.system()}")
    own = platform.machine()
    if processor == own:
        library = _own_litert() / "libLiteRt.so"
    elif processor == "aarch64":
        library = litert_library(say)
    else:
        raise TargetError(f"the device's processor is {processor}, expected aarch64 or {own}")
    name = "segment" if processor == own else "segment-aarch64"
    variable = "CC" if processor == own else "AARCH64_CC"
    # In a folder of its own: make has no names with a space, which a path to here may hold.
    with tempfile.TemporaryDirectory(prefix="kfcn-c-") as build_folder:
        for source in SOURCES.iterdir():
            shutil.copy2(source, build_folder)
        (Path(build_folder) / library.name).symlink_to(library.resolve())
        command = ["make", "-s", f"LITERT={library.name}", f"{variable}={compiler(processor)}"]
        try:
            done = subprocess.run(
                [*command, name],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                cwd=build_folder,
            )
        except FileNotFoundError:
            raise TargetError("no 'make' on the PATH, which builds the C program") from None
        if done.returncode:
            raise TargetError(f"the C program does not build: {_cause(done.stderr)}")
        shutil.move(Path(build_folder) / name, folder / name)
    return folder / name, library


def _cause(printed: str) -> str:
    """The line of a compiler or linker that says what is wrong."""
    # Not the one that names the function it is in, nor the one that says that the linker failed.
    lines = [s for s in printed.splitlines() if not s.endswith(":") and "collect2" not in s]
    return next((s for s in lines if "error: " in s), lines[0] if lines else "make failed")


def compiler(processor: str) -> str:
    """The C compiler for a processor: the machine's own, a cross gcc, or that of `ziglang`.

    Raises:
        TargetError: there is none.
    """
    own = processor == platform.machine()
    for name in ("cc", "gcc", "clang") if own else (f"{processor}-linux-gnu-gcc",):
        if shutil.which(name):
            return name
    if importlib.util.find_spec("ziglang"):
        return f"{shlex.quote(sys.executable)} -m ziglang cc -target {processor}-linux-gnu.{GLIBC}"
    raise TargetError(
        f"no C compiler for {processor}: install {'gcc' if own else f'{processor}-linux-gnu-gcc'}"
        " or 'pip install ziglang'"
    )


def glibc(processor: str, program: Path, say: Say) -> tuple[Path, list[Path]]:
    """The dynamic loader and libraries that the program needs where there is no glibc.

    Android has a C library of its own; a glibc beside the program, started through its loader,
    lets the build for Linux run there.
    """
    if processor == platform.machine():
        printed = subprocess.run(
            ["ldd", str(program)],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            env={"LD_LIBRARY_PATH": str(_own_litert())},
        ).stdout
        words = [word for word in printed.split() if word.startswith("/")]
        paths = [Path(word) for word in words if "libLiteRt" not in word]
    else:
        root = arm64_root(say).root
        names = ("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libstdc++.so.6")
        names += ("libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1")
        paths = [next(root.rglob(name)) for name in names]
    (loader,) = (path for path in paths if path.name.startswith("ld-"))
    return loader, [path for path in paths if path != loader]


def _own_litert() -> Path:
    found = importlib.util.find_spec("ai_edge_litert")
    if found is None or not found.submodule_search_locations:
        raise TargetError("no LiteRT here; pip install ai-edge-litert")
    return Path(found.submodule_search_locations[0])
