"""A private apt on a small package source of our own: what is fetched, unpacked, taken up again."""

import hashlib
import shutil
import subprocess

import pytest
from kfcn_mobile.errors import TargetError
from kfcn_mobile.fetch import apt

pytestmark = pytest.mark.skipif(
    not shutil.which("apt-get") or not shutil.which("dpkg-deb"), reason="needs apt (Debian)"
)


def make_package(folder, name, depends=""):
    """A package with one file, `usr/share/NAME`; returns its paragraph of the index."""
    root = folder / f"{name}-root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr" / "share").mkdir(parents=True)
    (root / "usr" / "share" / name).write_text(name)
    fields = f"Package: {name}\nVersion: 1:2.0-1\nArchitecture: arm64\nMaintainer: a <a@b.c>\n"
    fields += f"Description: test\n{f'Depends: {depends}' if depends else ''}".rstrip() + "\n"
    (root / "DEBIAN" / "control").write_text(fields)
    pool = folder / "pool"
    pool.mkdir(exist_ok=True)
    deb = pool / f"{name}_2.0-1_arm64.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", root, deb]
    subprocess.run(command, check=True, capture_output=True)
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    return f"{fields}Filename: pool/{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"


@pytest.fixture
def private(tmp_path, monkeypatch):
    source = tmp_path / "source"
    index = source / "dists" / "here" / "main" / "binary-arm64"
    index.mkdir(parents=True)
    paragraphs = [make_package(source, "net", "eyes"), make_package(source, "eyes")]
    (index / "Packages").write_text("\n".join(paragraphs))
    content = (index / "Packages").read_bytes()
    lines = "Suite: here\nCodename: here\nArchitectures: arm64\nComponents: main\nSHA256:\n"
    entry = f" {hashlib.sha256(content).hexdigest()} {len(content)} main/binary-arm64/Packages\n"
    (index.parents[1] / "Release").write_text(lines + entry)
    monkeypatch.setattr(apt, "codename", lambda: "here")
    # `copy:` brings files into the archives as a network does; `file:` would leave them.
    monkeypatch.setattr(apt, "_machine_sources", lambda release: [(f"copy:{source}", release)])
    monkeypatch.setattr(apt, "_os_release", lambda: {"ID": "no-such-system"})
    private = apt.PrivateApt(tmp_path / "apt", architecture="arm64")
    sources = private.folder / "sources.list"
    sources.write_text(sources.read_text().replace("arch=arm64", "arch=arm64 trusted=yes"))
    private.update()
    return private


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_package_comes_with_what_it_depends_on(private, tmp_path):
    plan = private.plan(["net"])
    assert sorted(package.file.split("_")[0] for package in plan) == ["eyes", "net"]
    assert all(package.size > 100 for package in plan)
    assert private.version("net") == "1:2.0-1"
    private.fetch(["net"], tmp_path / "out")
    assert files(tmp_path / "out") == ["eyes", "net"]
    private.fetch(["net"], tmp_path / "alone", dependencies=False)
    assert files(tmp_path / "alone") == ["net"]


def test_what_was_fetched_before_is_unpacked_too(private, tmp_path):
    """As after a stop between the download and its use."""
    private.fetch(["net"], tmp_path / "first")
    assert len(private.plan(["net"])) == 2
    private.fetch(["net"], tmp_path / "second")
    assert files(tmp_path / "second") == ["eyes", "net"]


def test_a_changed_package_is_refused(private, tmp_path):
    deb = next((tmp_path / "source" / "pool").glob("net_*"))
    deb.write_bytes(deb.read_bytes()[:-1] + b"x")
    with pytest.raises(TargetError, match="Hash Sum mismatch"):
        private.fetch(["net"], tmp_path / "out")
    assert not (tmp_path / "out" / "usr").exists()


def test_an_unknown_package_is_one_line(private, tmp_path):
    with pytest.raises(TargetError, match="Unable to locate package nothing"):
        private.fetch(["nothing"], tmp_path / "out")
