"""How the files of a data set are read, where there is a choice."""

from dataclasses import dataclass

from kfcn.errors import UsageError

IGNORE_HELP = (
    "the stored label that is ignored: 255, or none where masks hold 255 for a class, which is "
    "then the last one"
)
PAGES_HELP = "all: each page of a file of several is a picture of its own, and so is its label map"


@dataclass(frozen=True)
class Reading:
    """How the files of a data set are read, where there is a choice.

    Attributes:
        ignore: the stored label that is ignored: "255", or "none" where masks hold 255 for a
            class, which is then the last one.
        pages: "one", where a file of several pages is an error, or "all", where each page is a
            picture of its own.
        stretch: the stored numbers that become 0 and 255 in pictures of more than 8 bits
            (`kfcn.data.stretch`); None for 0 and 65535.
    """

    ignore: str = "255"
    pages: str = "one"
    stretch: tuple[int, int] | None = None

    def __post_init__(self):
        for name, choices in (("ignore", ("255", "none")), ("pages", ("one", "all"))):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} {getattr(self, name)!r}: expected {' or '.join(choices)}")


AS_USUAL = Reading()
