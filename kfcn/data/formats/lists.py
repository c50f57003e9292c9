"""Lists of names, one a line, as the data sets keep them for their splits."""

from pathlib import Path

from kfcn.errors import DataError


def read_names(path: Path) -> list[str]:
    """The first word of each line of a list file.

    Raises:
        DataError: the file cannot be read or has no line.
    """
    try:
        names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise DataError(f"{path}: cannot be read as a list of names ({error})") from error
    if not names:
        raise DataError(f"{path}: is empty; expected one name a line")
    return names
