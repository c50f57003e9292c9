"""kfcn-serve with the nets that ship with kfcn: they can be named, and are shown without a name."""

import argparse
from collections.abc import Sequence

from kfcn_mobile import serve

from kfcn import pretrained


def parser() -> argparse.ArgumentParser:
    """The arguments of `kfcn-serve`."""
    return serve.parser(pretrained.names())


def main(argv: Sequence[str] | None = None) -> int:
    """The command `kfcn-serve`."""
    return serve.main(argv, {name: pretrained.folder(name) for name in pretrained.names()})
