"""Files of text and JSON as people have them, read with errors that name the file."""

import codecs
import json
import unicodedata
from pathlib import Path
from typing import Any

from kfcn.errors import DataError, first_line
from kfcn.files import read_bytes

# The four-byte marks first: they begin with the two-byte ones.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: Path | str) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: the file cannot be read, or has another encoding; the message names both.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    other = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if other is None and b"\0" in content:
        other = "UTF-16 without a mark, or not text at all"
    if other is None:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            other = f"Latin-1 or another 8-bit encoding (byte 0x{content[error.start]:02x})"
    raise DataError(f"{path}: is stored as {other}; expected UTF-8: save it again in that encoding")


def read_json(path: Path | str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: it cannot be read, or is no JSON object; the message names it.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise DataError(f"{path}: cannot be read as JSON (nested too deeply)") from error
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as JSON ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: cannot be read as JSON (no object at the top)")
    return content


def is_name(value: Any) -> bool:
    """Whether a value of a file is a name: a text of one line that can be written down."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not any(c < " " or "\ud800" <= c <= "\udfff" or c in _BREAKS for c in value)
    )


_BREAKS = "\x7f\x85\u2028\u2029"


def unquoted(line: str) -> str:
    """What stands in quotes at the beginning of a line; the line itself where it has none."""
    quote = line[:1]
    if not quote or quote not in "\"'":
        return line
    end = line.find(quote, 1)
    return line[1:end] if end > 1 else line


def nfc(text: str) -> str:
    """Text in the one form in which names are compared.

    A name with an accent comes composed from Windows and Linux and decomposed from macOS.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)
