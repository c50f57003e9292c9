"""Fills the marked places of the reference from the code, when mkdocs builds the pages.

A line `<!-- generated: NAME -->` in a page is replaced by what the function NAME here returns.
Docstrings are rendered by mkdocstrings (`::: kfcn.fcn8s`), not here.
"""

import argparse
import configparser
import html
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from kfcn_mobile.targets import KINDS, spelled

import kfcn
from kfcn import recipes as run_cards
from kfcn.data import catalog
from kfcn.nets import architectures as nets
from kfcn.nets.backbones import BACKBONES
from kfcn.training import settings as run_settings

ROOT = Path(__file__).parents[1]
MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.M)
MODULES = ("kfcn_tools.results",)
"""Modules that are run with `python -m` and belong in the reference beside the commands."""


def on_page_markdown(markdown: str, **_) -> str:
    """Called by mkdocs for every page."""
    return MARKER.sub(lambda match: GENERATED[match[1]](), markdown)


def parsers() -> Iterator[argparse.ArgumentParser]:
    """The parser of every command, in the order of `setup.cfg`."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    scripts = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    modules = [line.split("=")[1].split(":")[0].strip() for line in scripts]
    for module in (*modules, *MODULES):
        yield importlib.import_module(module).parser()


def commands() -> str:
    """A section for each command, with its flags."""
    return "\n\n".join(section for parser in parsers() for section in _sections(parser))


def _sections(parser: argparse.ArgumentParser) -> Iterator[str]:
    parts = [f"## {parser.prog}", parser.description or ""]
    inner: list[argparse.ArgumentParser] = []
    for group in parser._action_groups:
        actions = []
        for action in group._group_actions:
            if isinstance(action, argparse._SubParsersAction):
                inner += action.choices.values()
            elif action.help != argparse.SUPPRESS and action.dest not in ("help", "version"):
                actions.append(action)
        if actions:
            title = group.title if group.title not in ("options", "positional arguments") else ""
            parts += [f"**{title}**"] if title else []
            rows = [
                f"| {_code(_usage(action))} | {_cell(_help(action, parser))} |"
                for action in actions
            ]
            parts.append("\n".join(["| argument | |", "|---|---|", *rows]))
    yield "\n\n".join(part for part in parts if part)
    for subparser in inner:
        yield from _sections(subparser)


def _usage(action: argparse.Action) -> str:
    metavar = action.metavar
    if metavar is None:
        if action.choices is not None:
            metavar = "{" + ",".join(map(str, action.choices)) + "}"
        else:
            metavar = action.dest.upper()
    if isinstance(metavar, tuple):
        values = " ".join(metavar)
    elif action.nargs == 0:
        values = ""
    elif isinstance(action.nargs, int):
        values = " ".join([metavar] * action.nargs)
    else:
        values = {"+": f"{metavar} ...", "*": f"[{metavar} ...]", "?": f"[{metavar}]"}.get(
            str(action.nargs), metavar
        )
    return " ".join([", ".join(action.option_strings), values]).strip()


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    formatter = parser._get_formatter()
    return formatter._expand_help(action) if action.help else ""


def _code(text: str) -> str:
    """As HTML: between backticks a bar cannot be told from the next column."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def recipes() -> str:
    """The run card of every recipe."""
    return "\n\n".join(
        f"### {name}\n\n```text\n{run_cards.card(name).strip()}\n```" for name in run_cards.names()
    )


def settings() -> str:
    """Every field of `Settings`, in a table for each group."""
    return run_settings.reference()


def targets() -> str:
    """The places where `kfcn-validate` runs files."""
    rows = [
        f"| `{spelled(name)}` | {_cell(kind.help)} | {_cell(kind.needs)} |"
        for name, kind in KINDS.items()
    ]
    return "\n".join(["| `--target` | where | what it needs |", "|---|---|---|", *rows])


def more() -> str:
    """The public names that the page of the Python interface does not place itself."""
    placed = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8").split()
    names = [f"kfcn.{name}" for name in kfcn.__all__ if name != "__version__"]
    return "\n".join(f"::: {name}" for name in names if name not in placed)


def data_sets() -> str:
    """The table of data sets."""
    lines = [
        "| `--data` | what | `--data-dir` holds | splits | `--classes` |",
        "|---|---|---|---|---|",
    ]
    for name, row in catalog.DATASETS.items():
        lines.append(_row(f"`{name}`", row.about, row.reader.layout, row.splits, row.classes))
    about = "any data set of tensorflow_datasets with an image and a mask"
    name = catalog.NAMES[-1]
    lines.append(_row(f"`{name}`", about, "", "its own", catalog.CLASSES[name]))
    return "\n".join(lines)


def architectures() -> str:
    """The table of nets."""
    lines = ["| `--arch` | Python | what |", "|---|---|---|"]
    for name, row in nets.ARCHITECTURES.items():
        function = row.build.split(":")[1]
        public = f"`kfcn.{function}`" if function in kfcn.__all__ else ""
        lines.append(_row(f"`{name}`", public, row.about))
    return "\n".join(lines)


def backbones() -> str:
    """The table of backbones."""
    lines = ["| `--backbone` | options | what |", "|---|---|---|"]
    for name, row in BACKBONES.items():
        flags = ", ".join(f"`--{option.replace('_', '-')}`" for option in row.options)
        lines.append(_row(f"`{name}`", flags, row.about))
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


GENERATED = {
    function.__name__: function
    for function in (
        commands,
        more,
        recipes,
        settings,
        targets,
        data_sets,
        architectures,
        backbones,
    )
}
