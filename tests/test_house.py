"""The rooms of the code and the arrows between them; tests, tables and pages that agree with it."""

import dataclasses
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from imports import Import, circles, read_imports, sources
from test_docs import load_hooks

from kfcn import recipes
from kfcn.data.catalog import DATASETS, NAMES
from kfcn.data.dataset import Dataset
from kfcn.nets.architectures import ARCHITECTURES
from kfcn.nets.backbones import BACKBONES
from kfcn.training.settings import Settings

ROOT = Path(__file__).parents[1]
PACKAGES = {"tools": ROOT / "tools/kfcn_tools", "mobile": ROOT / "mobile/kfcn_mobile"}
"""Folders of `tests/` whose code is not in `kfcn/`."""


def room(folder: Path) -> Path:
    """The folder of the code that a folder of `tests/` is for."""
    first, *rest = folder.relative_to(ROOT / "tests").parts
    base = PACKAGES.get(first, ROOT / "kfcn" / first)
    return base.joinpath(*rest)


def test_a_folder_of_tests_is_a_folder_of_the_code():
    whole = {ROOT / "tests", ROOT / "tests" / "fuzz"}  # they test more than one room
    folders = {file.parent for file in (ROOT / "tests").rglob("test_*.py")} - whole
    assert len(folders) > 10
    assert not [folder for folder in folders if not room(folder).is_dir()]


def test_files_of_tests_have_names_of_their_own():
    """pytest collects no second file of a name where folders are not packages."""
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) > 100
    assert sorted(set(names)) == sorted(names)


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


def test_contributing_names_the_variables_that_tests_wait_for():
    """A test that is skipped where nobody knows of its variable runs nowhere."""
    files = (ROOT / "tests").rglob("*.py")
    lines = (line for file in files for line in file.read_text(encoding="utf-8").splitlines())
    asked = [line for line in lines if "os.environ" in line]
    names = {name for line in asked for name in re.findall(r'"(KFCN_[A-Z_]+)"', line)}
    assert {"KFCN_WEIGHTS", "KFCN_ANIMALS"} <= names
    said = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert not [name for name in sorted(names) if f"`{name}`" not in said]


FLOORS = (
    ("kfcn.errors", "kfcn.labels", "kfcn.machine", "kfcn.collectives", "kfcn.place", "kfcn"),
    ("kfcn.files", "kfcn.options", "kfcn.metrics", "kfcn.losses", "kfcn.graph", "kfcn.recipes"),
    ("kfcn.outputs", "kfcn.pages", "kfcn.visualize"),
    ("kfcn.nets.backbones", "kfcn.nets.architectures", "kfcn.nets.upsample"),
    ("kfcn.rewrite", "kfcn.crf"),
    ("kfcn.nets",),
    ("kfcn.fused",),
    ("kfcn.data.formats", "kfcn.data.grouping", "kfcn.data.reading"),
    ("kfcn.data.dataset", "kfcn.data.listing"),
    ("kfcn.data.sets",),
    ("kfcn.data.feed", "kfcn.data.audit"),
    ("kfcn.data.regrouped",),
    ("kfcn.data.catalog",),
    ("kfcn.data",),
    ("kfcn.data.prepare",),
    ("kfcn.pretrained",),
    ("kfcn.saved",),
    ("kfcn.cards",),
    ("kfcn.inference",),
    ("kfcn.training",),
    ("kfcn.labelling",),
    ("kfcn.commands",),
    ("kfcn_mobile.errors", "kfcn_mobile.console"),
    ("kfcn_mobile.fetch",),
    ("kfcn_mobile",),
    ("kfcn_tools",),
)
"""From the ground up; a module stands where the longest name that begins its own does."""

UPWARDS = {("kfcn.nets.weights", "kfcn.saved"), ("kfcn.pretrained", "kfcn.saved")}
"""Arrows upwards when a function is called: the weights of a net may lie in a model file."""


@pytest.fixture(scope="module")
def modules():
    return sources()


@pytest.fixture(scope="module")
def found(modules):
    return read_imports(modules)


def floor(module: str) -> int:
    """How high a module stands."""
    names = [(name, level) for level, row in enumerate(FLOORS) for name in row]
    above = [(len(n), level) for n, level in names if f"{module}.".startswith(f"{n}.")]
    return max(above)[1]


