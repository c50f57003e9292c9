"""What a label is: the ignore label, the classes of a net or data set, their colours."""

from collections.abc import Iterable
from dataclasses import dataclass

IGNORE = 255
"""The label of a pixel that no loss and no metric looks at."""


@dataclass(frozen=True)
class Classes:
    """The classes in the order of their indices, each with the RGB colour it is painted in."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self):
        if len(self.names) != len(self.palette):
            raise ValueError(
                f"Expected one colour a class. Received: {len(self.names)} names and "
                f"{len(self.palette)} colours"
            )

    def __len__(self) -> int:
        return len(self.names)


def voc_colour(index: int) -> tuple[int, int, int]:
    """Colour of a class in the PASCAL VOC palette (the bits of the index spread over R, G, B)."""

    def value(channel: int) -> int:
        return sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))

    return value(0), value(1), value(2)


def voc_coloured(names: Iterable[str]) -> Classes:
    """Classes of these names in the colours of the PASCAL VOC palette."""
    names = tuple(names)
    return Classes(names, tuple(voc_colour(index) for index in range(len(names))))
