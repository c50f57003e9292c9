"""The documentation builds without a warning, agrees with the code, and its commands run."""

import dataclasses
import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kfcn_mobile.targets import KINDS
from kfcn_tools.export import FORMATS
from stand_ins import write_stand_ins

import kfcn
from kfcn import recipes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([\w-]*)\n(.*?)^```", re.M | re.S)


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path, *languages: str) -> list[str]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for language, text in found if not languages or language in languages]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> list[str]:
    lines = [line for block in fences(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def installs(command: str) -> bool:
    return "pip install" in command


def load_hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


def parsers() -> dict:
    """Command line, as it is typed -> its parser."""
    return {parser.prog: parser for parser in load_hooks().parsers()}


def flags(parser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        for inner in (action.choices or {}).values() if hasattr(action, "add_parser") else ():
            found |= flags(inner)
    return found


class _Parsed(Exception):  # noqa: N818 - it ends a `main` where it begins
    def __init__(self, parser):
        self.parser = parser


@functools.cache
def module_flags(name: str) -> set[str]:
    """The flags of `python -m NAME`, whose parser stands in its `main`."""
    if importlib.util.find_spec(name).submodule_search_locations:
        name = f"{name}.__main__"

    def parsed(parser, *args, **options):
        raise _Parsed(parser)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("argparse.ArgumentParser.parse_args", parsed)
        with pytest.raises(_Parsed) as caught:
            importlib.import_module(name).main([])
    return flags(caught.value.parser)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder


class TestSite:
    """What mkdocs makes of the pages, without a warning."""

    def test_it_has_every_page(self, site):
        for page in PAGES[1:]:
            path = page.relative_to(ROOT / "docs").with_suffix("")
            html = site / ("index.html" if path.name == "index" else f"{path}/index.html")
            assert html.is_file(), page

    def test_the_reference_has_every_flag_setting_name_and_recipe(self, site):
        reference = site / "reference"
        page = (reference / "commands/index.html").read_text()
        for prog, parser in parsers().items():
            assert f">{prog}<" in page, prog
            hidden = {"-h", "--help", "--version"}
            shown = {
                flag
                for action in parser._actions
                if action.help != "==SUPPRESS=="
                for flag in action.option_strings
            }
            for flag in shown - hidden:
                assert flag in page, f"{prog} {flag}"
        page = (reference / "settings/index.html").read_text()
        from kfcn.training.settings import Settings

        for field in dataclasses.fields(Settings):
            assert re.search(rf">{field.name}<", page), field.name
        for name in recipes.names():
            assert f">{name}<" in page, name
        page = (reference / "api/index.html").read_text()
        for name in kfcn.__all__:
            if name != "__version__":
                assert re.search(rf'id="kfcn\.([\w.]+\.)?{name}"', page), name

    def test_pages_load_nothing_from_other_hosts(self, site):
        for page in site.rglob("*.html"):
            loaded = re.findall(
                r'<(?:script|link|img)\b[^>]*?(?:src|href)="(https?:)?//', page.read_text()
            )
            assert not loaded, page


class TestReadme:
    """Short, and its links lead somewhere."""

    def test_at_most_700_words_and_one_screen_of_commands(self):
        readme = PAGES[0]
        assert len(readme.read_text(encoding="utf-8").split()) <= 700
        lines = [line for block in fences(readme, "sh", "python") for line in block.splitlines()]
        assert 5 < len(lines) <= 24

    @pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
    def test_links_lead_to_files(self, name):
        text = (ROOT / name).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            assert link.startswith("http") or (ROOT / link).exists(), link

    def test_public_names_for_type_checkers_are_those_of_the_table(self):
        """The names that `kfcn` imports lazily stand a second time, where editors read them."""
        source = (ROOT / "kfcn/__init__.py").read_text(encoding="utf-8")
        static = re.findall(r"^    from ([\w.]+) import (\w+) as (\w+)$", source, re.M)
        assert all(name == alias for _, name, alias in static)
        table = kfcn._PUBLIC | dict.fromkeys(kfcn._MODULES, "kfcn")
        assert {name: module for module, name, _ in static} == table


@pytest.mark.parametrize("page", PAGES, ids=page_name)
class TestText:
    """What a page says against the code."""

    def test_commands_have_flags_that_exist(self, page):
        known = parsers()
        for line in "\n".join(fences(page)).splitlines():
            # Also inside of `kfcn-launch ... -- kfcn-train`, Slurm files and YAML.
            for match in re.finditer(
                r"(?:^|[\s&])(kfcn-[a-z-]+|python -m kfcn_tools\.results)", line
            ):
                words = shlex.split(line[match.end() :].split("&&")[0], comments=True)
                if match[1] == "kfcn-launch":
                    words = words[: words.index("--") + 2]
                try:
                    known[match[1]].parse_args(words)
                except SystemExit as stop:
                    assert not stop.code, line

    def test_flags_and_modules_in_the_text_exist(self, page):
        known = {flag for parser in parsers().values() for flag in flags(parser)} | OTHERS
        text = prose(page)
        for quoted in re.findall(r"`([^`]+)`", text):
            run = re.search(r"python -m (kfcn_tools\.[\w.]+)", quoted)
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", quoted):
                there = module_flags(run[1]) if run else known
                assert flag in there, f"{flag} in `{quoted}`"
            for module in re.findall(r"python -m ([\w.]+)", quoted):
                assert importlib.util.find_spec(module), module
            for path in re.findall(r"^((?:kfcn|tools|mobile|docs|tests)/[\w./-]+)$", quoted):
                assert (ROOT / path).exists(), path


def test_flags_of_benchmarks_are_their_own():
    """The control: what one has, another has not."""
    assert "--ways" in module_flags("kfcn_tools.benchmarks.train")
    assert "--ways" not in module_flags("kfcn_tools.benchmarks.peers")
    assert "--help" in module_flags("kfcn_tools.benchmarks.labels")


OTHERS = {"--logdir", "--direct_num_workers", "--runner", "--output", "--nodata"}
"""Flags of other programs."""

SMALL = "--backbone mobilenet_v2 --alpha 0.35 --weights none"
SHORT = {
    # The pages' commands run as they stand, behind them what makes them short.
    "kfcn-train --recipe list": "",
    "kfcn-train --recipe camvid_fcn32s": f"--epochs 1 --crop 64 64 {SMALL}",
    "kfcn-train --init-from": "--epochs 1 --crop 64 64",
    "kfcn-data next": "--count 2",
    "kfcn-data suspects": "--epochs 1 --folds 2",
    "kfcn-train": f"--epochs 1 --crop 64 64 {SMALL}",
    "kfcn-launch": f"--epochs 1 --crop 64 64 {SMALL}",
    "kfcn-convert": "--calibration 4 --golden 2",
    "kfcn-tune-crf": "--images 2",
    "kfcn-heatmap MobileNetV2": "--weights classifier.weights.h5 --labels labels.txt",
    "kfcn-serve": "--write site",
}
SHORT_PYTHON = {
    "epochs=20": 'epochs=1, crop=(64, 64), backbone="mobilenet_v2", alpha=0.35, weights="none"'
}
FAILED_GATE = ("kfcn-validate", "kfcn-data check")
"""These answer 1 when they find something, and in a net of one epoch or drawn stripes they may."""


def shortened(command: str) -> str:
    command = command.split("  #")[0].rstrip()
    more = next((more for start, more in SHORT.items() if command.startswith(start)), "")
    return f"{command} {more}".rstrip()


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg"}


def missing(command: str) -> str | None:
    """What this machine lacks for a command; None where it runs."""
    if command.startswith("kfcn-serve") and not shutil.which("npm"):
        return "npm"
    if found := re.search(r"kfcn-export .*--format (\w+)", command):
        kind = FORMATS[found[1]]
        needs = (*kind.needs, *(kind.int8 or ())) if "--quantize" in command else kind.needs
        return next((name for name in needs if not importlib.util.find_spec(name)), None)
    names = re.findall(r"--target (\S+)", command)
    if not names:
        return None
    from ready import ready

    try:
        for name in names:
            kind = name.partition(":")[0]
            if KINDS[kind].argument != "DIR":
                ready(name)
            elif not importlib.util.find_spec(kind):  # the folder is made by the page itself
                return kind
    except pytest.skip.Exception as reason:
        return str(reason)
    return None


@pytest.fixture
def workplace(pairs, run, tmp_path):
    """A folder in which all that the pages name exists: data, pictures, a run, a bundle."""
    from shipping import tiny_bundle

    write_stand_ins(tmp_path, pairs)
    shutil.copytree(run.run_dir, tmp_path / "runs/mine")
    shutil.copytree(tiny_bundle(), tmp_path / "bundle")
    return tmp_path


def write_classifier(folder: Path) -> None:
    """What `kfcn-heatmap MobileNetV2` downloads otherwise; the weights are random."""
    import keras

    net = keras.applications.MobileNetV2(weights=None)
    net.save_weights(folder / "classifier.weights.h5")
    names = ["tabby", *(f"class {index}" for index in range(1, 1000))]
    (folder / "labels.txt").write_text("\n".join(names))


RUN = [page for page in PAGES if commands(page) or fences(page, "python")]


@pytest.mark.long
@pytest.mark.parametrize("page", RUN, ids=page_name)
def test_every_command_runs(page, workplace):
    lines = [line for line in commands(page) if not installs(line)]
    for made in ("runs/mine", "bundle"):  # by a command of the page itself
        if any(re.search(rf"--(run-dir|out) {made}\b", line) for line in lines):
            shutil.rmtree(workplace / made)
    if any("kfcn-heatmap" in line for line in lines):
        write_classifier(workplace)
    left_out = {}
    for line in lines:
        command = shortened(line)
        if lacking := missing(command):
            left_out[command] = lacking
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=workplace, env=environment(), capture_output=True,
            text=True, timeout=1800,
        )  # fmt: skip
        allowed = (0, 1) if command.startswith(FAILED_GATE) else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr, f"{command}\n{done.stderr[-3000:]}"
    for block in fences(page, "python"):
        for text, short in SHORT_PYTHON.items():
            block = block.replace(text, short)
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=workplace, env=environment(), capture_output=True,
            text=True, timeout=1800,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stderr[-3000:]}"
    if left_out:
        pytest.skip(f"the rest ran; not here: {left_out}")


@pytest.mark.long
def test_the_install_command_of_the_readme(tmp_path):
    """In a copy of the tracked files, as after `git clone`: a new environment and a first net."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (command,) = [line for line in commands(PAGES[0]) if installs(line) and "-e" not in line]
    outside = {k: v for k, v in environment().items() if k != "PYTHONPATH"}
    done = subprocess.run(
        ["bash", "-c", f"{command} --epochs 1"], cwd=tmp_path, env=outside, capture_output=True,
        text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "mean IoU" in done.stdout
    assert (tmp_path / "runs/scenes-fcn8s/model.keras").is_file()
