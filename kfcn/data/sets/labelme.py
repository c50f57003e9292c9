"""labelme's files: a JSON file of polygons beside each image, as `--data folder`."""

from pathlib import Path

from kfcn.data.formats.classes_txt import read_classes
from kfcn.data.formats.labelme import BACKGROUND_NAMES, IGNORE_NAME, read_labelme, shape_names
from kfcn.data.formats.text import read_json
from kfcn.data.sets.folder import Folder
from kfcn.data.sets.pairs import FilePairs, existing, held_out
from kfcn.labels import IGNORE, Classes, voc_coloured


class Labelme(FilePairs):
    """Images with a JSON file of polygons beside each, in `data_dir` or in a folder a split.

    The classes are those of `classes.txt` or of labelme's own `labels.txt`; without either they
    are the background and the names found in all files, in alphabetical order. What no polygon
    covers is the class `background` (or `_background_`), and ignored where there is none;
    `__ignore__` is ignored.
    """

    name = Folder.name
    layout = Folder.layout

    def __init__(self, split: str, data_dir: str | Path, seed: int = 0):
        root = Path(data_dir)
        files = _labelme_files(root / split if _labelme_folders(root) else root)
        classes = _labelme_classes(root)
        label_of = {name: index for index, name in enumerate(classes.names)}
        background = next((label_of[n] for n in BACKGROUND_NAMES if n in label_of), IGNORE)
        # A hole in a region is drawn as background, whichever of its two names it has.
        known = label_of | dict.fromkeys(BACKGROUND_NAMES, background) | {IGNORE_NAME: IGNORE}
        pairs = [
            (path.parent / Path(str(read_json(path).get("imagePath", "")).replace("\\", "/")), path)
            for path in files
            if _labelme_folders(root) or held_out(path.stem) == (split == "val")
        ]
        super().__init__(
            split,
            root,
            existing(pairs, root),
            classes,
            read=lambda path: read_labelme(path, known, background),
        )

    @classmethod
    def splits(cls, data_dir: str | Path) -> tuple[str, ...]:
        """The folders with labelme's files, or train and val where they lie in one."""
        root = Path(data_dir)
        if folders := _labelme_folders(root):
            return folders
        return ("train", "val") if _labelme_files(root) else ()


def _labelme_files(folder: Path) -> list[Path]:
    """JSON files that have an image beside them or say where it is."""
    return [
        path
        for path in sorted(folder.glob("*.json"))
        if b'"shapes"' in path.read_bytes() and b'"imagePath"' in path.read_bytes()
    ]


def _labelme_folders(root: Path) -> tuple[str, ...]:
    folders = (p for p in sorted(root.iterdir()) if p.is_dir() and p.name[0] != ".")
    return tuple(folder.name for folder in folders if _labelme_files(folder))


def _labelme_classes(root: Path) -> Classes:
    for file in (root / "classes.txt", root / "labels.txt"):
        if file.is_file():
            found = read_classes(file)
            kept = [i for i, name in enumerate(found.names) if name != IGNORE_NAME]
            return Classes(
                tuple(found.names[i] for i in kept),
                found.palette if len(kept) == len(found) else voc_coloured(kept).palette,
            )
    folders = [root / name for name in _labelme_folders(root)] or [root]
    files = [path for folder in folders for path in _labelme_files(folder)]
    names = set().union(*(shape_names(path) for path in files))
    return voc_coloured(["background", *sorted(names - {*BACKGROUND_NAMES, IGNORE_NAME})])
