"""What an arm64 program needs where there is no arm64 machine: an emulator and a small Linux.

All of it goes into the user's cache, once, through the machine's own apt and pip: qemu-user, an
arm64 Python of the machine's own release, and the arm64 wheels of LiteRT and NumPy. apt checks its
packages against its signed indexes; the wheels are pinned here by version and sha256.
"""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from kfcn_mobile.console import Say
from kfcn_mobile.errors import MissingError
from kfcn_mobile.fetch.apt import PrivateApt, codename
from kfcn_mobile.fetch.cache import cache_folder, locked, made_whole

# Older ones crash in LiteRT's kernels, whatever the processor.
OLDEST_QEMU = 10
# The first suite after these that has a qemu new enough.
QEMU_SUITE = {"bookworm": "trixie"}
WHEELS = {
    "ai-edge-litert": (
        "2.3.0",
        {
            "3.11": "853fc608f96da87bd5f3458465dfb9abbf18d5ae6b94eceacead407146f175ae",
            "3.12": "9891611b23a87cc2ace60e4b5ee9a2ee6f0fb7f395f009470961ae6e6310e1b8",
            "3.13": "2ab71e4f5dfa65b3882634b42755f455f3e7415630d720200bd792733e15e257",
            "3.14": "899b41423b30f3cef1ce8a361443092fdeefc4d536132511634fa21548347b0a",
        },
    ),
    "numpy": (
        "2.4.6",
        {
            "3.11": "0ab0a9c4ffb1a6d95ef519fe4247dba8eb6b18ad93999f76b7f657039acabd47",
            "3.12": "5f9fb9157b4ce2971008323afe46053787b526ef624fea915b261468a8421a0f",
            "3.13": "72fbe16c6fac95aedf5937fa873445cec2110be35d8a4e9433d7501fd98dae6b",
            "3.14": "40fdc1ae7125e518ea98e53e69a4ebc27e1fd50510c47b7ea130cf21e5e1d42b",
        },
    ),
}
WHEEL_SIZES = {"ai-edge-litert": "15 MB", "numpy": "16 MB"}


@dataclass(frozen=True)
class Root:
    """A small arm64 Linux: Python with LiteRT and NumPy in `site`."""

    root: Path
    python: str
    versions: dict

    def python_command(self, qemu: Path, cpu: str) -> list[str]:
        """The command that starts its Python on a processor; PYTHONHOME must be `root/usr`."""
        program = self.root / "usr" / "bin" / f"python{self.python}"
        return [str(qemu), "-cpu", cpu, "-L", str(self.root), str(program)]


def qemu_version(program: Path | str) -> tuple[int, ...]:
    """The version of an emulator, such as (10, 0, 13).

    Raises:
        MissingError: it does not print one.
    """
    done = subprocess.run(
        [program, "--version"], capture_output=True, encoding="utf-8", check=False
    )
    found = re.search(r"version (\d+(?:\.\d+)+)", done.stdout)
    if not found:
        raise MissingError(f"{program} --version does not print a version: {done.stdout[:80]!r}")
    return tuple(int(n) for n in found[1].split("."))


def find_qemu(say: Say) -> Path:
    """An emulator of version 10 or newer: from the PATH, the cache, or fetched into it.

    Raises:
        MissingError: there is none and none can be fetched.
    """
    cached = cache_folder("qemu") / "usr" / "bin" / "qemu-aarch64"
    missing = "no qemu-aarch64 here"
    for name in ("qemu-aarch64", "qemu-aarch64-static"):
        if program := shutil.which(name):
            version = qemu_version(program)
            if version[0] >= OLDEST_QEMU:
                return Path(program)
            missing = f"{program} is qemu {'.'.join(map(str, version))}, which crashes in LiteRT"
    with locked(cached.parents[2]):
        if cached.exists() and qemu_version(cached)[0] >= OLDEST_QEMU:
            return cached
        try:
            return _fetch_qemu(cached, say)
        except MissingError as error:
            raise MissingError(
                f"{missing}; needs qemu-user {OLDEST_QEMU} or newer, which cannot be fetched:"
                f" {error}"
            ) from None


def _fetch_qemu(cached: Path, say: Say) -> Path:
    suite = QEMU_SUITE.get(codename())
    apt = PrivateApt(cache_folder("apt-qemu"), suite=suite)
    say(f"qemu-user: package indexes of {suite or codename()}, about 10 MB")
    apt.update()
    version = apt.version("qemu-user")
    upstream = re.match(r"(?:\d+:)?(\d+)", version)
    if not upstream or int(upstream[1]) < OLDEST_QEMU:
        raise MissingError(f"{suite or codename()} has qemu-user {version or 'not at all'}")
    (package,) = apt.plan(["qemu-user"], dependencies=False)
    say(f"qemu-user {version}: {package.size / 1e6:.1f} MB")
    folder = cached.parents[2]
    with made_whole(folder) as new:
        apt.fetch(["qemu-user"], new / "all", dependencies=False)
        (new / "usr" / "bin").mkdir(parents=True)
        # One emulator of some thirty is wanted; it is linked statically.
        shutil.copy2(new / "all" / "usr" / "bin" / cached.name, new / "usr" / "bin")
        shutil.rmtree(new / "all")
    shutil.rmtree(apt.folder)
    return cached


