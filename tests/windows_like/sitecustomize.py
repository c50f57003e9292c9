"""Python as it is on Windows, as far as that can be played on Linux.

With this folder on PYTHONPATH every Python process loads it, children too. What Windows lacks is
taken away, what it refuses is refused, and the text encoding of a file must be given by kfcn's own
modules (run with PYTHONWARNDEFAULTENCODING=1).
"""

import os
import re
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path

for _name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[_name] = None  # `import` raises ImportError
_LACKING = """getuid geteuid getgid getegid fork forkpty killpg setsid getpgid getpgrp pread pwrite
sched_getaffinity statvfs fchmod chown mkfifo getloadavg sysconf O_DIRECTORY"""
for _name in _LACKING.split():
    if hasattr(os, _name):
        delattr(os, _name)
for _name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"):
    delattr(signal, _name)
warnings.filterwarnings("error", category=EncodingWarning, module=r"kfcn(_tools|_mobile)?(\.|$)")

# Removing a tree through the descriptors of folders is not done on Windows.
shutil._use_fd_functions = False
# Nor can an open file be unlinked: there, this is the same function.
tempfile.TemporaryFile = tempfile.NamedTemporaryFile

_ILLEGAL = re.compile(r'[<>:"|?*\\\x00-\x1f]|[ .]$|^(con|nul|aux|prn|com\d|lpt\d)(\.|$)', re.I)
_SYSTEM = ("/proc", "/dev", "/sys")
_busy = False


def _is_open(path):
    """Whether this process holds a file open or has it mapped into memory."""
    path = Path(path).resolve()
    if not path.is_file():
        return False
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if descriptor.readlink() == path:
                return True
        except OSError:
            continue
    return f" {path}\n" in Path("/proc/self/maps").read_text(encoding="utf-8")


def _refuse(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if not isinstance(path, (str, bytes)) or os.fsdecode(path).startswith(_SYSTEM):
            return
        path = os.fsdecode(path)
        if mode is None and Path(path).is_dir():
            raise PermissionError(13, "Permission denied (a folder is not opened)", path)
        if flags & os.O_CREAT:
            _check_name(path)
    elif event == "os.mkdir":
        _check_name(os.fsdecode(arguments[0]))
    elif event in ("os.rename", "os.remove"):
        for path in arguments[: 2 if event == "os.rename" else 1]:
            if isinstance(path, (str, bytes, os.PathLike)) and _is_open(os.fsdecode(path)):
                raise PermissionError(
                    13, "The file is in use by another process", os.fsdecode(path)
                )


def _check_name(path):
    if _ILLEGAL.search(Path(path).name):
        raise OSError(22, "Invalid argument (a name that Windows does not take)", path)


def _hook(event, arguments):
    global _busy
    if _busy or event not in ("open", "os.mkdir", "os.rename", "os.remove"):
        return
    _busy = True
    try:
        _refuse(event, arguments)
    finally:
        _busy = False


sys.addaudithook(_hook)

_rename, _fsync = os.rename, os.fsync


def _strict_rename(source, target, **options):
    if Path(target).exists():
        raise FileExistsError(17, "File exists", os.fspath(target))
    _rename(source, target, **options)


def _strict_fsync(descriptor):
    flags = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="utf-8")
    if int(flags.split("flags:")[1].split()[0], 8) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor (open for reading only)")
    _fsync(descriptor)


os.rename, os.fsync = _strict_rename, _strict_fsync
