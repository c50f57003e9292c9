import os
import signal
import tempfile
from pathlib import Path

# Before TensorFlow is imported anywhere: its start-up notes bury the test output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

import filelock
import numpy as np
import pytest
from PIL import Image
from small_nets import settings

# A cache of their own: no test finds what another run of kfcn kept of a net. What targets have
# fetched (`python -m kfcn_mobile.targets`) stays in reach; without it their tests skip.
_USUAL = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kfcn"
_OWN = Path(tempfile.mkdtemp(prefix="kfcn-cache-"))
(_OWN / "kfcn").mkdir()
for _fetched in _USUAL.glob("[!.]*"):
    if _fetched.name != "outlines":
        (_OWN / "kfcn" / _fetched.name).symlink_to(_fetched.resolve())
os.environ["XDG_CACHE_HOME"] = str(_OWN)


@pytest.fixture
def with_a_terminal():
    """As where the tests were not started by nohup, whose SIGHUP is ignored by all below it."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder of all processes that test, and the lock with which one of them fills it."""
    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    return folder, filelock.FileLock(folder / "shared.lock")


@pytest.fixture(scope="session")
def pairs(shared):
    """A folder data set of 9 + 4 drawn pairs: a red square and a green disc on grey."""
    folder, lock = shared
    with lock:
        if not (folder / "pairs").exists():
            draw(folder / "pairs")
    return folder / "pairs"


def draw(root):
    root.mkdir()
    (root / "classes.txt").write_text("ground #808080\nsquare #ff0000\ndisc #00ff00\n")
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            height, width = rng.integers(40, 60, 2)
            image = rng.normal(128, 12, (height, width, 3))
            labels = np.zeros((height, width), np.uint8)
            y, x = rng.integers(0, 20, 2)
            image[y : y + 16, x : x + 16] += (90, -60, -60)
            labels[y : y + 16, x : x + 16] = 1
            rows, columns = np.ogrid[:height, :width]
            disc = (rows - 28) ** 2 + (columns - 28) ** 2 < 81
            image[disc] = image[disc] * 0.4 + (0, 120, 0)
            labels[disc] = 2
            labels[0] = 255
            name = f"{split}{index:02d}"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
                root / "images" / split / f"{name}.png"
            )
            Image.fromarray(labels).save(root / "labels" / split / f"{name}.png")


@pytest.fixture(scope="session")
def run(pairs, shared):
    """A finished training run of three epochs on the pairs.

    Who comes second is told again what the first has trained.
    """
    from kfcn import train

    folder, lock = shared
    with lock:
        return train(folder / "run", **settings(pairs))
