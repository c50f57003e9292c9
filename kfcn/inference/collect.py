"""Which pictures a person means by files, folders, patterns and lists."""

import glob
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from kfcn.errors import UsageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"}


def collect(images: Sequence[Path | str]) -> list[Path]:
    """All images that are meant, in order.

    A folder and a pattern (`*`, `?`, `[`) give theirs sorted by name; a `.txt` file holds a path a
    line.
    """
    paths = []
    for path in map(Path, images):
        if glob.has_magic(str(path)) and not path.exists():
            inside = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
            if not inside:
                raise UsageError(f"{path}: no file is named like this")
            paths += inside
        elif path.suffix.lower() == ".txt" and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            paths += [Path(line.strip()) for line in lines if line.strip()]
        elif path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise UsageError(f"{path}: no images; expected {', '.join(sorted(SUFFIXES))}")
            paths += inside
        else:
            paths.append(path)  # a missing file is told with the unreadable ones
    seen = {}
    for path in paths:
        stem = unicodedata.normalize("NFC", path.stem)  # two spellings of one name on some disks
        if stem in seen:
            raise UsageError(
                f"{seen[stem]} and {path} would both be written to {stem}.png; rename one, or "
                "write them to different folders"
            )
        seen[stem] = path
    if not paths:
        raise UsageError("no image to segment; expected image files or folders of them")
    return paths
