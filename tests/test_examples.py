"""The notebooks run from top to bottom, with settings that make them short."""

import os
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = {
    "train_and_look": {"EPOCHS": 1},
    "classifier_to_heatmap": {"PATCHES": 300, "EPOCHS": 3},
    "label_few": {"EPOCHS": 1, "COUNT": 8},
    "convert_and_validate": {"EPOCHS": 1, "MODES": ("float32", "float16")},
}
"""What replaces the values of a notebook's cell with the tag `parameters`."""


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    """Figures go into the notebook, though the other tests draw for nobody."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")


def read(name):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def printed(book) -> str:
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def pictures(book) -> int:
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def execute(name, folder):
    """The notebook after it has run in `folder`, as a person would run it."""
    book = read(name)
    (given,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    for variable in SHORT[name]:
        assert f"\n{variable} = " in f"\n{given.source}"
    given.source += "".join(f"\n{k} = {v!r}" for k, v in SHORT[name].items())
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


def test_every_notebook_is_tested_and_stored_without_outputs():
    assert {file.stem for file in EXAMPLES.glob("*.ipynb")} == set(SHORT)
    for name in SHORT:
        for cell in read(name).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None, name


def test_onednn_is_chosen_before_anything_can_import_tensorflow():
    for name in SHORT:
        parameters, first, *_ = [cell for cell in read(name).cells if cell.cell_type == "code"]
        assert "import" not in parameters.source
        assert first.source.startswith("import kfcn\n\nkfcn.use_onednn();"), name


@pytest.mark.long
def test_train_and_look(tmp_path):
    book = execute("train_and_look", tmp_path)
    assert "mean IoU" in printed(book)
    assert pictures(book) == 3
    assert (tmp_path / "runs/scenes/model.keras").is_file()


@pytest.mark.long
def test_label_few(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    book = execute("label_few", tmp_path)
    text = printed(book)
    assert "8 of 72 pictures chosen, 8 have the same name as a labelled one" in text
    assert "4 corrected files kept as they are" in text
    assert len(list((tmp_path / "labelled").glob("*.json"))) == 16
    assert not list((tmp_path / "todo").glob("*.json"))
    assert (tmp_path / "suspects/suspects.html").is_file()
    assert "16 labelled: mean IoU" in text and "the label that was made wrong is at" in text
    assert pictures(book) == 1


@pytest.mark.slow
def test_classifier_to_heatmap(tmp_path):
    book = execute("classifier_to_heatmap", tmp_path)
    text = printed(book)
    difference = float(text.split("differs by ")[1].split()[0])
    assert difference < 1e-5
    assert "cells are 8 pixels apart" in text
    assert pictures(book) == 1


@pytest.mark.long
def test_convert_and_validate(tmp_path):
    book = execute("convert_and_validate", tmp_path)
    text = printed(book)
    assert "float32.tflite" in text and "100.000% equal labels" in text
    assert "uint8 equal: True" in text
    assert pictures(book) == 1