class TestImports:
    """Arrows run one way."""

    def test_no_circle(self, found, modules):
        assert len(modules) > 150 and len(found) > 900
        assert not circles(found, modules)

    def test_none_goes_up(self, found, modules):
        ours = [i for i in found if i.name in modules and not i.typing]
        up = {(i.module, i.name, i.lazy) for i in ours if floor(i.module) < floor(i.name)}
        assert not {arrow for arrow in up if not arrow[2]}
        assert {(module, name) for module, name, _ in up} == UPWARDS

    def test_packages_stay_apart(self, found):
        """Lazy imports and those for type checkers too."""
        apart = {
            "kfcn": ("kfcn_tools", "kfcn_mobile"),
            "kfcn_mobile": ("kfcn", "kfcn_tools", "tensorflow", "keras"),
        }
        for i in found:
            assert i.name.split(".")[0] not in apart.get(i.module.split(".")[0], ()), i

    def test_what_the_tools_take_of_the_mobile_package_is_what_contributing_says(self, found):
        text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        (said,) = re.findall(r"of `kfcn_mobile` the modules\s([^;]+);", text)
        taken = {i.name for i in found if i.module.startswith("kfcn_tools")}
        ours = {name for name in taken if name.startswith("kfcn_mobile")}
        assert ours == {f"kfcn_mobile.{name}" for name in re.findall(r"`([\w.]+)`", said)}

    def test_no_net_knows_a_data_set(self, found):
        rooms = ("kfcn.nets", "kfcn.rewrite", "kfcn.crf", "kfcn.fused", "kfcn.losses")
        ours = [i for i in found if i.module.startswith(rooms)]
        assert len(ours) > 100 and not [i for i in ours if i.name.startswith("kfcn.data")]

    def test_what_is_read_is_what_is_written(self, tmp_path):
        """Controls: a circle, a lazy arrow, one for type checkers only, a package's module."""
        (tmp_path / "a.py").write_text(
            "from typing import TYPE_CHECKING\nfrom p import b\n"
            "if TYPE_CHECKING:\n    import keras\nelse:\n    import os.path\n"
        )
        (tmp_path / "b.py").write_text(
            "def f():\n    import p.c\ntry:\n    from p.c import x\nfinally: 0"
        )
        (tmp_path / "c.py").write_text("class A:\n    import p.a\n")
        modules = sources({"p": tmp_path})
        found = read_imports(modules)
        assert set(found) == {
            Import("p.a", "typing", False, False),
            Import("p.a", "p.b", False, False),
            Import("p.a", "keras", False, True),
            Import("p.a", "os.path", False, False),
            Import("p.b", "p.c", True, False),
            Import("p.b", "p.c", False, False),
            Import("p.c", "p.a", False, False),
        }
        assert circles(found, modules) == [["p.a", "p.b", "p.c", "p.a"]]
        without = [i for i in found if i != Import("p.b", "p.c", False, False)]
        assert not circles(without, modules)


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.slow
def test_a_net_needs_no_data_set_and_no_picture_reader():
    """Keras itself imports OpenCV and Pillow where they are: here they are not."""
    done = python(
        "import sys; sys.modules['cv2'] = sys.modules['PIL'] = None\n"
        "import kfcn.nets.fcn\n"
        "print([name for name in sys.modules if name.startswith('kfcn.data')])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_modules_that_the_documentation_names_are_there_after_import_kfcn():
    done = python(
        "import kfcn\n"
        "kfcn.data.Source, kfcn.data.load, kfcn.crf.NO_WEIGHT_DECAY, kfcn.metrics.NAMES\n"
        "print(kfcn.losses.SegmentationLoss is kfcn.SegmentationLoss)"
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


class TestTables:
    """Help and documentation say what the light tables say."""

    @pytest.mark.parametrize(
        ("command", "flag", "names"),
        [
            ("train", "--arch", ARCHITECTURES),
            ("train", "--backbone", BACKBONES),
            ("train", "--recipe", recipes.names()),
            *((command, "--data", NAMES) for command in ("train", "evaluate", "tune_crf")),
        ],
    )
    def test_help(self, command, flag, names):
        parser = importlib.import_module(f"kfcn.commands.{command}").parser()
        (action,) = (a for a in parser._actions if flag in a.option_strings)
        for name in names:
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", action.help), name

    @pytest.mark.parametrize(
        ("page", "names"),
        [
            ("reference/nets.md", [*ARCHITECTURES, *BACKBONES]),
            ("reference/data-sets.md", NAMES),
            ("reference/settings.md", recipes.names()),
        ],
    )
    def test_documentation(self, page, names):
        text = load_hooks().on_page_markdown((ROOT / "docs" / page).read_text(encoding="utf-8"))
        for name in names:
            assert re.search(rf"(^### {name}$|^\| `{re.escape(name)}` \|)", text, re.M), name

    def test_every_row_leads_to_what_it_names(self):
        for row in (*ARCHITECTURES.values(), *BACKBONES.values()):
            assert callable(pkgutil.resolve_name(row.build))
        for name, row in DATASETS.items():
            assert row.reader.name == name
            assert row.reader.layout or not row.folder
            for reader in map(pkgutil.resolve_name, row.readers):
                assert issubclass(reader, Dataset)
                assert bool(reader.class_choices) <= bool(row.classes)
                for choice in reader.class_choices:
                    assert choice in row.classes

    def test_every_net_and_backbone_has_its_tests(self):
        """A subclass of `NetTests` in tests/nets, which says either."""
        texts = [file.read_text(encoding="utf-8") for file in (ROOT / "tests/nets").glob("*.py")]
        said = re.findall(r"\(NetTests\):\n    (arch|backbone) = \"([\w-]+)\"\n", "\n".join(texts))
        assert {name for kind, name in said if kind == "arch"} == {*ARCHITECTURES}
        of_base = {"mobilenet_v2"}
        assert {name for kind, name in said if kind == "backbone"} | of_base == {*BACKBONES}

    def test_options_of_backbones_are_settings(self):
        settings = {f.name for f in dataclasses.fields(Settings)}
        for row in BACKBONES.values():
            assert {*row.options} <= settings
        for row in ARCHITECTURES.values():
            assert {*row.head} <= settings
