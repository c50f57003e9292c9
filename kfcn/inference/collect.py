"""Which pictures a person means by files, folders, patterns and lists."""

import glob
import itertools
import operator
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from kfcn.data.formats.images import IMAGE_SUFFIXES
from kfcn.data.formats.lists import read_lines
from kfcn.data.formats.text import nfc
from kfcn.data.listing import find_file, left_out_notes
from kfcn.errors import UsageError, counted, shortlist
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
    own: set[Path] = set()
    for path in map(Path, images):
        if _is_pattern(path):
            inside = _matching(path)
            if not inside:
                raise UsageError(f"{path}: no file is named like this")
            own |= _results_among(inside)
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
    own |= _results_among(paths, as_written=True)
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
    own: set[Path] = set()
    for path in map(Path, images):
        if _is_pattern(path):
            own |= _results_among(_matching(path))
            continue
        if not path.is_dir():
            named += _listed(path) if _is_list(path) else [path]
            continue
        _, others, folders, results = _in_folder(path)
        notes += left_out_notes(path, others)
        if results:
            notes.append(_left_out_own(path, len(results)))
        if holding := _holding_images(folders):
            notes.append(
                f"{path}: left out {counted(len(holding), 'folder')} with images, to be "
                f"named themselves: {shortlist(holding)}"
            )
    own |= _results_among(named, as_written=True)
    counts = Counter(path.parent for path in own)
    return notes + [_left_out_own(folder, count) for folder, count in counts.items()]


def _left_out_own(folder, count):
    results = counted(count, "label map or overlay", "label maps and overlays")
    return f"{folder}: left out {results} that kfcn has written"


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path)) and not path.exists()


def _matching(pattern: Path) -> list[Path]:
    """The files that a pattern names, sorted; hidden ones are none of them."""
    found = map(Path, glob.glob(str(pattern), recursive=True))  # noqa: PTH207 (no hidden ones)
    return sorted(file for file in found if not file.is_dir())


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
    results = _own_results(Outputs(folder))
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


def _results_among(paths: Iterable[Path], as_written: bool = False) -> set[Path]:
    """Those that are results of kfcn.

    Args:
        paths: files.
        as_written: without those that have changed. What a folder or a pattern holds under the
            name of a result is one, corrected or not; who names it himself may mean a picture.
    """
    own = set()
    by_folder = operator.attrgetter("parent")
    for folder, inside in itertools.groupby(sorted(paths, key=by_folder), by_folder):
        outputs = Outputs(folder)
        results = _own_results(outputs)
        named = (path for path in inside if path.name in results)
        own.update(x for x in named if not as_written or outputs.state(x) is State.OURS)
    return own


def _own_results(outputs: Outputs) -> set[str]:
    """Names of label maps and overlays that kfcn has written beside pictures: those are none.

    Both of a pair: copies of pictures, which other commands of kfcn write, have no overlay.
    """
    written = outputs.names()
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
