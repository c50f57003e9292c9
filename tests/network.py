"""Two machines on one: network namespaces with an address each, and a line that can be spoilt."""

import contextlib
import fcntl
import heapq
import os
import select
import struct
import subprocess
import threading
import time

import pytest

ADDRESSES = ("10.77.0.1", "10.77.0.2")


class Line:
    """Carries packets between the namespaces `names`, late by `delay` s; none while it is `cut`.

    A TUN device in each: the kernel of many machines lacks the queue that delays packets (netem).
    """

    def __init__(self):
        self.names = [f"kfcn-test-{os.getpid()}-{number}" for number in range(2)]
        self.delay, self.cut = 0.0, False
        self.carried = 0
        self._ends: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self):
        try:
            for number, name in enumerate(self.names):
                _ip("netns", "add", name)
                self._ends.append(_tun(device := f"kfcn{os.getpid()}-{number}"[-15:]))
                _ip("link", "set", device, "netns", name)
                _ip("-n", name, "address", "add", f"{ADDRESSES[number]}/24", "dev", device)
                _ip("-n", name, "link", "set", device, "mtu", "9000", "up")
                _ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            self._remove()
            pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', '') or error}")
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self._remove()

    def _remove(self):
        for end in self._ends:
            os.close(end)
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def inside(self, number, command):
        """The command as one that runs at the address `ADDRESSES[number]`."""
        return ["ip", "netns", "exec", self.names[number], *command]

    def _carry(self):
        waiting, sent = [], 0
        while not self._over.is_set():
            rest = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.05
            for end in select.select(self._ends, [], [], min(rest, 0.05))[0]:
                packet, sent = os.read(end, 1 << 16), sent + 1
                if not self.cut:
                    to = self._ends[1 - self._ends.index(end)]
                    heapq.heappush(waiting, (time.monotonic() + self.delay, sent, to, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                *_, to, packet = heapq.heappop(waiting)
                if not self.cut:
                    self.carried += 1
                    with contextlib.suppress(OSError):  # its namespace is coming up
                        os.write(to, packet)


def _ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _tun(name):
    """A new TUN device, which lives as long as the descriptor that is returned."""
    end = os.open("/dev/net/tun", os.O_RDWR)
    tun, bare, set_interface = 0x0001, 0x1000, 0x400454CA  # <linux/if_tun.h>
    try:
        fcntl.ioctl(end, set_interface, struct.pack("16sH22x", name.encode(), tun | bare))
    except OSError:
        os.close(end)
        raise
    return end
