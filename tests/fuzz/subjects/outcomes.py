"""What becomes of a damaged file that is read."""

READ, REFUSED = "read", "refused"


def told(error: Exception) -> str:
    """The outcome of an error that is meant for people, once it is one line."""
    text = str(error)
    assert text and "\n" not in text and len(text) < 1500, f"not one line: {text[:300]!r}"
    assert "Traceback" not in text
    return REFUSED
