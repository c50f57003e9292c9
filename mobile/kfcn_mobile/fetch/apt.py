"""Packages of another architecture, or of a newer suite, unpacked into a folder of our own.

A private apt: the machine's own sources and settings (proxies, keys), and every state, list and
archive in one folder. Nothing of the system is changed and no root is needed. apt checks each
package's sha256 against its signed index and takes up a broken download where it stopped.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kfcn_mobile.errors import MissingError

# Settings of the machine that would reach out of the folder, or run its hooks.
_LEFT_OUT = re.compile(r"^(Dir|DPkg|APT::Update|APT::Architecture|APT::Get|APT::Default-Release)\b")
_URI_LINE = re.compile(r"^'(?P<uri>[^']*)' (?P<file>\S+) (?P<size>\d+)\b")


@dataclass(frozen=True)
class Package:
    """A package that is to be fetched: its file's name and size in bytes."""

    file: str
    size: int


def codename() -> str:
    """The code name of this machine's release, such as `bookworm`; empty where it has none."""
    return _os_release().get("VERSION_CODENAME", "")


class PrivateApt:
    """An apt that lives in `folder`.

    Args:
        folder: for all its files.
        architecture: `arm64`, `amd64`, ...; the machine's own when None.
        suite: the release to take packages from; the machine's own when None.

    Raises:
        MissingError: this machine has no apt, or no sources of its distribution.
    """

    def __init__(self, folder: Path, architecture: str | None = None, suite: str | None = None):
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise MissingError("no apt-get on this machine; it is what fetches packages (Debian)")
        self.folder = folder
        architecture = architecture or _call(["dpkg", "--print-architecture"]).strip()
        own = codename()
        suite = suite or own
        sources = _machine_sources(own)
        if not sources or not suite:
            raise MissingError(f"apt has no source for the release {own or 'of this machine'!r}")
        for name in ("state/lists/partial", "cache/archives/partial", "none/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        keyring = Path(f"/usr/share/keyrings/{_os_release().get('ID', '')}-archive-keyring.gpg")
        signed = f" signed-by={keyring}" if keyring.exists() else ""
        lines = [
            f"deb [arch={architecture}{signed}] {uri} {suite + release[len(own) :]} main"
            for uri, release in sources
        ]
        (folder / "sources.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
        dump = _call(["apt-config", "dump"]).splitlines()
        settings = [line for line in dump if not _LEFT_OUT.match(line)]
        settings += [
            f'Dir::State "{folder}/state";',
            f'Dir::State::status "{folder}/status";',
            f'Dir::Cache "{folder}/cache";',
            f'Dir::Etc::sourcelist "{folder}/sources.list";',
            'Dir::Etc::sourceparts "/dev/null";',
            'Dir::Etc::parts "/dev/null";',
            'Dir::Etc::main "/dev/null";',
            f'APT::Architecture "{architecture}";',
            f'APT::Architectures {{ "{architecture}"; }};',
            # The sandbox user cannot write into a folder of this user's.
            'APT::Sandbox::User "";',
            'Acquire::Languages "none";',
        ]
        (folder / "apt.conf").write_text("\n".join(settings) + "\n", encoding="utf-8")

    def update(self) -> None:
        """Fetches the indexes."""
        self._apt("update", "-qq", "--error-on=any")

    def version(self, package: str) -> str:
        """The version of a package that would be taken, or an empty string."""
        found = re.search(r"^Version: (\S+)", self._apt_cache("show", package), re.MULTILINE)
        return found[1] if found else ""

    def plan(self, packages: Sequence[str], dependencies: bool = True) -> list[Package]:
        """What `fetch` of the same would unpack, whether it was downloaded already or not."""
        # apt leaves out what lies in its archives: it is shown others, which are empty.
        elsewhere = ["-o", f"Dir::Cache::archives={self.folder}/none/"]
        request = self._request(packages, dependencies)
        output = self._apt(*elsewhere, *request, "--print-uris", "-qq")
        matches = (_URI_LINE.match(line) for line in output.splitlines())
        found = [Package(m["file"], int(m["size"])) for m in matches if m]
        if not found:
            raise MissingError(f"apt has no package {' '.join(packages)}")
        return found

    def fetch(self, packages: Sequence[str], into: Path, dependencies: bool = True) -> None:
        """Downloads packages and unpacks them into a folder."""
        plan = self.plan(packages, dependencies)
        archives = self.folder / "cache" / "archives"
        self._apt(*self._request(packages, dependencies), "-qq", cwd=archives)
        for package in plan:
            name = package.file.replace("%3a", ":")
            deb = next((p for p in (archives / package.file, archives / name) if p.exists()), None)
            if deb is None:
                raise MissingError(f"apt did not fetch {package.file}")
            _call(["dpkg-deb", "-x", str(deb), str(into)])

    @staticmethod
    def _request(packages, dependencies):
        if dependencies:
            return ["install", "--download-only", "-y", "--no-install-recommends", *packages]
        return ["download", *packages]

    def _apt(self, *arguments: str, cwd: Path | None = None) -> str:
        return _call(["apt-get", "-c", str(self.folder / "apt.conf"), *arguments], cwd)

    def _apt_cache(self, *arguments: str) -> str:
        return _call(["apt-cache", "-c", str(self.folder / "apt.conf"), *arguments])


def _machine_sources(release: str) -> list[tuple[str, str]]:
    """Address and suite of the machine's own sources of its release, component main."""
    line = "$(CREATED_BY)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)"
    found = []
    for target in _call(["apt-get", "indextargets", "--format", line]).splitlines():
        created_by, uri, suite, component = target.split("\t")
        known = suite == release or suite.startswith(f"{release}-")
        if created_by == "Packages" and component == "main" and known and (uri, suite) not in found:
            found.append((uri, suite))
    return found


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip('"') for key, _, value in pairs}


def _call(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", cwd=cwd, check=False
    )
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
        reason = (reasons or done.stderr.splitlines() or [f"exit code {done.returncode}"])[0]
        raise MissingError(f"{' '.join(command[:1] + command[-2:])}: {reason}")
    return done.stdout
