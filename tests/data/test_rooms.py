"""Arrows between the rooms of `kfcn.data` run one way: formats, sets, then feed and audit."""

import ast
from pathlib import Path

import pytest

import kfcn.data

ROOT = Path(kfcn.data.__file__).parent
FORBIDDEN = {
    "formats": ("dataset", "listing", "catalog", "sets", "feed", "audit", "prepare"),
    "sets": ("catalog", "feed", "audit", "prepare"),
    "feed": ("catalog", "sets", "audit", "prepare"),
    "audit": ("catalog", "sets", "feed", "prepare"),
}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{name.name}" for name in node.names))
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_no_room_imports_one_that_is_built_on_it(room):
    forbidden = tuple(f"kfcn.data.{name}" for name in FORBIDDEN[room])
    files = sorted((ROOT / room).glob("*.py"))
    found = [(f.name, name) for f in files for name in imports(f) if name.startswith(forbidden)]
    assert len(files) > 2 and not found
