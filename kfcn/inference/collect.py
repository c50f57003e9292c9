"""Which pictures a person means by files, folders, patterns and lists."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from kfcn.data.formats.images import IMAGE_SUFFIXES
from kfcn.data.formats.lists import read_lines
from kfcn.data.formats.text import nfc
from kfcn.data.listing import find_file, left_out_notes
from kfcn.errors import UsageError, shortlist
from kfcn.inference.formats.png import result_names
from kfcn.outputs import Outputs, State


def collect(images: Sequence[Path | str]) -> list[Path]:
    """All images that are meant, each once, in order.

    Folders and patterns (`*`, `?`, `[`) are sorted by name, without hidden files; a `.txt` file
    holds one path per line. Label maps and overlays that kfcn has written are left out, wherever
    they come from: the shell expands `g/*.jpg` to file names, overlays among them.

    Raises:
        UsageError: there is none, or two would be written to one file.
        DataError: a list is empty or not in UTF-8.
    """
    paths: list[Path] = []
    for path in map(Path, images):
        if _is_pattern(path):
            found = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 (no hidden ones)
            inside = sorted(file for file in found if not file.is_dir())
            if not inside:
                raise UsageError(f"{path}: no file is named like this")
            paths += inside
        elif _is_list(path):
            paths += _listed(path)
        elif path.is_dir():
            inside, others, folders, _ = _in_folder(path)
            if not inside:
                named = _holding_images(folders)
                raise UsageError(
                    f"{path}: no images"
                    + (f", only other files: {shortlist(others)}" if others else "")
                    + (f", but folders: {shortlist(named)}; name them" if named else "")
                    + f"; expected {', '.join(sorted(IMAGE_SUFFIXES))}"
                )
            paths += inside
        else:
            paths.append(path)  # a missing file is reported with the unreadable ones
    paths = list(dict.fromkeys(paths))  # `*.jpg a.jpg` names one twice
    own = _own_among(paths)
    if own and len(own) == len(paths):
        raise UsageError(
            f"{shortlist(paths)}: expected photographs; these are label maps and overlays "
            "that kfcn has written"
        )
    paths = [path for path in paths if path not in own]
    seen: dict[str, Path] = {}
    for path in paths:
        stem = nfc(path.stem)  # two spellings of one name on some disks
        if stem in seen:
            raise UsageError(
                f"{seen[stem]} and {path} would both be written to {stem}.png; rename one, or "
                "write them to different folders"
            )
        seen[stem] = path
    if not paths:
        raise UsageError("no image to segment; expected image files or folders of them")
    return paths


def left_out(images: Iterable[Path | str]) -> list[str]:
    """What lies in the folders that are meant and is not taken, a line for each folder."""
    notes, named = [], []
    for path in map(Path, images):
        if _is_pattern(path):
            named += map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
            continue
        if not path.is_dir():
            named += _listed(path) if _is_list(path) else [path]
            continue
        _, others, folders, own = _in_folder(path)
        notes += left_out_notes(path, others)
        if own:
            notes.append(_left_out_own(path, len(own)))
        if holding := _holding_images(folders):
            notes.append(
                f"{path}: left out its {len(holding)} folder(s) with images, which have to be "
                f"named themselves: {shortlist(holding)}"
            )
    counts = Counter(path.parent for path in _own_among(dict.fromkeys(named)))
    return notes + [_left_out_own(folder, count) for folder, count in counts.items()]


def _left_out_own(folder, count):
    return f"{folder}: left out {count} label maps and overlays that kfcn has written"


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path)) and not path.exists()


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and path.is_file()


def _listed(file: Path) -> list[Path]:
    """The files that a list names, seen from the working folder or from that of the list.

    A path may be quoted, have the separators of Windows, or an accent in another Unicode form than
    on the disk. One that leads to no file is given as it stands.
    """
    paths = []
    for line in read_lines(file):
        forms = dict.fromkeys((line, line.replace("\\", "/")))
        places = [place for form in forms for place in (Path(form), file.parent / form)]
        found = next(filter(None, map(find_file, places)), None)
        if found is not None or not line.startswith("#"):  # a comment
            paths.append(found or Path(line))
    return paths


def _in_folder(folder: Path) -> tuple[list[Path], list[str], list[Path], list[str]]:
    """The images of a folder, the names of other files, its folders, kfcn's results among them."""
    images, others, folders, own = [], [], [], []
    results = _own_results(folder)
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            folders.append(entry)
        elif entry.name in results:
            own.append(entry.name)
        elif _is_image(entry.name):
            images.append(entry)
        else:
            others.append(entry.name)
    return images, others, folders, own


def _own_among(paths: Iterable[Path]) -> set[Path]:
    """Those that are results of kfcn, as it wrote them: a corrected one may be a picture by now."""
    own = set()
    for folder, inside in _by_folder(paths).items():
        results, outputs = _own_results(folder), Outputs(folder)
        own |= {x for x in inside if x.name in results and outputs.state(x) is State.OURS}
    return own


def _by_folder(paths):
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    return folders


def _own_results(folder: Path) -> set[str]:
    """Names of label maps and overlays that kfcn has written beside pictures: those are none.

    Both of a pair: copies of pictures, which other commands of kfcn write, have no overlay.
    """
    written = Outputs(folder).names()
    pairs = [result_names(name.removesuffix(".png")) for name in written if name.endswith(".png")]
    return {name for pair in pairs if written.issuperset(pair) for name in pair}


def _holding_images(folders: Iterable[Path]) -> list[str]:
    """The names of those in which or below which images lie; links to folders are not followed."""

    def holds(folder):
        return any(
            _is_image(name) and not name.startswith(".")
            for _, _, names in os.walk(folder)
            for name in names
        )

    return [folder.name for folder in folders if holds(folder)]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (a name, no path)
