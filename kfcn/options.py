"""Options: fields of a dataclass that carry their own help, range, choices, flag and group.

What a field says is said once. The flags of a command (`kfcn.commands._cli.add_flags`), the check
of a value, whoever gives it (`Checked`), and the table of the reference (`table`) are made from it.
"""

import dataclasses
import functools
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from kfcn.errors import UsageError

_KEY = "option"


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that are allowed, infinite ones never; a bound that is None does not bound."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        return (
            math.isfinite(number)
            and (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        bounds = (
            ("of at least", self.least),
            ("above", self.above),
            ("at most", self.most),
            ("below", self.below),
        )
        return " and ".join(f"{word} {in_words(b)}" for word, b in bounds if b is not None)


@dataclasses.dataclass(frozen=True)
class Option:
    """What a field of a dataclass is, beside its type and default.

    Attributes:
        help: what it does, as `--help` says it.
        group: heading over its flag and its row.
        metavar: what stands for the value in the usage.
        range: of its number, or of each of its numbers.
        choices: the values that there are; empty where any will do.
        valid: whether a value of the right type and range is one, where that is not all.
        expected: what is expected in words; made from the type, range and choices where empty.
        otherwise: what holds where nothing is given, in words, where `default` does not say it.
        flag: "" for `--NAME-OF-THE-FIELD`; None for a field without a flag. A flag of a bool sets
            the opposite of its default.
        other: a flag more, the value that it sets, and its help.
    """

    help: str
    group: str = ""
    metavar: str | tuple[str, ...] | None = None
    range: Range = Range()
    choices: tuple = ()
    valid: Callable[[Any], bool] | None = None
    expected: str = ""
    otherwise: str = ""
    flag: str | None = ""
    other: tuple[str, Any, str] | None = None


def option(default: Any, help: str, **more: Any) -> Any:
    """A field of a dataclass.

    Args:
        default: its value where none is given; a dict is copied for each instance.
        help: what it does.
        more: fields of `Option`.
    """
    value: dict[str, Any] = {"default": default}
    if isinstance(default, dict):
        value = {"default_factory": lambda: dict(default)}
    return dataclasses.field(**value, metadata={_KEY: Option(help, **more)})


class Checked:
    """Base of a dataclass of options: no instance holds a value that is not one.

    Raises:
        UsageError: from the constructor; one line that names the field, what was received and what
            is expected.
    """

    def __post_init__(self) -> None:
        for name, kind in kinds(type(self)).items():
            object.__setattr__(self, name, kind.checked(getattr(self, name)))


@dataclasses.dataclass(frozen=True)
class Kind:
    """A field with its type: what its values may be, and how they are written.

    Attributes:
        name: the field's.
        type: of its value, or of each of the values of a tuple; `dict` for numbers by name.
        count: how many values a tuple has; 0 where it is none.
        optional: whether None is one of its values.
        default: where nothing is given.
        option: the rest.
    """

    name: str
    type: type
    count: int
    optional: bool
    default: Any
    option: Option

    @property
    def flag(self) -> str | None:
        """On the command line; None for none."""
        return None if self.option.flag is None else self.option.flag or f"--{_dashed(self.name)}"

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        if self.option.expected:
            return self.option.expected
        if self.option.choices:
            return f"one of {', '.join(map(str, self.option.choices))}"
        one = f"{_WORDS[self.type]} {self.option.range}".rstrip()
        return f"{self.count} times {one}" if self.count else one

    def checked(self, value: Any) -> Any:
        """The value in the field's own type, such as a tuple for a list.

        Raises:
            UsageError: it is none that the field may have.
        """
        if value is None and self.optional:
            return None
        try:
            found = self._converted(value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{self.name} {_shown(value)}: expected {self.expected}") from None
        if self.option.valid is not None and not self.option.valid(found):
            raise UsageError(f"{self.name} {_shown(value)}: expected {self.expected}")
        return found

    def parsed(self, text: str) -> Any:
        """One value as a flag has it; of a tuple, one of its values.

        Raises:
            ValueError: it is none; the message says what is expected.
        """
        try:
            value = self._one(self.type(text) if self.type in (int, float) else text)
            if not self.count and self.option.valid is not None and not self.option.valid(value):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"received {_shown(text)}; expected {self.expected}") from None
        return value

    def _converted(self, value: Any) -> Any:
        if self.type is dict:
            return {_text(name): _real(number) for name, number in dict(value).items()}
        if not self.count:
            return self._one(value)
        if isinstance(value, str) or len(value) != self.count:
            raise TypeError
        return tuple(map(self._one, value))

    def _one(self, value: Any) -> Any:
        found = _CONVERTED[self.type](value)
        if self.type in (int, float) and found not in self.option.range:
            raise ValueError
        if self.option.choices and found not in self.option.choices:
            raise ValueError
        return found


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError
    if not math.isfinite(value):
        raise ValueError
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: Any) -> str:
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError
    if not text or "\0" in text:
        raise ValueError
    return text


