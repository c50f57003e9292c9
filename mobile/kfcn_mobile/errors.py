"""What keeps a target or a page from being there."""


class TargetError(Exception):
    """A target that cannot be used here; the message is one line with the reason."""


class MissingError(TargetError):
    """What is fetched once is not there and cannot be fetched; one line with the reason."""