def fetch_wheels(names: list[str], python: str, folder: Path, say: Say) -> None:
    """Unpacks arm64 wheels of the pinned versions into `folder`; pip checks their sha256.

    Raises:
        MissingError: pip cannot fetch them, or none is pinned for this version of Python.
    """
    lines, sizes = [], []
    for name in names:
        version, hashes = WHEELS[name]
        if python not in hashes:
            raise MissingError(f"{name} {version} is not pinned for Python {python}")
        lines.append(f"{name}=={version} --hash=sha256:{hashes[python]}")
        sizes.append(f"{name} {version} (arm64): {WHEEL_SIZES[name]}")
    say(", ".join(sizes))
    downloads = cache_folder("wheels")
    downloads.mkdir(exist_ok=True)
    requirements = downloads / f"requirements-{python}-{'-'.join(names)}.txt"
    requirements.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "pip", "download"]
    command += ["--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", str(downloads)]
    command += ["--implementation", "cp", "--python-version", python]
    command += ["--abi", f"cp{python.replace('.', '')}"]
    for platform in ("manylinux_2_27_aarch64", "manylinux_2_28_aarch64"):
        command += ["--platform", platform]
    done = subprocess.run(
        [*command, "--requirement", str(requirements)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingError(f"pip cannot fetch {' and '.join(names)} for arm64: {reason}")
    for name in names:
        version, tag = WHEELS[name][0], f"cp{python.replace('.', '')}"
        (wheel,) = downloads.glob(f"{name.replace('-', '_')}-{version}-{tag}-{tag}-*aarch64.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        wheel.unlink()


def litert_library(say: Say) -> Path:
    """`libLiteRt.so` for arm64 Linux, from the pinned wheel."""
    version, hashes = WHEELS["ai-edge-litert"]
    folder = cache_folder(f"litert-{version}-aarch64")
    library = folder / "libLiteRt.so"
    with locked(folder):
        if not library.exists():
            with made_whole(folder) as new:
                # The library does not depend on the version of Python that its wheel is for.
                fetch_wheels(["ai-edge-litert"], min(hashes), new / "all", say)
                shutil.copy2(new / "all" / "ai_edge_litert" / library.name, new)
                shutil.rmtree(new / "all")
    return library


def arm64_root(say: Say) -> Root:
    """An arm64 Linux with Python, from the cache or fetched into it.

    Raises:
        MissingError: what is missing and why it cannot be fetched.
    """
    pins = {name: version for name, (version, _) in WHEELS.items()}
    root = cache_folder("arm64-" + "-".join([codename(), *pins.values()]))
    manifest = root / "kfcn.json"
    with locked(root):
        if not manifest.exists():
            _make_root(root, manifest.name, pins, say)
    info = json.loads(manifest.read_text(encoding="utf-8"))
    return Root(root, info["python"], pins)


def _make_root(root: Path, manifest: str, pins: dict, say: Say) -> None:
    apt = PrivateApt(cache_folder("apt-arm64"), architecture="arm64")
    say(f"arm64 Python of {codename()}: package indexes, about 10 MB")
    apt.update()
    found = re.match(r"3\.\d+", apt.version("python3-minimal"))
    if not found:
        raise MissingError(f"{codename()} has no python3 for arm64 in this machine's apt sources")
    python = found[0]
    packages = [f"python{python}-minimal", f"libpython{python}-stdlib", "libstdc++6"]
    plan = apt.plan(packages)
    say(f"arm64 Python {python}: {len(plan)} packages, {sum(p.size for p in plan) / 1e6:.1f} MB")
    with made_whole(root) as new:
        apt.fetch(packages, new)
        for name in ("lib", "bin"):
            # Newer releases keep everything under usr; the links come with a package left out here.
            if not (new / name).exists() and (new / "usr" / name).exists():
                (new / name).symlink_to(f"usr/{name}")
        fetch_wheels(list(pins), python, new / "site", say)
        for name in ("doc", "man", "locale", "perl5"):
            shutil.rmtree(new / "usr" / "share" / name, ignore_errors=True)
        if not (new / "usr" / "bin" / f"python{python}").exists():
            raise MissingError(f"the arm64 packages hold no python{python}")
        info = {"python": python, "packages": [package.file for package in plan]}
        (new / manifest).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(apt.folder)
