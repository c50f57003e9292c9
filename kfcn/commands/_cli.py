"""What every command shares: its flags, its exit codes and the form of its errors."""

import argparse
import contextlib
import difflib
import io
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from kfcn.data import catalog
from kfcn.data.reading import CHOICES, IGNORE_HELP, PAGES_HELP, UNLABELLED_HELP, Reading
from kfcn.errors import KfcnError, Stopped, UsageError, first_line, received
from kfcn.machine import quiet_tensorflow, recycle_memory, use_onednn
from kfcn.options import Kind, Option, Range, default_in_words, kinds

DATA_HELP = f"data set: {', '.join(catalog.NAMES)}"
OF_THE_RUN = "default: that of the run or the card, else scenes; "
MODEL_HELP = "a .keras file, a run folder or a pretrained net's name"
OVERWRITE_HELP = "replace existing files, even those that kfcn did not write; never an input"
BEAM_HELP = (
    "run on Apache Beam, with Beam's own flags: --beam, or --beam='--runner=FlinkRunner "
    "--flink_master=HOST:8081'; every worker must see the folders"
)


class _Version(argparse.Action):
    """Prints kfcn's version, which is looked up only then."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{"nargs": 0, "help": "print kfcn's version", **options})

    def __call__(self, parser: argparse.ArgumentParser, *_: Any):
        from importlib.metadata import version

        print(f"kfcn {version('kfcn')}")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others are, and whose flags are whole.

    An abbreviation such as --out for --output-stride would be another flag's name elsewhere, or
    tomorrow; the nearest whole ones are named instead.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{"allow_abbrev": False, **options})
        if options.get("add_help", True):  # a parent of other parsers has neither
            self.add_argument("--version", action=_Version)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(action, f"received {value!r}; expected one of {names}")

    def error(self, message: str) -> NoReturn:
        """Prints the line and exits with 2."""
        text = message.removeprefix("argument ")
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            near = _nearest(unknown.split()[0].partition("=")[0], _flags_of(self))
            text += f"; did you mean {' or '.join(near)}?" if near else ""
        self.exit(2, f"{self.prog}: error: {text} ({self.prog} --help lists all arguments)\n")


def _flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """The long flags of a parser and of its actions."""
    flags = []
    for action in parser._actions:
        flags += [flag for flag in action.option_strings if flag.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                flags += _flags_of(inner)
    return sorted(set(flags))


def _nearest(flag: str, flags: Sequence[str]) -> list[str]:
    """The flags that begin as `flag` does, or else the one that looks most like it."""
    if not flag.startswith("--"):
        return []
    begun = [known for known in flags if known.startswith(flag)]
    return begun or difflib.get_close_matches(flag, flags, n=1)


def add_flags(
    parser: argparse.ArgumentParser,
    options: type,
    defaults: Callable[[Kind], str] = default_in_words,
) -> None:
    """Adds a flag for each field of a dataclass of options (`kfcn.options`), in its groups.

    What is not given is None: the defaults are those of the dataclass.

    Args:
        parser: gets the flags.
        options: the dataclass.
        defaults: the default of a field in words, for its help.
    """
    groups: dict[str, Any] = {"": parser}
    for name, kind in kinds(options).items():
        if kind.flag is None:
            continue
        title = kind.option.group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        group, default = groups[title], defaults(kind)
        more: dict[str, Any] = {"help": kind.option.help.replace("%", "%%")}
        if default:
            more["help"] += f" (default: {default})"
        if kind.type is bool:
            more |= {"action": "store_const", "const": not kind.default}
        else:
            more |= {"type": _parsed(kind), "metavar": _metavar(kind), "nargs": kind.count or None}
        group.add_argument(kind.flag, dest=name, **more)
        if kind.option.other:
            flag, value, text = kind.option.other
            group.add_argument(flag, dest=name, action="store_const", const=value, help=text)


def add_source(
    parser: argparse.ArgumentParser,
    flag: str = "--data",
    required: bool = True,
    purpose: str = "",
) -> None:
    """Adds what names a data set, for `source_of`.

    Args:
        parser: gets the flags.
        flag: "data" for an argument without a flag.
        required: one has to be named.
        purpose: what it is for, in words, where the command does not say it.
    """
    more: dict[str, Any] = {"type": _data_set, "metavar": "NAME", "help": purpose + DATA_HELP}
    if flag.startswith("-"):
        more["required"] = required
    parser.add_argument(flag, **more)
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the data set")
    parser.add_argument("--classes", metavar="FILE|LIST", help=catalog.CLASSES_HELP)
    # Without defaults: what is not given is as the net's card says (`reading_of`).
    parser.add_argument("--ignore", metavar="255|none", help=IGNORE_HELP)
    parser.add_argument("--pages", metavar="one|all", help=PAGES_HELP)
    parser.add_argument("--unlabelled", metavar="background|ignore", help=UNLABELLED_HELP)
    seed = number(int, least=0, most=2**32 - 1)
    parser.add_argument("--seed", type=seed, metavar="N", help="random seed of drawn data (0)")


def _data_set(name: str) -> str:
    if not catalog.is_name(name):
        names = ", ".join(catalog.NAMES)
        raise argparse.ArgumentTypeError(f"received {name!r}; expected one of {names}")
    return name


def source_of(args: argparse.Namespace, card: Mapping[str, Any] | None = None) -> catalog.Source:
    """The data set that the flags of `add_source` name, read by `reading_of`."""
    reading = reading_of(args, card)
    return catalog.Source(args.data, args.data_dir, args.seed or 0, args.classes, reading)


def source_of_run(
    args: argparse.Namespace, model: str, card: Mapping[str, Any] | None, drawn: bool = False
) -> tuple[catalog.Source, tuple[str, str]]:
    """The data set that the flags of `add_source` name, or else that of a net's run.

    Args:
        args: of `add_source`.
        model: the net, its file or its run folder.
        card: of the net; None where it has none.
        drawn: take the drawn scenes where neither the net's run nor its card knows a data set.

    Returns:
        The data set, and its splits to train and to validate on: the run's own, unless another data
        set is named.

    Raises:
        UsageError: no data set is named, none is known, and the drawn scenes will not do.
    """
    from kfcn.cards import data_of_run, data_to_measure

    if args.data is None and not drawn and data_of_run(model) is None:
        raise UsageError(f"{model} does not say what it was trained on; name it with --data NAME")
    given = {name: getattr(args, name) for name in ("data_dir", "seed", "classes")}
    chosen = data_to_measure(model, args.data, **given)
    named = argparse.Namespace(**vars(args) | chosen._asdict())
    return source_of(named, card), (chosen.train_split, chosen.split)


def reading_of(args: argparse.Namespace, card: Mapping[str, Any] | None = None) -> Reading:
    """How the flags of `add_source` say to read files; what they leave out, a net's card says.

    Raises:
        UsageError: a flag contradicts the card (`Reading.asked`).
    """
    given = {name: getattr(args, name) for name in CHOICES if getattr(args, name) is not None}
    return Reading.of_card(card).asked(**given)


def number(type: type, within: Range | None = None, **bounds: float) -> Callable[[str], Any]:
    """Reads a flag's number, of a range or of the one that the bounds say."""
    return _parsed(Kind("", type, 0, False, None, Option("", range=within or Range(**bounds))))


