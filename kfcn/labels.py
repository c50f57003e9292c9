"""What a label is: the ignore label, the classes of a net or data set, their colours."""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

IGNORE = 255
"""The label of a pixel that no loss and no metric looks at."""
VOID_COLOUR = (224, 224, 192)
"""The cream in which PASCAL VOC, and CVAT after it, paint what is ignored."""
_BACKGROUND = re.compile(r"_*(background|void|unlabell?ed|unknown)_*", re.IGNORECASE)


def is_background(name: str) -> bool:
    """Whether a class of this name is no object: it is not listed, tinted or written as one.

    Which pixels no polygon of a file covers is another question
    (`kfcn.data.formats.labelme.BACKGROUND_NAMES`).
    """
    return bool(_BACKGROUND.fullmatch(name.strip()))


@dataclass(frozen=True)
class Classes:
    """The classes in the order of their indices, each with its RGB colour."""

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

    @classmethod
    def from_json(cls, names: Any, palette: Any) -> "Classes":
        """The classes that a card names.

        Raises:
            ValueError: expected a list of different names, each with an RGB colour of its own.
        """
        if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
            raise ValueError(f"classes: expected a list of names. Received: {str(names)[:80]}")
        if not isinstance(palette, list) or not all(map(_is_colour, palette)):
            raise ValueError(
                "palette: expected a list of three numbers of 0 to 255 each. "
                f"Received: {str(palette)[:80]}"
            )
        found = cls(tuple(names), tuple((r, g, b) for r, g, b in palette))
        for what, values in (("name", found.names), ("colour", found.palette)):
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"two classes of the {what} {twice[0]}; change one of them")
        return found


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(v) is int and 0 <= v <= 255 for v in value)
    )


def voc_colour(index: int) -> tuple[int, int, int]:
    """Colour of a class in the PASCAL VOC palette (the bits of the index spread over R, G, B)."""

    def value(channel: int) -> int:
        return sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))

    return value(0), value(1), value(2)


def free_voc_colour(
    taken: Container[tuple[int, int, int] | None], index: int = 0, count: int = 1
) -> tuple[int, int, int]:
    """A colour of the PASCAL VOC palette for a class that has none.

    Args:
        taken: the colours of other classes, 255 at most.
        index: of the class, whose own colour is preferred.
        count: how many classes there are; colours behind the last one, which none of them misses,
            go before the others.
    """
    order = (index, *range(count, 256), *range(count))
    return next(colour for colour in map(voc_colour, order) if colour not in taken)


def coloured(names: Iterable[str], given: Iterable[tuple[int, int, int] | None]) -> Classes:
    """Classes some of which have a colour; the others get VOC's, as far as it is not taken.

    Args:
        names: up to 255.
        given: the colour of each, None for none.
    """
    names, given = tuple(names), tuple(given)
    palette: list[tuple[int, int, int]] = []
    taken = set(given)
    for index, colour in enumerate(given):
        palette.append(colour or free_voc_colour(taken, index, len(names)))
        taken.add(palette[-1])
    return Classes(names, tuple(palette))


def voc_coloured(names: Iterable[str]) -> Classes:
    """Classes of these names in the colours of the PASCAL VOC palette."""
    names = tuple(names)
    return coloured(names, [None] * len(names))


def tints(names: Sequence[str], palette: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """The palette in which classes are seen on a photograph, for `kfcn.visualize.overlay`.

    Black tints nothing there, which is right for the background alone. Palettes made for label maps
    begin with black whatever the first class is, such as the walls of a room: it gets a colour that
    no other class has.
    """
    colours = [(r, g, b) for r, g, b in palette]
    for index, name in enumerate(names):
        if not any(colours[index]) and not is_background(name):
            colours[index] = free_voc_colour(set(colours), index, len(colours))
    return colours
