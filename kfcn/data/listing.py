"""The files of a data set by their names: found, paired, divided into splits."""

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kfcn.data.formats.images import IMAGE_SUFFIXES, decoding
from kfcn.data.formats.label_maps import LABEL_SUFFIXES, no_mask
from kfcn.data.formats.text import nfc
from kfcn.errors import DataError, counted, received, shortlist
from kfcn.files import broken_link, open_file

MASK_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt", "-mask", "-label")
"""What a mask's stem may have after the stem of its image."""
NO_LABEL_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".npy", ".npz"})
"""What masks are found as and cannot be read from."""

# How folders and lists are called that hold a split.
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class Listing(NamedTuple):
    """The files below a folder that have the right suffix, and those that do not.

    Attributes:
        files: relative path without suffix, with slashes and in one Unicode form -> file; in the
            order of the names.
        left_out: relative paths of the others; hidden ones are not mentioned.
    """

    files: dict[str, Path]
    left_out: list[str]


def list_files(
    folder: Path,
    suffixes: frozenset[str],
    deep: bool = True,
    besides: frozenset[str] = frozenset(),
) -> Listing:
    """Finds files by suffix, of any case, in a folder and those in it.

    Hidden files and folders (`.cache`, the `._x.jpg` of macOS) are no part of a data set.

    Args:
        folder: where to look; links to folders are followed, each once.
        suffixes: of the files that are wanted, in lower case.
        deep: follow the folders within.
        besides: suffixes that are taken where no wanted file has the same name.

    Raises:
        DataError: there is no such folder, two files share a name, or one is not in UTF-8.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    second: dict[str, Path] = {}
    left_out = []
    for name in sorted(_walk(folder, deep)):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in suffixes and suffix not in besides:
            left_out.append(name)
            continue
        if not _is_utf8(name):
            raise DataError(f"{folder}: the name {received(name)} is not in UTF-8; rename the file")
        place, key = folder / name, nfc(name[: len(name) - len(suffix)])
        if suffix not in suffixes:
            second[key] = place
        elif key in files:
            raise DataError(
                f"{folder}: {files[key].relative_to(folder).as_posix()} and {name} have the same "
                "stem; expected one file per stem"
            )
        else:
            files[key] = place
    for key, place in second.items():
        files.setdefault(key, place)
    return Listing(dict(sorted(files.items())), left_out)


def _is_utf8(name: str) -> bool:
    """Whether a name can be written into a list or a record; Linux takes any bytes for a name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_file(folder: Path, suffixes: frozenset[str], deep: bool = True) -> bool:
    """Whether a folder, or with `deep` one in it, has a file with one of these suffixes."""
    return any(PurePosixPath(name).suffix.lower() in suffixes for name in _walk(folder, deep))


def _walk(folder: Path, deep: bool) -> Iterator[str]:
    """Relative paths of all files that are not hidden, with slashes."""
    seen, waiting = set(), [""]
    while waiting:
        inner = waiting.pop()
        place = folder / inner
        try:
            status = place.stat()
            key = (status.st_dev, status.st_ino)
            if key in seen and status.st_ino:
                continue  # a link back to where we are
            seen.add(key)
            with os.scandir(place) as found:
                entries = [entry for entry in found if not entry.name.startswith(".")]
        except OSError as error:
            raise DataError(f"{place}: cannot be listed ({error.strerror or error})") from error
        for entry in entries:
            name = f"{inner}/{entry.name}" if inner else entry.name
            if not entry.is_dir():
                yield name
            elif deep:
                waiting.append(name)


def find_file(path: Path) -> Path | None:
    """The file of this path, whatever its Unicode form and the case of its suffix on the disk."""
    if is_file(path):
        return path
    found = _in_any_form(path)
    return found if found is not None and is_file(found) else None


def _in_any_form(path: Path) -> Path | None:
    """What has this path, up to the Unicode form of each of its names."""
    parent: Path | None = path.parent
    if not path.name:
        return None
    if not os.path.isdir(path.parent):  # noqa: PTH112 (as in `is_file`)
        parent = _in_any_form(path.parent)
    name = None if parent is None else _names_in(parent).get(_loose(path.name))
    return None if parent is None or name is None else parent / name