def _metavar(kind: Kind) -> str | tuple[str, ...]:
    if kind.option.metavar is not None:
        return kind.option.metavar
    return "|".join(map(str, kind.option.choices)) or {int: "N", float: "X"}.get(kind.type, "TEXT")


def beam_flags(text: str) -> list[str]:
    """The flags of Beam that stand behind `--beam`, as a shell would read them.

    Raises:
        UsageError: a quotation mark has no second one.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--beam {text}: {first_line(error)}") from error


def _parsed(kind: Kind) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return kind.parsed(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def _prepare(args: argparse.Namespace) -> None:
    recycle_memory()
    use_onednn()


def run(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
    prepare: Callable[[argparse.Namespace], object] = _prepare,
) -> int:
    """Parses `argv`, does `work(args)` and returns the exit code.

    `prepare(args)` comes first, before anything can import TensorFlow; only what needs it does, so
    that a file that is not there is told at once.

    0 when the work is done, 1 when it failed, 2 when the request makes no sense, 130 when
    Ctrl-C stopped it (143: SIGTERM), 141 when whoever read the output has gone, such as `head`.
    `work` may return an exit code of its own.
    """
    _open_streams()
    # A class of any name can be printed, also where the console lacks its letters (Windows).
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if "" in (sys.argv[1:] if argv is None else argv):  # as a path it would be this folder
        parser.error("received an empty argument; is a variable of the shell not set?")
    args = parser.parse_args(argv)
    try:
        prepare(args)
        quiet_tensorflow()
        code = work(args) or 0
        sys.stdout.flush()
        return code
    except KfcnError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:
        _drop_output()
        return 141
    except OSError as error:  # of a file that was not expected to fail: its name may be too long
        place = f"{received(error.filename)}: " if error.filename else ""
        print(f"{parser.prog}: error: {place}{error.strerror or error}", file=sys.stderr)
        _drop_output()
        return 1
    except Stopped as stop:
        print(f"{parser.prog}: {stop}", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        return 130


def _open_streams() -> None:
    """Opens onto nothing what a daemon's parent or a scheduler has closed.

    Else the next file that is opened would take the number of a stream, and what TensorFlow prints
    would go into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _drop_output() -> None:
    """Leaves what cannot be printed, or Python would try again at its end, and say so."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
