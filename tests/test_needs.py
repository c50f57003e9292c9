"""What training, plots or conversion need is imported only there: a server can leave it out."""

import subprocess
import sys

import pytest
from shipping import picture

SERVING = ("keras", "tensorflow", "numpy", "PIL", "cv2", "tqdm", "filelock")
"""What docs/how-to/app.md names for `kfcn.predict`; these bring more by themselves."""
ELSEWHERE = (
    "matplotlib",
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
    from PIL import Image

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


def test_predict_runs_without_what_trains_plots_and_converts(model, tmp_path):
    done = run(PREDICT, ELSEWHERE, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out/one.png").is_file()


def test_the_documentation_names_what_predict_needs():
    from test_docs import ROOT

    page = (ROOT / "docs/how-to/app.md").read_text(encoding="utf-8")
    packages = {"PIL": "pillow", "cv2": "opencv-python-headless"}
    listed = page.split("pip install --no-deps")[0].split("```sh")[-1]
    for name in SERVING:
        assert packages.get(name, name) in listed, name


@pytest.mark.parametrize("name", ["cv2"])
def test_an_absent_package_that_predict_needs_is_seen(name, model, tmp_path):
    """The control: the list above holds nothing that could be left out as well."""
    done = run(PREDICT, (name,), tmp_path)
    assert done.returncode != 0 and name in done.stderr
