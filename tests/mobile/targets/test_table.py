"""The table of targets is what the help, the reference and the command know."""

import importlib
from pathlib import Path

import pytest
from kfcn_mobile.errors import TargetError
from kfcn_mobile.targets import KINDS, make_targets, spelled
from kfcn_mobile.validate import parser

ROOT = Path(__file__).parents[3]


def test_help_and_documents_name_every_target():
    text = " ".join(parser().format_help().split())
    for name, kind in KINDS.items():
        assert f"{spelled(name)} ({kind.help})" in text
    assert "<!-- generated: targets -->" in (ROOT / "docs/how-to/device.md").read_text("utf-8")


@pytest.mark.parametrize("name", KINDS)
def test_every_row_can_be_made(name):
    module, _, function = KINDS[name].make.partition(":")
    make = getattr(importlib.import_module(f"kfcn_mobile.targets.{module}"), function)
    argument = "" if KINDS[name].takes("") else "board"
    targets = make(argument, print)
    assert targets and all(target.name.startswith(name) for target in targets)


def test_an_argument_stands_behind_the_colon():
    (target,) = make_targets("ssh:pi@board:22", print)
    assert target.name == "ssh:pi@board:22"


@pytest.mark.parametrize("text", ["", "host:x", "c:x", "ssh", "ssh:", "phone", "HOST"])
def test_anything_else_is_refused(text):
    with pytest.raises(TargetError, match=r"no such target; expected one of host\[:built-in\], c"):
        make_targets(text, print)


def test_litert_is_opened_in_one_place():
    files = [*(ROOT / "mobile/kfcn_mobile").rglob("*.py")]
    found = [f.name for f in files if "import Interpreter" in f.read_text("utf-8")]
    assert found == ["runner.py"]