def is_file(path: Path) -> bool:
    """Whether there is a file; a path that cannot be one leads to none."""
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises where a name is too long)


def _loose(name: str) -> str:
    stem, dot, suffix = nfc(name).rpartition(".")
    return f"{stem}{dot}{suffix.lower()}"


@functools.lru_cache(maxsize=64)
def _listed(folder: str, _changed: int) -> dict[str, str]:
    try:
        return {_loose(path.name): path.name for path in Path(folder).iterdir()}
    except (OSError, ValueError):  # a name may be too long, or hold a zero byte
        return {}


def _names_in(folder: Path) -> dict[str, str]:
    try:
        return _listed(str(folder), folder.stat().st_mtime_ns)
    except (OSError, ValueError):
        return {}


def find_image(stem: Path) -> Path | None:
    """The picture of this path without suffix."""
    names = _names_in(stem.parent)
    found = (names.get(_loose(f"{stem.name}{suffix}")) for suffix in sorted(IMAGE_SUFFIXES))
    name = next(filter(None, found), None)
    return None if name is None else stem.parent / name


def find_or(path: Path) -> Path:
    """The file of this path (`find_file`), or another picture of its stem, or the path itself."""
    return find_file(path) or find_image(path.with_suffix("")) or path


class Match(NamedTuple):
    """Images with their label maps, and what was left out, in words."""

    pairs: dict[str, tuple[Path, Path]]
    notes: list[str]


def match_files(images: Path, labels: Path, deep: bool = True) -> Match:
    """Pairs the files of two folders by their relative paths without suffix, sorted by them.

    A label map may have one of `MASK_ENDINGS` after the name of its image.

    Raises:
        DataError: a folder is missing, a name occurs twice, a file has no partner, or label maps
            are of a kind that holds no labels.
    """
    found = list_files(images, IMAGE_SUFFIXES, deep)
    masks = list_files(labels, LABEL_SUFFIXES, deep, NO_LABEL_SUFFIXES)
    named = _under_the_images_names(masks.files, found.files)
    refuse_shared(labels, named, "label maps")
    label_files = dict(named)
    for ours, others, folder, kind, missing in (
        (found.files, label_files, labels, "image", "without a label map"),
        (label_files, found.files, images, "label map", "without an image"),
    ):
        alone = [ours[name] for name in sorted(ours.keys() - others.keys())]
        if alone:
            home = images if ours is found.files else labels
            raise DataError(
                f"{home}: {counted(len(alone), kind)} {missing} of the same stem in {folder}: "
                f"{shortlist(path.relative_to(home).as_posix() for path in alone)}; add the "
                "missing files or remove these"
            )
    refuse_no_masks(labels, label_files.values())
    notes = left_out_notes(images, found.left_out) + left_out_notes(labels, masks.left_out)
    return Match({name: (found.files[name], label_files[name]) for name in found.files}, notes)


