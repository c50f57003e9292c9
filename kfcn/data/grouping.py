"""Classes as one wants them: `--classes FILE|LIST`, of any data set.

    person, cat, dog                      these three; all others become background
    person, cat, rest = ignore            ... or 255
    person; animal = cat, dog, cow        a group gets a name
    ignore = chair, sofa                  in a file, one entry a line, as behind a semicolon

The classes are numbered as they are named. The class of the rest has its own number where it is
named, else it is the first. A name with a comma, semicolon or equals sign stands in double quotes.
"""

import dataclasses
import re

from kfcn.data.formats.text import nfc
from kfcn.errors import UsageError
from kfcn.labels import IGNORE, Classes, free_voc_colour

_IGNORE, _REST, _BACKGROUND = "ignore", "rest", "background"


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Which classes of a data set become which of the net.

    Attributes:
        groups: name of a class -> the data set's classes that become it.
        ignored: those that become 255.
        rest: name of the class that all others become; "ignore" for 255.
    """

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    ignored: tuple[str, ...] = ()
    rest: str = _BACKGROUND

    @classmethod
    def parse(cls, text: str, file: str | None = None) -> "Grouping":
        """Reads what `--classes` or a file says.

        Args:
            text: the list.
            file: where it was read, for messages, which quote the text itself otherwise.

        Raises:
            UsageError: it is no such list; the message says where.
        """
        part_of = "classes" if file is None else f"classes {file}"
        whole = f"classes {text!r}" if file is None else part_of
        if file is not None:  # before quotes and semicolons are looked for, which remarks may have
            lines = text.splitlines()
            text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        if text.count('"') % 2:
            raise UsageError(f"{whole}: a quotation mark is not closed")
        found: dict[str, list[str]] = {}
        for entry in _split(text, ";\n"):
            if entry.startswith("#"):
                continue
            target = None
            for part in filter(None, _split(entry, ",")):
                *new, name = map(_unquoted, _split(part, "="))
                if len(new) > 1 or not all((*new, name)):
                    raise UsageError(f"{part_of}: {part!r}: expected a name, or NAME = NAME")
                target = new[0] if new else target
                members = found.setdefault(name if target is None else target, [])
                if name in members:
                    raise UsageError(f"{part_of}: {name!r} is named twice")
                members.append(name)
        rest = found.pop(_REST, [_BACKGROUND])
        if len(rest) > 1:
            raise UsageError(
                f"{part_of}: rest = {', '.join(rest)}: expected ignore or one class; end the entry "
                "with a semicolon, or name the rest last"
            )
        ignored = found.pop(_IGNORE, [])
        if not found:
            raise UsageError(f"{whole}: expected names of classes, such as person,cat,dog")
        groups = tuple((target, tuple(members)) for target, members in found.items())
        return cls(groups, tuple(ignored), rest[0])

    def __str__(self) -> str:
        """The same as one line, which `parse` reads."""
        entries = [
            _quoted(target)
            if (target,) == members
            else f"{_quoted(target)} = {', '.join(map(_quoted, members))}"
            for target, members in self.groups
        ]
        if self.ignored:
            entries.append(f"{_IGNORE} = {', '.join(map(_quoted, self.ignored))}")
        return "; ".join([*entries, f"{_REST} = {_quoted(self.rest)}"])

    def apply(self, classes: Classes, title: str) -> tuple[Classes, dict[int, int]]:
        """The net's classes, in the colours of the data set's, and what becomes of each label.

        Args:
            classes: the data set's.
            title: what an error calls the data set.

        Returns:
            The classes, and the data set's label -> the net's, or 255.

        Raises:
            UsageError: a class that the data set has not, that stands in two groups, or a single
                class in all.
        """
        number = {nfc(name): index for index, name in enumerate(classes.names)}
        becomes: dict[int, str] = {}
        for target, members in (*self.groups, (_IGNORE, self.ignored)):
            for name in members:
                if nfc(name) not in number:
                    raise UsageError(
                        f"classes: {title} has no class {name!r}; it has: "
                        f"{', '.join(classes.names)}"
                    )
                index = number[nfc(name)]
                if index in becomes:
                    raise UsageError(
                        f"classes: {name!r} is to become {becomes[index]!r} and {target!r}; "
                        "expected one of them"
                    )
                becomes[index] = target
        own = {nfc(n): c for n, c in zip(classes.names, classes.palette, strict=True)}
        colours = {}
        for target, members in self.groups:
            inside = [nfc(name) for name in members]
            colours[target] = own[nfc(target) if nfc(target) in inside else inside[0]]
        left = [index for index in range(len(classes)) if index not in becomes]
        if left and self.rest not in (_IGNORE, *colours):
            colour = own.get(nfc(self.rest))
            if colour is None or colour in colours.values():  # a group may have it by a member
                colour = free_voc_colour(classes.palette)
            colours = {self.rest: colour, **colours}
        if len(colours) < 2:
            raise UsageError(
                f"classes {self}: expected at least two; of {title} they leave only "
                f"{', '.join(colours)}"
            )
        at = {name: index for index, name in enumerate(colours)} | {_IGNORE: IGNORE}
        relabel = {index: at[becomes.get(index, self.rest)] for index in range(len(classes))}
        return Classes(tuple(colours), tuple(colours.values())), relabel


def groups_classes(text: str) -> bool:
    """Whether a file's lines make groups; `NAME = 255` is a line of a classes.txt."""
    return any("=" in line and not re.search(r"=\s*\d+\s*$", line) for line in text.splitlines())


def _split(text: str, marks: str) -> list[str]:
    """The parts between marks that stand outside of double quotes."""
    outside = r'(?=(?:[^"]*"[^"]*")*[^"]*$)'
    return [part.strip() for part in re.split(f"[{marks}]{outside}", text)]


def _quoted(name: str) -> str:
    return f'"{name}"' if re.search(r"[,;=\n#]", name) else name


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name
