"""What training, plots or conversion need is imported only there: a server can leave it out."""

import configparser
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from imports import read_imports, sources
from PIL import Image
from shipping import picture

import kfcn

ROOT = Path(__file__).parents[1]
SERVING = ("tensorflow", "keras", "numpy", "PIL", "cv2", "tqdm", "filelock")
"""What docs/how-to/app.md names for `kfcn.predict`; these bring more by themselves."""
LITERT = ("ai_edge_litert", "numpy", "PIL", "cv2", "h5py", "tqdm", "filelock")
"""What it names for `kfcn-predict` with a net that ships or that the cache knows."""
ELSEWHERE = (
    "matplotlib",
    "tensorboard",
    "tensorflow_datasets",
    "array_record",
    "ai_edge_litert",
    "litert_quantizer",
    "importlib_resources",
    "kfcn_tools",
    "kfcn_mobile",
)
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def model(tmp_path):
    """An untrained net of three classes, as a file, and a picture."""
    import keras

    from kfcn.nets.convnet import convnet

    Image.fromarray(picture(0)).save(tmp_path / "one.png")
    keras.Model.save(convnet(3, width=4), tmp_path / "model.keras")
    return tmp_path / "model.keras"


def run(code: str, names: tuple[str, ...], folder) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=set(names)) + code],
        capture_output=True, text=True, timeout=300, cwd=folder,
    )  # fmt: skip


PREDICT = "import kfcn; kfcn.predict('model.keras', ['one.png'], 'out')"


@pytest.mark.slow
def test_predict_runs_without_what_trains_plots_and_converts(model, tmp_path):
    done = run(PREDICT, ELSEWHERE, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out/one.png").is_file()


def test_a_shipped_net_needs_litert_only(tmp_path):
    from kfcn.inference.runtime.net import open_net

    net, _ = open_net("voc_animals")
    photo = Path(kfcn.pretrained.path("voc_animals", "example_2.jpg"))
    code = (
        "from kfcn.commands.predict import main\n"
        f"raise SystemExit(main(['voc_animals', {str(photo)!r}, '--out', 'out']))"
    )
    done = run(code, (*{*SERVING, *ELSEWHERE, "scipy"} - {*LITERT},), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    with Image.open(photo) as image, Image.open(tmp_path / "out/example_2.png") as labels:
        expected = net.labels(np.array(image.convert("RGB"))[None])[0]
        np.testing.assert_array_equal(np.array(labels), expected)
    assert 0 < expected.mean() < expected.max()


@pytest.mark.parametrize("names", [SERVING, LITERT])
def test_the_documentation_names_what_predict_needs(names):
    page = (ROOT / "docs/how-to/app.md").read_text(encoding="utf-8")
    packages = {
        "PIL": "pillow",
        "cv2": "opencv-python-headless",
        "ai_edge_litert": "ai-edge-litert",
    }
    lines = [line for line in page.splitlines() if line.startswith("pip install ")]
    assert f"pip install {' '.join(packages.get(name, name) for name in names)}" in lines


@pytest.mark.parametrize("name", ["cv2"])
def test_an_absent_package_that_predict_needs_is_seen(name, model, tmp_path):
    """The control: the list above holds nothing that could be left out as well."""
    done = run(PREDICT, (name,), tmp_path)
    assert done.returncode != 0 and name in done.stderr


def test_the_documentation_names_the_oldest_tensorflow_and_keras():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["install_requires"].splitlines()
    bounds = dict(re.findall(r"^(tensorflow|keras) >=([\d.]+),<", "\n".join(lines), re.M))
    page = (ROOT / "docs/reference/platforms.md").read_text(encoding="utf-8")
    assert f"\n| {bounds['tensorflow']} | {bounds['keras']} |" in page


PEERS = {"albumentations", "keras_hub", "torch", "torchvision"}
"""What benchmarks compare with where it is installed."""
OTHERWISE = {"pydensecrf": "pydensecrf2"}
"""Distributions of another name than their package's, which need not be installed here."""


def declared() -> set[str]:
    """The distributions that setup.cfg names, needed or of an extra."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    names = (re.match(r"[\w-]+", line) for text in wanted for line in text.splitlines())
    return {normalised(name[0]) for name in names if name}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_is_declared():
    """What another package brings today it may leave out tomorrow."""
    imported = {i.name.partition(".")[0] for i in read_imports(sources())}
    imported -= {*sys.stdlib_module_names, "kfcn", "kfcn_tools", "kfcn_mobile", *PEERS}
    assert {"PIL", "cv2", "google", "numpy"} < imported
    brought = importlib.metadata.packages_distributions()
    missing = [
        name
        for name in sorted(imported)
        if not declared() & {normalised(d) for d in brought.get(name, [OTHERWISE.get(name, name)])}
    ]
    assert not missing
