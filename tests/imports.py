"""Which module imports which, read from the sources."""

import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "kfcn": ROOT / "kfcn",
    "kfcn_tools": ROOT / "tools/kfcn_tools",
    "kfcn_mobile": ROOT / "mobile/kfcn_mobile",
}


class Import(NamedTuple):
    """An import of `name` in `module`; `lazy` inside of a function, `typing` for checkers only."""

    module: str
    name: str
    lazy: bool
    typing: bool


def sources(packages: dict[str, Path] = PACKAGES) -> dict[str, Path]:
    """Module name -> its file."""
    found = {}
    for package, folder in packages.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = file
    return found


def read_imports(modules: dict[str, Path]) -> list[Import]:
    """All imports of the modules; `from package import module` names the module."""
    return [
        found
        for module, file in modules.items()
        for found in _visit(ast.parse(file.read_text(encoding="utf-8")), module, modules)
    ]


def _visit(node, module, modules, lazy=False, typing=False):
    if isinstance(node, ast.Import):
        for name in node.names:
            yield Import(module, name.name, lazy, typing)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, f"{module}: expected absolute imports"
        for name in node.names:
            inner = f"{node.module}.{name.name}"
            yield Import(module, inner if inner in modules else node.module, lazy, typing)
    lazy = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _visit(
                    child, module, modules, lazy, typing or (guarded and field == "body")
                )


def circles(imports: list[Import], modules: dict[str, Path]) -> list[list[str]]:
    """Modules that need each other while they are imported, each circle as a path."""
    needs = {module: [] for module in modules}
    for found in imports:
        if found.name in modules and not found.lazy and not found.typing:
            needs[found.module].append(found.name)
    done, result = set(), []

    def walk(module, path):
        if module in path:
            result.append([*path[path.index(module) :], module])
            return
        if module not in done:
            for name in needs[module]:
                walk(name, [*path, module])
            done.add(module)

    for module in modules:
        walk(module, [])
    return result
