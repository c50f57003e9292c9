"""Where things are kept that are fetched once."""

from pathlib import Path

import pytest
from kfcn_mobile.errors import MissingError
from kfcn_mobile.fetch.cache import cache_folder


def test_a_user_without_a_home_is_told_what_to_set(tmp_path, monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(MissingError, match=r"no folder to keep qemu in: .*; set XDG_CACHE_HOME"):
        cache_folder("qemu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder("qemu") == tmp_path / "cache" / "kfcn" / "qemu"
    assert (tmp_path / "cache" / "kfcn").is_dir()
