"""PASCAL VOC's folders, as CVAT, datumaro and many others import them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kfcn.data.formats.images import stored_as_read
from kfcn.errors import UsageError
from kfcn.files import save_picture
from kfcn.inference.writer import Writer
from kfcn.outputs import Outputs


class VocWriter(Writer):
    """The folders of VOC.

    JPEGImages/         the pictures: their own files where any program reads them alike, else
                        PNGs of what was segmented (turned upright, 8 bits)
    SegmentationClass/  palette PNGs
    ImageSets/Segmentation/default.txt  the names, also of what was there before but
                        with `overwrite`
    labelmap.txt        a line `name:r,g,b::` for each class
    """

    pictures = "JPEGImages"

    def __init__(self, outputs: Outputs, names: Sequence[str], palette: Sequence[Sequence[int]]):
        super().__init__(outputs, names, palette)
        if wrong := [name for name in names if ":" in name or name.startswith("#")]:
            raise UsageError(
                f"class {wrong[0]!r} cannot stand in labelmap.txt, where ':' and '#' have a meaning"
            )
        if len(set(map(tuple, palette))) < len(palette):
            raise UsageError("two classes have one colour, by which the masks of VOC are read")

    def targets(self, path: Path) -> list[Path]:
        folder = self.outputs.folder
        mask = folder / "SegmentationClass" / f"{path.stem}.png"
        return [copy_target(folder / self.pictures, path), mask]

    def check(self, paths: Sequence[Path]) -> dict[Path, Path]:
        if wrong := next((path for path in paths if not path.stem.isprintable()), None):
            raise UsageError(
                f"{str(wrong)!a} cannot stand in a list of names, a line of text each; rename it"
            )
        self.outputs.check([self._labelmap, self._list])
        there = ""
        if self._labelmap.is_file() and not self.outputs.overwrite:
            there = self._labelmap.read_text(encoding="utf-8", errors="replace")
        if there not in ("", self._lines()):
            raise UsageError(
                f"{self._labelmap} holds the classes of another model, by which the masks there "
                "are read; choose another --out, or write it anew with --overwrite"
            )
        folder = self.outputs.folder / self.pictures
        copies = {file.stem: file for file in folder.iterdir()} if folder.is_dir() else {}
        for path in (path for path in paths if path.stem in copies):
            if copies[path.stem] != self.targets(path)[0]:
                raise UsageError(
                    f"{copies[path.stem]} and {path} would share a mask, by their name; "
                    "choose another --out, or rename one of them"
                )
        return super().check(paths)

    def write(self, path: Path, image: np.ndarray, labels: np.ndarray) -> None:
        copy, mask = self.targets(path)
        copy_picture(self.outputs, path, image, copy)
        self._save_labels(mask, labels)

    def start(self) -> None:
        self.outputs.write_text(self._labelmap, self._lines())

    def finish(self, paths: Sequence[Path]) -> None:
        listed = self._list.is_file() and not self.outputs.overwrite
        there = self._list.read_text(encoding="utf-8") if listed else ""
        names = {*there.splitlines(), *(path.stem for path in paths)}
        self.outputs.write_text(self._list, "".join(f"{name}\n" for name in sorted(names)))

    def _lines(self) -> str:
        lines = ["# label:color_rgb:parts:actions\n"]
        for name, colour in zip(self.names, self.palette, strict=True):
            lines.append(f"{name}:{','.join(map(str, colour))}::\n")
        return "".join(lines)

    @property
    def _labelmap(self) -> Path:
        return self.outputs.folder / "labelmap.txt"

    @property
    def _list(self) -> Path:
        return self.outputs.folder / "ImageSets" / "Segmentation" / "default.txt"


def copy_target(folder: Path, path: Path) -> Path:
    """Where the copy of a picture goes: its own name, or that of a PNG."""
    try:
        return folder / (path.name if stored_as_read(path) else f"{path.stem}.png")
    except Exception:  # Pillow raises many kinds for what is no picture; its reader names it
        return folder / f"{path.stem}.png"


def copy_picture(outputs: Outputs, path: Path, image: np.ndarray, target: Path) -> None:
    """Copies a picture's file, or writes its pixels where programs would read it differently."""
    with outputs.aside(target) as temporary:
        if target.name == path.name and stored_as_read(path):
            shutil.copyfile(path, temporary)
        else:
            save_picture(Image.fromarray(image), temporary, "PNG")