def match(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """The pairs of `match_files`."""
    return list(match_files(images, labels).pairs.values())


def _under_the_images_names(
    masks: dict[str, Path], images: Mapping[str, Path]
) -> list[tuple[str, Path]]:
    """The masks with the names of their images; one that has none keeps its own."""
    named = []
    for name, path in masks.items():
        if name not in images:
            stems = (name.removesuffix(ending) for ending in MASK_ENDINGS if name.endswith(ending))
            name = next((stem for stem in stems if stem in images and stem not in masks), name)
        named.append((name, path))
    return named


def refuse_no_masks(folder: Path, masks: Iterable[Path]) -> None:
    """Raises one DataError for all files that cannot hold labels."""
    wrong = [path for path in masks if path.suffix.lower() in NO_LABEL_SUFFIXES]
    if not wrong:
        return
    with decoding(wrong[0], "a label map"), open_file(wrong[0]) as file:
        why = no_mask(file.read(16)) or "a kind of file that holds no labels; save them as PNG"
    raise DataError(
        f"{folder}: {counted(len(wrong), 'label map')} cannot be read as labels: "
        f"{shortlist(path.name for path in wrong)}: {why}"
    )


def left_out_notes(folder: Path, names: list[str], what: str = "of another kind") -> list[str]:
    """A line that counts and names files that are no part of the data, or none."""
    if not names:
        return []
    return [f"{folder}: left out {counted(len(names), 'file')} {what}: {shortlist(names)}"]


def unlabelled_notes(root: Path, labelled: Iterable[str], what: str) -> list[str]:
    """A line about the pictures below a folder that nobody has annotated, or none.

    Args:
        root: the folder.
        labelled: names of the others, without suffix; their folders may be another machine's.
        what: the pictures are without, in words.
    """
    try:
        pictures = list_files(root, IMAGE_SUFFIXES).files
    except DataError:  # two pictures of one name: each file of labels names its own
        return []
    alone = {name.split("/")[-1] for name in pictures} - {name.split("/")[-1] for name in labelled}
    return left_out_notes(root, sorted(alone), what)


def refuse_shared(
    source: Path, images: Iterable[tuple[object, object]], what: str = "labels"
) -> None:
    """Raises a DataError where two sets of labels are for one picture.

    Args:
        source: what the labels belong to, for the error.
        images: the file or name of each picture, and what an error calls its labels.
        what: the labels are, in words.
    """
    seen: dict[object, object] = {}
    for image, labels in images:
        if image in seen:
            raise DataError(
                f"{source}: {seen[image]} and {labels} are both {what} of the picture {image}; "
                "expected one for each: remove or merge them"
            )
        seen[image] = labels


def existing(pairs: list[tuple[Path, Path]], source: Path) -> list[tuple[Path, Path]]:
    """The pairs themselves, once every file is known to be there.

    Raises:
        DataError: files that `source`, a list of names, asks for are missing.
    """
    missing = [path for pair in pairs for path in pair if not is_file(path)]
    if missing:
        named = (f"{path} ({link})" if (link := broken_link(path)) else path for path in missing)
        raise DataError(
            f"{source}: lists {counted(len(pairs), 'pair')} with "
            f"{counted(len(missing), 'missing file')}: {shortlist(named)}; add what is missing, or "
            "remove its name from the list"
        )
    return pairs


# Splits


def splits_with(root: str | Path, *folders: str) -> tuple[str, ...]:
    """Those of train, val and test of which all the folders exist; `{}` is the split's name."""
    return tuple(
        split
        for split in ("train", "val", "test")
        if all((Path(root) / folder.format(split)).is_dir() for folder in folders)
    )


def split_names(names: Iterable[str]) -> dict[str, str]:
    """Split -> the name that a folder or list has for it, of those that are named like a split.

    `valid` and `validation` are val, `training` is train; a name that is one of kfcn's own goes
    first.
    """
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name not in _SPLITS.values(), name)):
        if split := _SPLITS.get(name.lower()):
            found.setdefault(split, name)
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def all_splits(names: Iterable[str]) -> dict[str, str]:
    """Split -> name, of all folders or lists: `split_names`, then the others as they are called."""
    names = list(names)
    named = split_names(names)
    return named | {name: name for name in names if name not in named.values()}


def split_in_path(name: str) -> str | None:
    """The split that a file belongs to by the first folder of its path that is named like one."""
    return next(filter(None, (_SPLITS.get(part.lower()) for part in name.split("/")[:-1])), None)


def held_out(name: str) -> bool:
    """Whether a picture of this name is kept for validation, where no list says so.

    A tenth of all names, by their hash, so that a picture keeps its place when others are added.
    """
    return _hash(name) % 10 == 0


def _hash(name: str) -> int:
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big")


def part(names: Iterable[str], split: str) -> set[str]:
    """The names that belong to `val` (`held_out`) or else to `train`.

    Where the rule leaves one of the two empty, as it may with few pictures, the name with the
    smallest hash is `val` and the others are `train`.
    """
    names = set(names)
    held = {name for name in names if held_out(name)}
    if len(names) > 1 and (not held or held == names):
        held = {min(names, key=lambda name: (_hash(name), name))}
    return held if split == "val" else names - held
