"""How the files of a data set are read, where there is a choice."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kfcn.errors import UsageError

CHOICES = {
    "ignore": ("255", "none"),
    "pages": ("one", "all"),
    "unlabelled": ("background", "ignore"),
}

IGNORE_HELP = (
    "the stored label that is ignored: 255, or none where masks hold 255 for a class, which is "
    "then the last one"
)
PAGES_HELP = (
    "all: each page of a file with several pages is a picture of its own, and so is each page of "
    "its label map"
)
UNLABELLED_HELP = (
    "for polygons, lines and points: pixels that no shape covers are background, or ignored, in "
    "which case a few strokes in each picture suffice"
)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the files of a data set are read, where there is a choice.

    Attributes:
        ignore: the stored label that is ignored: "255", or "none" where masks hold 255 for a
            class, which is then the last one.
        pages: "one", where a file of several pages is an error, or "all", where each page is a
            picture of its own.
        unlabelled: in data sets of polygons, what no shape covers: "background" (where there is
            such a class) or "ignore".
        stretch: the stored numbers that become 0 and 255 in pictures of more than 8 bits
            (`kfcn.data.stretch`); None for 0 and 65535.
        inherited: the choices that a net's card makes and nobody has asked for; a data set that
            has no such choice leaves them out.
    """

    ignore: str = "255"
    pages: str = "one"
    unlabelled: str = "background"
    stretch: tuple[int, int] | None = None
    inherited: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} {getattr(self, name)!r}: expected {' or '.join(choices)}")
        if self.stretch is not None:
            low, high = self.stretch
            if type(low) is not int or type(high) is not int or low >= high:
                raise UsageError(f"stretch {self.stretch}: expected two numbers, low and high")

    @classmethod
    def of_card(cls, card: Mapping[str, Any] | None) -> "Reading":
        """How the data of a net were read, as its card says; as usual where it says nothing.

        Raises:
            UsageError: the card says something else.
        """
        stored = (card or {}).get("reading") or {}
        try:
            pair = stored.get("stretch")
            stretch = None if pair is None else (pair[0], pair[1])
            inherited = frozenset(CHOICES) if stored else frozenset()
            return cls(**{**stored, "stretch": stretch, "inherited": inherited})
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise UsageError("the card of the net does not say how its data are read") from error

    def asked(self, **given: str) -> "Reading":
        """The same with choices that somebody makes.

        Raises:
            UsageError: a value that does not exist, or another `ignore` than the net was trained
                with: what is a class to it would silently be ignored, or the other way round.
        """
        told = given.get("ignore", self.ignore)
        if "ignore" in self.inherited and told in CHOICES["ignore"] and told != self.ignore:
            raise UsageError(
                f"--ignore {told}: the net was trained with --ignore {self.ignore}, as its card "
                "says; leave the flag out"
            )
        return dataclasses.replace(self, **given, inherited=self.inherited - given.keys())

    def as_dict(self) -> dict[str, Any]:
        """For a card."""
        values = dataclasses.asdict(self)
        del values["inherited"]
        return values


AS_USUAL = Reading()
