"""Files of text and JSON, read with errors that name the file."""

import json
from pathlib import Path

from kfcn.errors import DataError, first_line


def read_json(path: Path) -> dict:
    """The content of a JSON file.

    Raises:
        DataError: it cannot be read, or is no JSON object; the message names it.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no object at the top")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({first_line(error)})") from error
    return content
