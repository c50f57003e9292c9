#!/usr/bin/env python3
"""What `adb` does with one connected device, played by a folder of this machine.

FAKE_ADB_ROOT is the device's /data/local/tmp. FAKE_ADB_MACHINE is what `uname -m` says; with
aarch64 the program's own loader is run by the emulator FAKE_ADB_QEMU. FAKE_ADB_DEVICES is what
stands under "List of devices attached".
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = os.environ["FAKE_ADB_ROOT"]
REMOTE = "/data/local/tmp"


def local(path):
    assert path.startswith(REMOTE + "/"), f"{path} is not under {REMOTE}"
    return ROOT + path[len(REMOTE) :]


def main(command, *arguments):
    with Path(ROOT, "calls").open("a") as calls:
        print(command, *arguments, file=calls)
    if command == "devices":
        print("List of devices attached")
        print(os.environ.get("FAKE_ADB_DEVICES", "emulator-5554\tdevice\n"))
    elif command == "push":
        shutil.copyfile(arguments[0], local(arguments[1]))
    elif command == "pull":
        shutil.copyfile(local(arguments[0]), arguments[1])
    elif command == "shell":
        script = arguments[0].replace(REMOTE, ROOT)
        script = script.replace("uname -m", f"echo {os.environ['FAKE_ADB_MACHINE']}")
        for name, value in (("manufacturer", "Acme"), ("model", "Phone 1"), ("release", "15")):
            script = script.replace(f"getprop ro.product.{name}", f"echo {value}")
            script = script.replace(f"getprop ro.build.version.{name}", f"echo {value}")
        emulator = os.environ.get("FAKE_ADB_QEMU")
        if emulator:
            script = script.replace("./ld-linux", f"{emulator} ./ld-linux")
        return subprocess.run(["sh", "-c", script], check=False).returncode
    else:
        sys.exit(f"fake adb: no command {command}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
