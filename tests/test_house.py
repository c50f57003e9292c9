"""The tests have the rooms of the code, and CONTRIBUTING.md names what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"tools": ROOT / "tools/kfcn_tools", "mobile": ROOT / "mobile/kfcn_mobile"}
"""Folders of `tests/` whose code is not in `kfcn/`."""


def room(folder: Path) -> Path:
    """The folder of the code that a folder of `tests/` is for."""
    first, *rest = folder.relative_to(ROOT / "tests").parts
    base = PACKAGES.get(first, ROOT / "kfcn" / first)
    return base.joinpath(*rest)


def test_a_folder_of_tests_is_a_folder_of_the_code():
    folders = {file.parent for file in (ROOT / "tests").rglob("test_*.py")} - {ROOT / "tests"}
    assert len(folders) > 10
    assert not [folder for folder in folders if not room(folder).is_dir()]


def test_a_room_is_found():
    assert room(ROOT / "tests/data/sets") == ROOT / "kfcn/data/sets"
    assert room(ROOT / "tests/tools/convert") == ROOT / "tools/kfcn_tools/convert"


def rows() -> list[list[str]]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("## To add") :]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_contributing_names_files_and_what_is_in_them(row):
    """To add a thing: where it goes, what to copy, which test: all of it exists."""
    assert len(row) == 4
    names = [name for cell in row[1:] for name in re.findall(r"`([^`]+)`", cell)]
    paths = [ROOT / name for name in names if "/" in name]
    assert paths and not [path for path in paths if not path.exists()]
    files = [path for path in paths if path.is_file()]
    folders = [path for path in paths if path.is_dir()]
    texts = [file.read_text(encoding="utf-8") for file in files]
    texts += [
        file.read_text(encoding="utf-8") for folder in folders for file in folder.glob("*.py")
    ]
    for name in names:
        if "/" not in name and not name.endswith((".py", ".cfg", ".yml")):
            assert any(name in text for text in texts), name
