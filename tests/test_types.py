"""Every public function says what it takes and what it returns."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"kfcn": ROOT / "kfcn", "kfcn_tools": ROOT / "tools/kfcn_tools"}
PACKAGES |= {"kfcn_mobile": ROOT / "mobile/kfcn_mobile"}


def public_functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Module functions and methods whose name, and whose class's, has no underscore."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and (
                    not inner.name.startswith("_") or inner.name in ("__init__", "__call__")
                ):
                    yield f"{node.name}.{inner.name}", inner


def missing(function: ast.FunctionDef, method: bool) -> list[str]:
    """Arguments without a type, and `return`."""
    args = function.args
    static = any(getattr(d, "id", "") == "staticmethod" for d in function.decorator_list)
    named = [*args.posonlyargs, *args.args][1 if method and not static else 0 :]
    named += [*args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]
    names = [arg.arg for arg in named if arg.annotation is None and not arg.arg.startswith("_")]
    if function.returns is None and function.name != "__init__":
        names.append("return")
    return names


TO_DO = (
    "kfcn/data",
    "kfcn/fused",
    "kfcn/training",
    "kfcn/commands",
    "kfcn/inference",
    "mobile",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_are_annotated(package):
    count, found = 0, []
    for file in sorted(PACKAGES[package].rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for name, function in public_functions(tree):
            count += 1
            if str(file.relative_to(ROOT)).startswith(TO_DO):
                continue
            if names := missing(function, method="." in name):
                found.append(f"{file.relative_to(ROOT)}:{function.lineno} {name}: {names}")
    assert count > 20
    assert not found, "\n".join(found)


def test_the_check_sees_what_is_missing():
    tree = ast.parse("def f(a: int, b, *c, **d): ...\nclass A:\n    def g(self, x) -> int: ...\n")
    assert {n: missing(f, "." in n) for n, f in public_functions(tree)} == {
        "f": ["b", "c", "d", "return"],
        "A.g": ["x"],
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_says_that_it_is_typed(package):
    """PEP 561: without `py.typed` in the installed package its annotations are not read."""
    assert (PACKAGES[package] / "py.typed").is_file()
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    section = setup[setup.index("[options.package_data]") :].split("\n\n")[0]
    files = section.split(f"\n{package} =")[1].split("=")[0].split()
    assert "py.typed" in files


def test_pre_commit_checks_what_ci_checks():
    """Each hook is a line of .ci/run, word for word."""
    hooks = re.findall(r"entry: ([^,]+),", (ROOT / ".pre-commit-config.yaml").read_text())
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert len(hooks) >= 3
    for hook in hooks:
        assert hook in lines
