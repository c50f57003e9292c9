"""labelme's files: a JSON file of shapes for each image, as `--data folder`.

The images lie beside their JSON files, in `images/` beside the folder of these, or within them
(`imageData`); folders of any depth are followed. A folder a split (`train/`, `val/`) is one where
it is named so; else all files together are divided by the hash of their names.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from kfcn.data.formats.images import read_head
from kfcn.data.formats.labelme import (
    NO_OBJECTS,
    embedded_image,
    read_labelme,
    shape_names,
)
from kfcn.data.formats.text import read_json
from kfcn.data.listing import (
    find_file,
    find_image,
    left_out_notes,
    list_files,
    part,
    refuse_shared,
    split_in_path,
    unlabelled_notes,
)
from kfcn.data.sets.folder import Folder
from kfcn.data.sets.shapes import Shapes, written_classes
from kfcn.errors import DataError, shortlist
from kfcn.files import read_bytes
from kfcn.labels import Classes, voc_coloured

_JSON = frozenset({".json"})


class Labelme(Shapes):
    """Images with a JSON file of shapes for each.

    The classes are those of `classes.txt` or of labelme's own `labels.txt`; without either they
    are the background and the names found in all files, in alphabetical order. What no shape
    covers is the class `background` (or `_background_`), and ignored where there is none;
    `__ignore__` is ignored.
    """

    name = Folder.name
    layout = Folder.layout

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        files, others = _files(root)
        classes = _classes(root, list(files.values()))
        found = [(_image(root, files[name]), files[name]) for name in _of_split(files, split)]
        missing = [path for image, path in found if image is None]
        if missing:
            raise DataError(
                f"{root}: {len(missing)} of {len(found)} JSON files have no image, neither beside "
                "them, where imagePath says, nor in imageData: "
                f"{shortlist(path.relative_to(root).as_posix() for path in missing)}"
            )
        pairs = [(image, path) for image, path in found if image is not None]
        refuse_shared(root, pairs)
        notes = left_out_notes(root, others) + unlabelled_notes(root, files, "without a JSON file")
        super().__init__(split, root, pairs, classes, notes=notes)

    def _labels(self, index: int) -> np.ndarray:
        path = self.label_file(index)
        size = read_head(self.stored_image(index), self.file_name(index)).size
        return read_labelme(path, self._label_of, self._background, size)

    def stored_image(self, index: int) -> Path | bytes:
        """The image's file, or its content where that is within the JSON file."""
        image, path = self._pairs[index]
        return embedded_image(path) or b"" if image == path else image

    def image_file(self, index: int) -> Path | None:
        """The image's file; None where it is within the JSON file."""
        image, path = self._pairs[index]
        return None if image == path else image

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """Those of train, val and test that folders are named after, or else train and val.

        Where no folder is named so, those at the top that hold images are splits as well.
        """
        root = Path(data_dir)
        files, _ = _files(root)
        if not files:
            return ()
        named = {split_in_path(name) or "train" for name in files}
        if any(map(split_in_path, files)):
            return tuple(split for split in ("train", "val", "test") if split in named)
        return ("train", "val", *_top_folders(root, files))


def _files(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Labelme's JSON files by their names, and the other JSON files."""
    found = list_files(root, _JSON).files
    files, others = {}, []
    for name, path in found.items():
        try:
            content = read_bytes(path)
        except OSError:
            content = b""
        if b'"shapes"' in content:
            files[name] = path
        else:
            others.append(path.relative_to(root).as_posix())
    return files, others


def _top_folders(root: Path, files: dict[str, Path]) -> list[str]:
    """The folders at the top with images in them; one with JSON files alone is no split."""
    tops: dict[str, list[Path]] = {}
    for name, path in files.items():
        if "/" in name:
            tops.setdefault(name.split("/")[0], []).append(path)
    return [top for top, paths in tops.items() if any(_is_beside(root, path) for path in paths)]


def _is_beside(root: Path, path: Path) -> bool:
    image = _image(root, path)
    return image is not None and image.parent == path.parent


def _of_split(files: dict[str, Path], split: str) -> list[str]:
    """The names of a split's files, sorted."""
    if any(map(split_in_path, files)):  # files beside a folder such as val are for training
        return [name for name in files if (split_in_path(name) or "train") == split]
    if split in ("train", "val"):
        chosen = part(files, split)
        return [name for name in files if name in chosen]
    return [name for name in files if name.startswith(f"{split}/")]


def _image(root: Path, path: Path) -> Path | None:
    """Where the image of a JSON file is: its file, the JSON file itself, or nowhere.

    `imagePath` comes from the machine that wrote it, with that one's separators and folders.

    Raises:
        DataError: it names the picture of another JSON file, as it does where files were renamed.
    """
    content = read_json(path)
    stored = content.get("imagePath")
    stored = stored.replace("\\", "/") if isinstance(stored, str) else ""
    if stored and (found := find_file(path.parent / stored)):
        return _decided(path, found, find_image(path.parent / path.stem))
    name = PurePosixPath(stored).name
    for place in _image_folders(root, path):
        own = find_image(place / path.stem)
        if name and (found := find_file(place / name)):
            return _decided(path, found, own)
        if own:
            return own
    return path if content.get("imageData") else None


def _decided(path: Path, named: Path, own: Path | None) -> Path:
    """Which of two pictures a JSON file is about: that of its `imagePath`, or of its own name."""
    if own is None or own.stem == named.stem:
        return named
    embedded = embedded_image(path)
    for image in (named, own):
        if embedded is not None and read_bytes(image) == embedded:
            return image
    raise DataError(
        f"{path}: its imagePath names {named.name}, and {own.name} has its own name; expected one "
        "picture: correct imagePath, or remove the other picture"
    )


def _image_folders(root: Path, path: Path) -> list[Path]:
    """Where the image of a JSON file is looked for.

    Beside it, in `images/` beside it, or where images/ stands for one of its folders: the image of
    `labels/train/x.json` may be in `images/train/`.
    """
    parts = path.parent.relative_to(root).parts
    twins = [root.joinpath(*parts[:i], "images", *parts[i + 1 :]) for i in range(len(parts))]
    return [path.parent, path.parent / "images", *twins]


def _classes(root: Path, files: list[Path]) -> Classes:
    if found := written_classes(root):
        return found
    names = set().union(*map(shape_names, files))
    names -= {*NO_OBJECTS}
    if len(names) > 254:
        raise DataError(
            f"{root}: shapes of {len(names)} names ({shortlist(sorted(names))}); expected up to "
            "254: name the classes in classes.txt, or give the shapes of a class one name"
        )
    return voc_coloured(["background", *sorted(names)])
