"""Lists of names, one a line, as the data sets keep them for their splits."""

from collections.abc import Container
from pathlib import Path, PurePosixPath

from kfcn.data.formats.text import nfc, read_text, unquoted
from kfcn.errors import DataError


def read_lines(path: Path) -> list[str]:
    """The lines of a list file that hold something, without the quotes around a name.

    CVAT and Datumaro put names with blanks into quotes; what follows a closing quote, such as
    VOC's 1 or -1, is left out with it.

    Raises:
        DataError: the file cannot be read, or has no line.
    """
    lines = [unquoted(line.strip()) for line in read_text(path).splitlines()]
    lines = [nfc(line) for line in lines if line.strip()]
    if not lines:
        raise DataError(f"{path}: is empty; expected one name per line")
    return lines


def read_names(path: Path, known: Container[str] = ()) -> list[str]:
    """The names of a list file.

    A line is a name as a whole where `known` holds it, so that a name may have blanks; else its
    first word is, as in the lists with further columns. A name may also stand with a suffix. A
    line that begins with `#` is a comment.

    Args:
        path: the list.
        known: names that exist.

    Raises:
        DataError: the file cannot be read, or has no line.
    """
    lines = read_lines(path)
    names = [_name(line, known) for line in lines if not _is_comment(line, known)]
    if not names:
        raise DataError(f"{path}: holds only comments; expected one name per line")
    return names


def _is_comment(line: str, known: Container[str]) -> bool:
    return line.startswith("#") and _name(line, known) not in known


def _name(line: str, known: Container[str]) -> str:
    word = line.split()[0]
    for name in (line, word):
        for written in (name, name.replace("\\", "/")):
            path = PurePosixPath(written)
            bare = path.with_suffix("").as_posix() if path.name else written
            for form in (written, bare):
                if form in known:
                    return form
    return word
