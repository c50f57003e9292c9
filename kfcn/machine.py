"""What this machine computes with, and how TensorFlow is to use its processor."""

import contextlib
import ctypes
import importlib.abc
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from kfcn.errors import KfcnError

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
ONEDNN_MOST = "ONEDNN_MAX_CPU_ISA"
WIDTHS = ("sse41", "avx", "avx2", "avx512")
"""What `ONEDNN_MOST` can keep oneDNN to, by how they begin; the widest last."""
_X86 = ("x86_64", "amd64")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def cpu_name() -> str:
    """The processor's name for itself, or its architecture where it has none."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def instruction_set() -> str:
    """The widest vectors of the processor: "avx512", "avx2", "" for neither or unknown.

    oneDNN can be kept from the widest by the environment variable `ONEDNN_MAX_CPU_ISA`.
    """
    flags = _cpu_info("flags").split()
    return next(
        (name for name, flag in (("avx512", "avx512f"), ("avx2", "avx2")) if flag in flags), ""
    )


def is_intel_avx512() -> bool:
    """Whether this is a processor of Intel's that has AVX-512."""
    return instruction_set() == "avx512" and _cpu_info("vendor_id") == "GenuineIntel"


def _cpu_info(entry: str) -> str:
    """An entry of the first processor in /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return ""
    found = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in found if name.strip() == entry), "")


def recycle_memory() -> None:
    """Has glibc keep up to half a gigabyte of freed memory for what comes next; without glibc none.

    By itself it gives large pieces back at once, and memory that is asked for anew is cleared page
    by page: a net's maps and weights for a new size of picture cost as much as computing it. And
    each thread has memory of its own, which the next one does not find. The commands of kfcn call
    this before there are threads; a program that calls `kfcn.predict` for pictures of many sizes
    may do the same.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, 512 << 20)
        if not mallopt(_M_MMAP_THRESHOLD, 256 << 20):
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that older versions take


def release_memory() -> None:
    """Gives the system the memory back that was freed in pieces; without glibc does nothing.

    glibc keeps it for what is allocated next. Where large and small pieces of many lifetimes take
    turns that fits ever less of it, and a long run grows, though nothing is leaked.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def use_onednn(wanted: bool = True) -> bool:
    """Has TensorFlow compute with the kernels of oneDNN on x86 processors.

    By itself TensorFlow does so only where the processor has AVX-512 with VNNI; on all others a
    training step took up to twice as long without them (docs/benchmarks.md). The commands of kfcn
    call this; a program that imports kfcn calls it **before anything imports TensorFlow**, which
    looks once, when it is loaded. The results differ within float32 rounding.

    Whoever has set the environment variable `TF_ENABLE_ONEDNN_OPTS` has chosen: it stays.

    Args:
        wanted: False for TensorFlow's own kernels.

    Returns:
        Whether TensorFlow computes, or will compute, with oneDNN.
    """
    if platform.machine().lower() not in _X86:
        return False  # other builds have no such switch
    value = os.environ.setdefault(ONEDNN, str(int(wanted)))
    if "tensorflow" not in sys.modules:
        return value != "0"
    on = onednn_is_on()
    if on != (value != "0"):
        warnings.warn(
            "kfcn.use_onednn was called after the import of TensorFlow, which computes "
            f"with{'' if on else 'out'} oneDNN in this process; call it first, or set "
            f"{ONEDNN}={value}",
            stacklevel=2,
        )
    return on


def import_tensorflow() -> None:
    """Imports TensorFlow now, without the notes that its C++ part prints at start-up.

    An import that fails still raises.
    """
    quiet_tensorflow()
    import tensorflow  # noqa: F401


def quiet_tensorflow() -> None:
    """Has TensorFlow print no notes at start-up, whoever imports it first.

    They come before any log level is looked at, straight to file descriptor 2.
    """
    if "tensorflow" in sys.modules or any(isinstance(f, _QuietTensorFlow) for f in sys.meta_path):
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.meta_path.insert(0, _QuietTensorFlow())


class _QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as the others would, and silences what it does while it is imported."""

    def find_spec(self, fullname, path, target=None):
        if fullname != "tensorflow":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                with without_notes():
                    execute(module)

            spec.loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Leaves out what libraries print to file descriptor 2, where no log level reaches them."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def cache_folder() -> Path:
    """Where kfcn keeps what it can make again: `kfcn` in the user's folder for caches.

    Raises:
        KfcnError: the user has no folder.
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    else:
        base = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or Path.home() / ".cache") / "kfcn"
    except RuntimeError:
        raise KfcnError(
            "this user has no home folder; expected one, or XDG_CACHE_HOME with a folder for caches"
        ) from None


def onednn_is_on() -> bool:
    """Whether TensorFlow, which is imported, computes with oneDNN in this process."""
    from tensorflow.python.util import _pywrap_util_port

    return bool(_pywrap_util_port.IsMklEnabled())


def onednn_instructions() -> str:
    """What oneDNN in TensorFlow, which is imported, may use: "sse41", "avx", "avx2" or "avx512".

    That is what the processor has, or what `ONEDNN_MAX_CPU_ISA` keeps oneDNN to. Empty where oneDNN
    is off, and where the instruction set is not known (`instruction_set`) or not that of x86.
    """
    own = instruction_set()
    if not own or not onednn_is_on():
        return ""
    kept_to = os.environ.get(ONEDNN_MOST, "").lower().replace("avx10", "avx512")
    # From the widest: the names begin alike. Another value is one that oneDNN does not heed.
    most = next((name for name in reversed(WIDTHS) if kept_to.startswith(name)), own)
    return min(own, most, key=WIDTHS.index)


def onednn_lacks_avx512() -> bool:
    """Whether TensorFlow, which is imported, computes with oneDNN and that without AVX-512.

    Where it is not known what oneDNN may use (`onednn_instructions`), this is False.
    """
    return onednn_instructions() not in ("", "avx512")