_CONVERTED = {int: _whole, float: _real, bool: _flag, str: _text}
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    dict: "numbers by name",
}


@functools.cache
def kinds(cls: type) -> dict[str, Kind]:
    """The fields of a dataclass of options, in their order."""
    hints = typing.get_type_hints(cls)
    return {f.name: _kind(f, hints[f.name]) for f in dataclasses.fields(cls) if _KEY in f.metadata}


def _kind(field: dataclasses.Field, hint: Any) -> Kind:
    parts = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    (plain,) = (part for part in parts if part is not types.NoneType)
    origin, inner = typing.get_origin(plain), typing.get_args(plain)
    count = len(inner) if origin is tuple else 0
    kind = dict if origin is dict else inner[0] if origin is tuple else plain
    default = field.default if field.default is not dataclasses.MISSING else {}
    return Kind(field.name, kind, count, len(parts) > 1, default, field.metadata[_KEY])


_UNIONS = (types.UnionType, typing.Union)


def checked(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were given for some fields of a dataclass of options; None is "not given".

    Raises:
        UsageError: an unknown name, or a value that the field may not have.
    """
    known = kinds(cls)
    given = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(f"unknown setting {', '.join(unknown)}; expected {', '.join(known)}")
    return {name: known[name].checked(value) for name, value in given.items()}


def in_words(value: Any) -> str:
    """A value as one writes it on the command line."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_in_words(kind: Kind) -> str:
    """The default; empty where there is none, or where the flag turns something on."""
    if kind.option.otherwise:
        return kind.option.otherwise
    return "" if kind.type in (bool, dict) or kind.default is None else in_words(kind.default)


def table(cls: type, defaults: Callable[[Kind], str] = default_in_words) -> str:
    """Markdown: a table of the fields for each of their groups."""
    groups: dict[str, list[Kind]] = {}
    for kind in kinds(cls).values():
        groups.setdefault(kind.option.group, []).append(kind)
    parts = []
    for title, members in groups.items():
        lines = [f"**{title}**", ""] if title else []
        lines += ["| setting | flag | value | default | |", "|---|---|---|---|---|"]
        lines += [_row(kind, defaults(kind)) for kind in members]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _row(kind: Kind, default: str) -> str:
    flags = [flag for flag in (kind.flag, kind.option.other and kind.option.other[0]) if flag]
    cells = (
        f"`{kind.name}`",
        ", ".join(f"`{flag}`" for flag in flags),
        kind.expected,
        default or (str(kind.default).lower() if kind.type is bool else ""),
        kind.option.help,
    )
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _shown(value: Any) -> str:
    """A value inside of a message, short enough for a line."""
    if isinstance(value, (tuple, list)):
        text = " ".join(map(_shown, value))
    else:  # not `in_words`: 10.0 is no 10, and neither is "10"
        text = str(value) if isinstance(value, numbers.Number) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
